/**
 * A test bed of several hosts on one machine. Each host is a network, mount and host-name namespace; a switch joins
 * them, and an outside client reaches them through a router.
 *
 * Addresses: host i is 10.77.0.i, the switch and router 10.77.0.254, the client 10.78.0.5. Network namespaces are
 * named after the test's process id, so that runs side by side do not meet.
 */
import { once } from 'node:events';
import { appendFileSync, mkdirSync, readlinkSync, realpathSync, writeFileSync } from 'node:fs';
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { bedNames, removeBed, removeLeftovers } from './cleanup.ts';
import { type ExecOptions, type ExecResult, execChecked, execCommand, TestProcess } from './processes.ts';

/** A place to run programs in, inside a test bed. */
export class Host {
  readonly name: string;
  readonly address: string;
  /** Position in the bed: 1, 2, ... for hosts, 0 for the client. */
  readonly index: number;
  /** A folder of its own, visible under the same path outside. */
  readonly folder: string;
  readonly #enter: readonly string[];

  constructor(fields: Pick<Host, 'name' | 'address' | 'index' | 'folder'>, enter: readonly string[]) {
    this.name = fields.name;
    this.address = fields.address;
    this.index = fields.index;
    this.folder = fields.folder;
    this.#enter = enter;
  }

  /** Runs a command here to its end. */
  async exec(argv: readonly string[], options?: ExecOptions): Promise<ExecResult> {
    return await execCommand([...this.#enter, ...argv], options);
  }

  /** Runs a command here that must succeed; returns its standard output. */
  async run(argv: readonly string[], options?: ExecOptions): Promise<string> {
    return await execChecked([...this.#enter, ...argv], options);
  }

  /** Starts a program here; its output goes to `NAME.log` in the host's folder. */
  spawn(argv: readonly string[], name: string, options?: Pick<ExecOptions, 'env' | 'cwd'>): TestProcess {
    return new TestProcess([...this.#enter, ...argv], join(this.folder, `${name}.log`), options);
  }

  /** Fetches `url` from here. Rejects when nothing answers within `timeoutMs` (default 3 s). */
  async fetch(
    url: string,
    options: { readonly timeoutMs?: number; readonly args?: readonly string[] } = {},
  ): Promise<{ readonly status: number; readonly body: string }> {
    const timeoutMs = options.timeoutMs ?? 3_000;
    const args = [
      '-sS',
      '-m',
      String(timeoutMs / 1_000),
      '-w',
      '\n%{http_code}',
      ...(options.args ?? []),
      url,
    ];
    const output = await this.run(['curl', ...args], { timeoutMs: timeoutMs + 5_000 });
    const end = output.lastIndexOf('\n');
    return { status: Number(output.slice(end + 1)), body: output.slice(0, end) };
  }
}

/** The hosts of a test and what removes them. */
export interface TestBed {
  readonly folder: string;
  readonly hosts: readonly Host[];
  /** A machine outside the hosts' network. */
  readonly client: Host;
  /** Ends every process of the bed and removes every trace of it. */
  remove(): void;
}

/** Kept in the mount namespace of a host; it lives until the bed is removed. */
const HOLDER_SCRIPT = `
set -e
[ -z "$HOST_NAME" ] || hostname "$HOST_NAME"
mount --rbind /sys/fs/cgroup "$FOLDER/cgroup"
if [ -n "$HOST_NAME" ]; then mount -t sysfs sysfs /sys; mount --rbind "$FOLDER/cgroup" /sys/fs/cgroup; fi
mkdir -p /etc/docker /run/docker
mount --bind "$FOLDER/etc-docker" /etc/docker
mount --bind "$FOLDER/run-docker" /run/docker
mount --bind "$FOLDER/resolv.conf" "$RESOLV_CONF"
echo ready
exec sleep infinity`;

async function startHolder(
  bed: string,
  folder: string,
  name: string,
  namespace: string | null,
): Promise<ChildProcess> {
  for (const sub of ['cgroup', 'etc-docker', 'run-docker']) mkdirSync(join(folder, sub), { recursive: true });
  writeFileSync(join(folder, 'resolv.conf'), 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n');
  const enter = namespace === null ? [] : ['nsenter', `--net=/run/netns/${namespace}`, '--'];
  const unshare = ['unshare', '-m', ...(namespace === null ? [] : ['-u']), '--propagation', 'private'];
  const argv = ['setpriv', '--pdeathsig', 'KILL', '--', ...enter, ...unshare, 'sh', '-c', HOLDER_SCRIPT];
  const child = spawn(argv[0] as string, argv.slice(1), {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      FOLDER: folder,
      HOST_NAME: namespace === null ? '' : name,
      RESOLV_CONF: realpathSync('/etc/resolv.conf'),
    },
  });
  let complaint = '';
  child.stderr.on('data', (data: Buffer) => {
    complaint += data.toString();
  });
  await Promise.race([
    once(child.stdout, 'data'),
    once(child, 'close').then(() => {
      throw new Error(`host ${name} could not be made: ${complaint}`);
    }),
  ]);
  appendFileSync(join(bed, 'mount-namespaces'), `${readlinkSync(`/proc/${child.pid}/ns/mnt`)}\n`);
  child.stdout.destroy();
  child.stderr.destroy();
  child.unref();
  return child;
}

/** Links and addresses of the switch and the client, as input of `ip -batch`. */
function switchCommands(prefix: string): Record<'switch' | 'client', string[]> {
  return {
    switch: [
      'link set lo up',
      'link add br0 type bridge',
      'link set br0 up',
      'addr add 10.77.0.254/24 dev br0',
      `link add client type veth peer name eth0 netns ${prefix}cl`,
      'addr add 10.78.0.254/24 dev client',
      'link set client up',
    ],
    client: [
      'link set lo up',
      'addr add 10.78.0.5/24 dev eth0',
      'addr add 10.78.0.6/24 dev eth0',
      'link set eth0 up',
      'route add default via 10.78.0.254',
    ],
  };
}

async function ipBatch(namespace: string, commands: readonly string[]): Promise<void> {
  await execChecked(['ip', '-n', namespace, '-batch', '-'], { input: `${commands.join('\n')}\n` });
}

async function makeNetwork(prefix: string, hostCount: number): Promise<void> {
  const names = ['sw', 'cl', ...Array.from({ length: hostCount }, (_, i) => `h${i + 1}`)];
  for (const name of names) await execChecked(['ip', 'netns', 'add', `${prefix}${name}`]);
  const commands = switchCommands(prefix);
  const ports = names
    .slice(2)
    .flatMap((name) => [
      `link add port-${name} type veth peer name eth0 netns ${prefix}${name}`,
      `link set port-${name} master br0 up`,
    ]);
  await ipBatch(`${prefix}sw`, [...commands.switch, ...ports]);
  await ipBatch(`${prefix}cl`, commands.client);
  for (let i = 1; i <= hostCount; i++) {
    await ipBatch(`${prefix}h${i}`, [
      'link set lo up',
      `addr add 10.77.0.${i}/24 dev eth0`,
      'link set eth0 up',
      'route add default via 10.77.0.254',
    ]);
  }
  await execChecked(['ip', 'netns', 'exec', `${prefix}sw`, 'sysctl', '-qw', 'net.ipv4.ip_forward=1']);
}

let bedCount = 0;

/** Registers removal for the case that the test's process ends before the test removes its bed. */
function removeAtExit(folder: string, prefix: string): () => void {
  const remove = (): void => {
    process.off('exit', remove);
    removeBed(folder, prefix);
  };
  process.on('exit', remove);
  return remove;
}

/** Makes a bed of `hosts` hosts (1 to 200), after removing what dead test processes left behind. */
export async function makeTestBed(options: { readonly hosts: number }): Promise<TestBed> {
  removeLeftovers();
  const { folder, prefix } = bedNames(++bedCount);
  mkdirSync(folder, { recursive: true });
  const remove = removeAtExit(folder, prefix);
  try {
    await makeNetwork(prefix, options.hosts);
    const hosts = await Promise.all(
      Array.from({ length: options.hosts }, async (_, i) => {
        const name = `h${i + 1}`;
        const own = join(folder, name);
        const holder = await startHolder(folder, own, name, `${prefix}${name}`);
        const enter = ['nsenter', '-t', String(holder.pid), '-n', '-m', '-u', '--'];
        return new Host({ name, address: `10.77.0.${i + 1}`, index: i + 1, folder: own }, enter);
      }),
    );
    const clientFolder = join(folder, 'client');
    mkdirSync(clientFolder);
    const client = new Host({ name: 'client', address: '10.78.0.5', index: 0, folder: clientFolder }, [
      'nsenter',
      `--net=/run/netns/${prefix}cl`,
      '--',
    ]);
    return { folder, hosts, client, remove };
  } catch (error) {
    remove();
    throw error;
  }
}

/**
 * Makes a bed of one host that shares the machine's own network: what it serves is reached on the machine's
 * addresses. Only its mounts are its own.
 */
export async function makeLocalBed(): Promise<TestBed> {
  removeLeftovers();
  const { folder, prefix } = bedNames(++bedCount);
  mkdirSync(folder, { recursive: true });
  const remove = removeAtExit(folder, prefix);
  try {
    const own = join(folder, 'local');
    const holder = await startHolder(folder, own, 'local', null);
    const fields = { name: 'local', address: '127.0.0.1', index: 0, folder: own };
    const enter = ['nsenter', '-t', String(holder.pid), '-m', '--'];
    return { folder, hosts: [new Host(fields, enter)], client: new Host(fields, []), remove };
  } catch (error) {
    remove();
    throw error;
  }
}
