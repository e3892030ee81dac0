/**
 * Consensus messages as bytes between members.
 *
 * Frames: a message; a chunk of a snapshot's state (with the message it belongs to); the acknowledgement of
 * chunks. Numbers are big-endian; ids, terms and indexes take 6 bytes.
 *
 * Invariants: decoding is total (anything malformed gives null, never an exception or a huge allocation);
 * decoded payloads are copies, so that a received buffer may be reused.
 */
import { crc32 } from 'node:zlib';
import { ByteReader, ByteWriter, Malformed, U48_BYTES } from './bytes.ts';
import { decodeConfigChange } from './core/config-codec.ts';
import { type Entry, type Message, message, type WireMessageType } from './core/types.ts';
import { type Contact, encodeContacts, parseContacts } from './members.ts';
import { readSnapshot, snapshotBytes, writeSnapshot } from './snapshot-codec.ts';

/** Chunks of a snapshot's state on their way to a follower. */
export interface SnapshotChunk {
  readonly message: Message;
  readonly chunk: number;
  readonly chunks: number;
  readonly bytes: number;
  readonly payload: Uint8Array;
}

/** Says which chunk of a snapshot its receiver wants next. */
export interface SnapshotAck {
  readonly from: number;
  readonly to: number;
  readonly index: number;
  readonly term: number;
  readonly next: number;
}

/** How to reach members, for a peer that cannot know it from its own log yet. */
export interface ContactList {
  readonly to: number;
  /** Index of the entry up to which the sender's log says so. */
  readonly index: number;
  readonly contacts: readonly Contact[];
}

/** One decoded frame. */
export type Frame =
  | { readonly kind: 'contacts'; readonly list: ContactList }
  | { readonly kind: 'message'; readonly message: Message }
  | { readonly kind: 'snapshot-chunk'; readonly chunk: SnapshotChunk }
  | { readonly kind: 'snapshot-ack'; readonly ack: SnapshotAck };

const MESSAGE_FRAME = 1;
const CHUNK_FRAME = 2;
const ACK_FRAME = 3;
const CONTACTS_FRAME = 4;

const wireTypes: readonly WireMessageType[] = [
  'propose',
  'append',
  'append-response',
  'vote',
  'vote-response',
  'pre-vote',
  'pre-vote-response',
  'snapshot',
  'heartbeat',
  'heartbeat-response',
  'timeout-now',
  'transfer-leader',
  'forget-leader',
  'read-index',
  'read-index-response',
];
const typeCodes = new Map<string, number>(wireTypes.map((type, code) => [type, code]));

const MESSAGE_HEADER_BYTES = 1 + 1 + 9 * U48_BYTES + 4;
const ENTRY_HEADER_BYTES = 1 + U48_BYTES + 4;

function messageBytes(sent: Message): number {
  let length = MESSAGE_HEADER_BYTES + 1;
  for (const entry of sent.entries) length += ENTRY_HEADER_BYTES + entry.data.length;
  if (sent.snapshot !== null) length += snapshotBytes(sent.snapshot);
  return length;
}

function writeMessage(writer: ByteWriter, sent: Message): void {
  writer.u8(typeCodes.get(sent.type) ?? 0);
  writer.u8(sent.reject ? 1 : 0);
  for (const value of [
    sent.from,
    sent.to,
    sent.term,
    sent.logTerm,
    sent.index,
    sent.commit,
    sent.rejectHint,
  ]) {
    writer.u48(value);
  }
  writer.u48(sent.context);
  // Entries are dense: the first index gives all of them.
  writer.u48(sent.entries[0]?.index ?? 0);
  writer.u32(sent.entries.length);
  for (const entry of sent.entries) {
    writer.u8(entry.kind === 'config' ? 1 : 0);
    writer.u48(entry.term);
    writer.u32(entry.data.length);
    writer.raw(entry.data);
  }
  writer.u8(sent.snapshot === null ? 0 : 1);
  if (sent.snapshot !== null) writeSnapshot(writer, sent.snapshot);
}

function readMessage(reader: ByteReader): Message {
  const type = wireTypes[reader.u8()];
  if (type === undefined) throw new Malformed();
  const reject = reader.u8() === 1;
  const from = reader.u48();
  const to = reader.u48();
  const term = reader.u48();
  const logTerm = reader.u48();
  const index = reader.u48();
  const commit = reader.u48();
  const rejectHint = reader.u48();
  const context = reader.u48();
  if (from === 0 || to === 0) throw new Malformed();
  const entries = readEntries(reader, type, index, term);
  const snapshot = reader.u8() === 1 ? readSnapshot(reader) : null;
  if ((type === 'snapshot') !== (snapshot !== null)) throw new Malformed();
  // Only these two travel without a term; the core takes a message without one for its own driver's.
  if ((term === 0) !== (type === 'propose' || type === 'read-index')) throw new Malformed();
  return message(type, to, {
    from,
    term,
    logTerm,
    index,
    commit,
    reject,
    rejectHint,
    context,
    entries,
    snapshot,
  });
}

function readEntries(
  reader: ByteReader,
  type: WireMessageType,
  previousIndex: number,
  maxTerm: number,
): Entry[] {
  const first = reader.u48();
  const count = reader.u32();
  if (count * ENTRY_HEADER_BYTES > reader.left) throw new Malformed();
  if (count > 0 && (type !== 'append' || first !== previousIndex + 1)) throw new Malformed();
  const entries: Entry[] = [];
  let lastTerm = 0;
  for (let i = 0; i < count; i++) {
    const kind = reader.u8() === 1 ? 'config' : 'normal';
    const term = reader.u48();
    if (term < lastTerm || term > maxTerm) throw new Malformed();
    lastTerm = term;
    const data = reader.raw(reader.u32());
    if (kind === 'config' && !isConfigChange(data)) throw new Malformed();
    entries.push({ term, index: first + i, kind, data });
  }
  return entries;
}

/** Whether every member could apply this entry; one that cannot would end all of them. */
function isConfigChange(data: Uint8Array): boolean {
  const change = decodeConfigChange(data);
  return change !== null && (change.context.length === 0 || parseContacts(change.context) !== null);
}

/** Encodes a message; only wire types may be given. */
export function encodeMessage(sent: Message): Uint8Array {
  const writer = new ByteWriter(1 + messageBytes(sent));
  writer.u8(MESSAGE_FRAME);
  writeMessage(writer, sent);
  return writer.bytes;
}

/** Encodes a chunk of a snapshot's state, with its checksum. */
export function encodeChunk(chunk: SnapshotChunk): Uint8Array {
  const writer = new ByteWriter(
    1 + messageBytes(chunk.message) + 4 + 4 + U48_BYTES + 4 + 4 + chunk.payload.length,
  );
  writer.u8(CHUNK_FRAME);
  writeMessage(writer, chunk.message);
  writer.u32(chunk.chunk);
  writer.u32(chunk.chunks);
  writer.u48(chunk.bytes);
  writer.u32(crc32(chunk.payload));
  writer.u32(chunk.payload.length);
  writer.raw(chunk.payload);
  return writer.bytes;
}

/** Encodes an acknowledgement of chunks. */
export function encodeAck(ack: SnapshotAck): Uint8Array {
  const writer = new ByteWriter(1 + 4 * U48_BYTES + 4);
  writer.u8(ACK_FRAME);
  for (const value of [ack.from, ack.to, ack.index, ack.term]) writer.u48(value);
  writer.u32(ack.next);
  return writer.bytes;
}

/** Encodes a list of contacts. */
export function encodeContactList(list: ContactList): Uint8Array {
  const contacts = encodeContacts(list.contacts);
  const writer = new ByteWriter(1 + 2 * U48_BYTES + 4 + contacts.length);
  writer.u8(CONTACTS_FRAME);
  writer.u48(list.to);
  writer.u48(list.index);
  writer.u32(contacts.length);
  writer.raw(contacts);
  return writer.bytes;
}

/** The member a frame comes from; 0 when it does not say. */
export function senderOf(frame: Frame): number {
  switch (frame.kind) {
    case 'message':
      return frame.message.from;
    case 'snapshot-chunk':
      return frame.chunk.message.from;
    case 'snapshot-ack':
      return frame.ack.from;
    case 'contacts':
      return 0;
  }
}

/** Decodes a frame; null when it is malformed. */
export function decodeFrame(bytes: Uint8Array): Frame | null {
  try {
    const reader = new ByteReader(bytes);
    const frame = readFrame(reader);
    return reader.left === 0 ? frame : null;
  } catch (error) {
    if (error instanceof Malformed) return null;
    throw error;
  }
}

function readFrame(reader: ByteReader): Frame {
  const kind = reader.u8();
  if (kind === MESSAGE_FRAME) return { kind: 'message', message: readMessage(reader) };
  if (kind === ACK_FRAME) {
    const [from, to, index, term] = [reader.u48(), reader.u48(), reader.u48(), reader.u48()];
    return { kind: 'snapshot-ack', ack: { from, to, index, term, next: reader.u32() } };
  }
  if (kind === CONTACTS_FRAME) {
    const to = reader.u48();
    const index = reader.u48();
    const contacts = parseContacts(reader.raw(reader.u32()));
    if (contacts === null) throw new Malformed();
    return { kind: 'contacts', list: { to, index, contacts } };
  }
  if (kind !== CHUNK_FRAME) throw new Malformed();
  const carried = readMessage(reader);
  const [chunk, chunks, bytes, crc] = [reader.u32(), reader.u32(), reader.u48(), reader.u32()];
  const payload = reader.raw(reader.u32());
  if (carried.snapshot === null || chunk >= chunks || crc32(payload) !== crc) throw new Malformed();
  return { kind: 'snapshot-chunk', chunk: { message: carried, chunk, chunks, bytes, payload } };
}
