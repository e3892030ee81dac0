/** DNS questions for tests: a message by hand, over UDP or TCP, so that nothing of the server's own code is trusted. */
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';

export const TYPE_A = 1;
export const TYPE_SRV = 33;

/** What an answer says: the response code (0 fine, 3 no such name), addresses and the ports of SRV records. */
export interface DnsAnswer {
  readonly code: number;
  readonly addresses: readonly string[];
  readonly ports: readonly number[];
}

const TIMEOUT_MS = 3_000;
const HEADER_BYTES = 12;

function encode(name: string, type: number): Buffer {
  const labels = name.split('.').flatMap((label) => [Buffer.from([label.length]), Buffer.from(label)]);
  const header = Buffer.from([0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  return Buffer.concat([header, ...labels, Buffer.from([0, 0, type, 0, 1])]);
}

/** The offset behind a name that begins at `offset`. */
function skipName(message: Buffer, offset: number): number {
  for (let at = offset; ; ) {
    const length = message.readUInt8(at);
    if (length >= 0xc0) return at + 2;
    if (length === 0) return at + 1;
    at += length + 1;
  }
}

function decode(message: Buffer): DnsAnswer {
  const addresses: string[] = [];
  const ports: number[] = [];
  let at = skipName(message, HEADER_BYTES) + 4;
  for (let left = message.readUInt16BE(6); left > 0; left--) {
    at = skipName(message, at);
    const [type, length] = [message.readUInt16BE(at), message.readUInt16BE(at + 8)];
    const data = message.subarray(at + 10, at + 10 + length);
    if (type === TYPE_A) addresses.push([...data].join('.'));
    if (type === TYPE_SRV) ports.push(data.readUInt16BE(4));
    at += 10 + length;
  }
  return {
    code: message.readUInt8(3) & 0xf,
    addresses: addresses.toSorted(),
    ports: ports.toSorted((a, b) => a - b),
  };
}

/** Asks the server at `address` (host:port) over UDP. */
export function askUdp(address: string, name: string, type = TYPE_A): Promise<DnsAnswer> {
  const [host, port] = address.split(':');
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4');
    const timer = setTimeout(() => {
      socket.close();
      reject(new Error(`no answer about ${name} from ${address}`));
    }, TIMEOUT_MS);
    socket.once('message', (message) => {
      clearTimeout(timer);
      socket.close();
      resolve(decode(message));
    });
    socket.send(encode(name, type), Number(port), host);
  });
}

/** Asks the server at `address` (host:port) over TCP. */
export function askTcp(address: string, name: string, type = TYPE_A): Promise<DnsAnswer> {
  const [host, port] = address.split(':');
  const question = encode(name, type);
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port: Number(port), timeout: TIMEOUT_MS });
    let received = Buffer.alloc(0);
    socket.on('data', (part: Buffer) => {
      received = Buffer.concat([received, part]);
      if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
      socket.destroy();
      resolve(decode(received.subarray(2)));
    });
    socket.on('timeout', () => socket.destroy(new Error(`no answer about ${name} from ${address}`)));
    socket.on('error', reject);
    socket.write(Buffer.concat([Buffer.from([0, question.length]), question]));
  });
}
