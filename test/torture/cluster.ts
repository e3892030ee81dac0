/**
 * The cluster that is tortured: daemons whose data folders are disks of their own where that is possible, and how a
 * manager that lost its log comes back.
 */
import { mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { spawnSync } from 'node:child_process';
import { Daemon, type Place, plainPlace } from '../e2e/lib/daemon.ts';
import { makeTestBed, type TestBed } from '../e2e/lib/hosts.ts';
import { waitFor } from '../support/wait.ts';
import { delayEnvironment, type SlowDiskShim } from './slow-disk.ts';

const DISK_MB = 64;

/** What a cluster is made of. */
export interface ClusterOptions {
  readonly daemons: number;
  /** Each daemon in a network namespace of its own. Needs root. */
  readonly hosts: boolean;
  /** Each data folder a small file system of its own. Needs root. */
  readonly disks: boolean;
  readonly shim: SlowDiskShim | null;
  readonly folder: string;
}

/** A running cluster. */
export interface Cluster {
  readonly daemons: readonly Daemon[];
  /** Null when all daemons share the machine's network. */
  readonly bed: TestBed | null;
  /** Where the data of a daemon is. */
  disk(index: number): string;
  /** Where the delay of a daemon's disk is written, in milliseconds. */
  delayFile(index: number): string;
  /** Waits until every manager has a vote. */
  settled(): Promise<void>;
  /** Replaces a stopped daemon as documented: its node is removed on another, its data emptied, it joins anew. */
  rejoin(index: number): Promise<void>;
  remove(): void;
}

/** Makes the daemons and waits until every one of them has a vote. */
export async function makeCluster(options: ClusterOptions): Promise<Cluster> {
  const disks = makeDisks(options);
  try {
    // The hosts see the disks because they were there first.
    const bed = options.hosts ? await makeTestBed({ hosts: options.daemons }) : null;
    const cluster = new TorturedCluster(options, disks, bed);
    try {
      await cluster.form();
      return cluster;
    } catch (error) {
      cluster.remove();
      throw error;
    }
  } catch (error) {
    removeDisks(disks, options);
    throw error;
  }
}

function makeDisks({ folder, daemons, disks }: ClusterOptions): string[] {
  return Array.from({ length: daemons }, (_, index) => {
    const disk = join(folder, `disk-${index}`);
    mkdirSync(disk);
    const argv = ['-t', 'tmpfs', '-o', `size=${DISK_MB}m,mode=700`, 'swarmd-torture', disk];
    if (disks && spawnSync('mount', argv).status !== 0) throw new Error(`cannot mount a disk at ${disk}`);
    return disk;
  });
}

function removeDisks(disks: readonly string[], options: ClusterOptions): void {
  if (options.disks) spawnSync('umount', ['-l', ...disks]);
}

class TorturedCluster implements Cluster {
  readonly daemons: readonly Daemon[];
  readonly bed: TestBed | null;
  readonly #options: ClusterOptions;
  readonly #disks: readonly string[];
  /** By position; a daemon that joins anew gets another. */
  readonly #nodeIds: string[] = [];
  #isRemoved = false;

  constructor(options: ClusterOptions, disks: readonly string[], bed: TestBed | null) {
    this.#options = options;
    this.#disks = disks;
    this.bed = bed;
    const places: readonly Place[] =
      bed?.hosts ?? Array.from({ length: options.daemons }, () => plainPlace(options.folder));
    this.daemons = places.map((place, index) => {
      const env = options.shim === null ? {} : delayEnvironment(options.shim, this.delayFile(index));
      const daemon = new Daemon(place, `d${index}`, { env });
      symlinkSync(this.disk(index), daemon.dataDir);
      return daemon;
    });
  }

  disk(index: number): string {
    return this.#disks[index] as string;
  }

  delayFile(index: number): string {
    return join(this.#options.folder, `delay-${index}`);
  }

  async form(): Promise<void> {
    const [first] = this.daemons as readonly [Daemon];
    await first.start('init', ...this.#flags(0));
    this.#nodeIds[0] = (await first.call('info', {})).nodeId;
    for (let index = 1; index < this.daemons.length; index++) await this.#join(index, first);
    await this.settled();
  }

  async settled(): Promise<void> {
    await waitFor(
      'every manager to have a vote',
      async () => {
        const infos = await Promise.all(this.daemons.map((daemon) => daemon.call('info', {})));
        return infos.every(
          ({ raft }) => raft?.members === this.daemons.length && raft.role !== 'learner' && raft.leaderNodeId,
        );
      },
      { timeoutMs: 60_000 },
    );
  }

  async rejoin(index: number): Promise<void> {
    const daemon = this.daemons[index] as Daemon;
    const other = this.daemons[(index + 1) % this.daemons.length] as Daemon;
    const oldId = this.#nodeIds[index] as string;
    await waitFor(
      'the others to remove the node',
      async () => (await other.cli(['node', 'rm', '--force', oldId])).code === 0,
      {
        timeoutMs: 60_000,
        everyMs: 500,
      },
    );
    for (const name of readdirSync(this.disk(index)))
      rmSync(join(this.disk(index), name), { recursive: true });
    await this.#join(index, other);
    await this.settled();
    if (this.#nodeIds[index] === oldId) throw new Error(`${daemon.name} joined anew and has its old id`);
  }

  remove(): void {
    if (this.#isRemoved) return;
    this.#isRemoved = true;
    for (const daemon of this.daemons) daemon.destroy();
    this.bed?.remove();
    removeDisks(this.#disks, this.#options);
  }

  async #join(index: number, through: Daemon): Promise<void> {
    const daemon = this.daemons[index] as Daemon;
    const { manager } = await through.call('cluster.tokens', { rotate: null });
    const { advertiseAddress } = await through.call('info', {});
    await daemon.start('join', ...this.#flags(index), '--token', manager, advertiseAddress);
    this.#nodeIds[index] = (await daemon.call('info', {})).nodeId;
  }

  #flags(index: number): string[] {
    const host = this.bed?.hosts[index]?.address ?? '127.0.0.1';
    return [
      ...['--engine-host', 'none', '--dns-addr', 'none'],
      ...['--listen-addr', `${host}:${this.bed === null ? 0 : 2377}`, '--advertise-addr', host],
    ];
  }
}

/** Whether this process may mount file systems. */
export function canMount(): boolean {
  return process.getuid?.() === 0 && spawnSync('unshare', ['--mount', 'true']).status === 0;
}

/** Cuts a host off from the others, and joins it again. */
export async function cutOff(bed: TestBed, index: number, during: () => Promise<void>): Promise<void> {
  const host = bed.hosts[index];
  if (host === undefined) return;
  await host.run(['nft', '-f', '-'], { input: CUT });
  await during();
  await host.run(['nft', 'delete', 'table', 'inet', 'cut']);
}

const CUT = `table inet cut {
  chain in { type filter hook input priority -200; iifname != "lo" drop; }
  chain out { type filter hook output priority -200; oifname != "lo" drop; }
}
`;
