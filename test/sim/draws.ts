/**
 * Everything one seed decides before the first event: the size of the cluster, its timing, its faults.
 *
 * Invariant: a run is a function of its seed, its number of events and its broken variant.
 */
import { type Random, randomBelow, seededRandom } from '../../src/base/random.ts';

/** Draws of one kind of decision, from a seed of their own. */
export class Dice {
  readonly random: Random;

  constructor(seed: number) {
    this.random = seededRandom(seed);
  }

  /** 0 .. bound-1. */
  below(bound: number): number {
    return randomBelow(this.random, Math.max(1, bound));
  }

  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** True `permille` times in 1,000. */
  chance(permille: number): boolean {
    return this.below(1_000) < permille;
  }

  pick<T>(items: readonly T[]): T | undefined {
    return items[this.below(items.length)];
  }

  oneOf<T>(first: T, ...rest: readonly T[]): T {
    return [first, ...rest][this.below(rest.length + 1)] as T;
  }

  /** Another source, independent of how often this one is asked from now on. */
  fork(): Dice {
    return new Dice(this.random.uint32());
  }
}

/** How bad the network is. Chances in 1,000, times in milliseconds. */
export interface NetworkFaults {
  loss: number;
  duplication: number;
  delayMaxMs: number;
  /** Chance that a message takes up to a hundred times as long: reordering without bound. */
  straggle: number;
  /** Chance that a frame is cut short. */
  truncate: number;
  /** Chance that bytes that are no frame come along with one. */
  garbage: number;
  /** Chance that an older frame is delivered once more along with one. */
  replay: number;
  /** Chance that a connection breaks when something is sent over it. */
  reset: number;
}

export const healthyNetwork: NetworkFaults = {
  loss: 0,
  duplication: 0,
  delayMaxMs: 2,
  straggle: 0,
  truncate: 0,
  garbage: 0,
  replay: 0,
  reset: 0,
};

/** The raft options a seed may draw. */
export interface RaftDraws {
  readonly tickMs: number;
  readonly electionTicks: number;
  readonly snapshotEntries: number;
  readonly snapshotKeepEntries: number;
  readonly promotionLagEntries: number;
  /** Bounds of the core; small ones make one-entry messages, one in flight. */
  readonly maxMessageBytes: number;
  readonly maxInflightMessages: number;
  readonly maxUncommittedBytes: number;
}

export interface Draws {
  readonly seed: number;
  readonly managers: number;
  readonly workers: number;
  /** Managers run tasks too. */
  readonly managersWork: boolean;
  readonly raft: RaftDraws;
  /** The other managers come up within this time. */
  readonly lateManagersMs: number;
  /** Bytes of configs in the state: a large one makes snapshots of several chunks. */
  readonly ballastBytes: number;
  readonly heartbeatMs: number;
  readonly network: NetworkFaults;
  readonly diskDelayMaxMs: number;
  readonly runtimeDelayMaxMs: number;
  /** Chance of each kind of runtime failure in 1,000 operations. */
  readonly runtimeFailure: number;
  /** Clocks may drift and jump. */
  readonly badClocks: boolean;
  readonly workloadEveryMs: number;
  readonly registerEveryMs: number;
  readonly faultEveryMs: number;
  /** Kinds of fault this run injects. */
  readonly faults: ReadonlySet<FaultKind>;
}

export const faultKinds = [
  'crash-manager',
  'crash-in-write',
  'crash-at-commit',
  'crash-loop',
  'crash-all',
  'crash-worker',
  'pause',
  'partition',
  'asymmetric',
  'bridge',
  'isolate',
  'clog',
  'break-connections',
  'fsync-error',
  'disk-full',
  'disk-hang',
  'slow-leader-disk',
  'slow-majority-disk',
  'fsync-lie',
  'set-back-disk',
  'damage-disk',
  'wipe-disk',
  'clock-jump',
  'starve-ticks',
  'transfer',
  'remove-manager',
  'replace-manager',
  'demote-manager',
  'add-manager',
  'promote-worker',
  'leader-leaves',
  'shrink-group',
  'change-under-fire',
  'move-manager',
  'force-new-cluster',
  'lag-follower',
  'replay-snapshots',
  'replace-worker',
  'task-dies',
  'task-vanishes',
  'task-unhealthy',
  'runtime-hangs',
  'runtime-outage',
  'reboot-worker',
] as const;
export type FaultKind = (typeof faultKinds)[number];

/** Faults that find more together than among all others. */
const themes: readonly (readonly FaultKind[])[] = [
  ['partition', 'asymmetric', 'bridge', 'isolate', 'clog', 'break-connections'],
  ['pause', 'isolate', 'starve-ticks', 'clock-jump'],
  ['crash-manager', 'crash-in-write', 'crash-at-commit', 'crash-loop', 'crash-all'],
  ['fsync-error', 'disk-full', 'disk-hang', 'slow-leader-disk', 'slow-majority-disk', 'crash-in-write'],
  ['fsync-lie', 'set-back-disk', 'damage-disk', 'wipe-disk', 'crash-manager', 'isolate'],
  ['remove-manager', 'replace-manager', 'demote-manager', 'transfer', 'crash-manager', 'isolate'],
  ['change-under-fire', 'add-manager', 'promote-worker', 'shrink-group', 'leader-leaves', 'move-manager'],
  ['force-new-cluster', 'add-manager', 'promote-worker', 'isolate', 'crash-manager', 'wipe-disk'],
  ['lag-follower', 'replay-snapshots', 'crash-in-write', 'promote-worker', 'demote-manager'],
  ['crash-worker', 'reboot-worker', 'replace-worker', 'task-dies', 'task-vanishes', 'task-unhealthy'],
  ['runtime-hangs', 'runtime-outage', 'crash-worker', 'break-connections', 'transfer'],
];

/** One theme, or from one kind of fault to half of all. */
function someFaults(dice: Dice): readonly FaultKind[] {
  const theme = dice.pick(themes) ?? [];
  if (dice.chance(500)) return theme;
  const chance = dice.oneOf(60, 150, 300, 500);
  return faultKinds.filter(() => dice.chance(chance));
}

/** Faults in which managers are removed: that is refused unless the others' nodes are ready, so they need workers. */
const needWorkers: ReadonlySet<FaultKind> = new Set([
  'remove-manager',
  'replace-manager',
  'demote-manager',
  'leader-leaves',
  'shrink-group',
  'change-under-fire',
  'fsync-lie',
  'set-back-disk',
  'damage-disk',
  'wipe-disk',
]);

/** The draws of a run with what somebody chose instead. */
export function drawWith(seed: number, chosen: Partial<Draws> = {}): Draws {
  const draws = { ...draw(seed), ...chosen };
  const managersWork = draws.managersWork || [...draws.faults].some((kind) => needWorkers.has(kind));
  return { ...draws, managersWork };
}

/** Draws a run. Small groups of faults in one run find what all at once would drown. */
function draw(seed: number): Draws {
  const dice = new Dice(seed);
  const calm = dice.chance(80);
  const tiny = dice.chance(250);
  const tickMs = dice.oneOf(20, 50, 100);
  return {
    seed,
    managers: dice.oneOf(1, 2, 3, 3, 3, 3, 4, 5),
    workers: dice.between(0, 6),
    managersWork: dice.chance(750),
    raft: {
      tickMs,
      electionTicks: dice.between(8, 20),
      snapshotEntries: tiny ? 5 : dice.oneOf(20, 100, 1_000),
      snapshotKeepEntries: tiny ? dice.between(0, 5) : dice.between(1, 50),
      promotionLagEntries: dice.oneOf(5, 50, 1_000),
      maxMessageBytes: tiny ? 1 : dice.oneOf(4_096, 1024 * 1024),
      maxInflightMessages: tiny ? 1 : dice.oneOf(4, 256),
      maxUncommittedBytes: dice.oneOf(20_000, 64 * 1024 * 1024),
    },
    lateManagersMs: dice.oneOf(0, 0, 5_000, 30_000),
    ballastBytes: dice.chance(60) ? 1_200_000 : 0,
    heartbeatMs: dice.oneOf(500, 1_000, 2_000),
    network: {
      loss: calm ? 0 : dice.oneOf(0, 10, 100, 250),
      duplication: calm ? 0 : dice.oneOf(0, 10, 150),
      delayMaxMs: dice.oneOf(1, 5, 20, 80),
      straggle: calm ? 0 : dice.oneOf(0, 5, 30),
      truncate: calm ? 0 : dice.oneOf(0, 0, 5),
      garbage: calm ? 0 : dice.oneOf(0, 0, 5),
      replay: calm ? 0 : dice.oneOf(0, 0, 10),
      reset: calm ? 0 : dice.oneOf(0, 0, 3, 20),
    },
    diskDelayMaxMs: dice.oneOf(0, 1, 5, 40),
    runtimeDelayMaxMs: dice.oneOf(1, 50, 500),
    runtimeFailure: calm ? 0 : dice.oneOf(0, 10, 60),
    badClocks: dice.chance(350),
    workloadEveryMs: dice.oneOf(100, 300, 1_000),
    registerEveryMs: dice.oneOf(50, 200, 500),
    faultEveryMs: dice.oneOf(200, 800, 3_000),
    faults: new Set(calm ? [] : someFaults(dice)),
  };
}
