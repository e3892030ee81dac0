/** Trouble for a group of managers just when it matters: in the midst of a change, of a snapshot. */
import type { ManagerHost, World } from './manager-host.ts';
import type { WorkerHost } from './worker-host.ts';

/** The machines of a cluster, and how they come and go. */
export interface Machines {
  readonly managers: readonly ManagerHost[];
  readonly workers: readonly WorkerHost[];
  /** The manager that leads in the newest term. */
  leader(): ManagerHost | null;
  /** A new manager at the address of one that was removed. */
  replaceManager(old: ManagerHost): Promise<void>;
  /** One more manager, at a new address. */
  addManager(): Promise<void>;
  /** A manager is one no more: its consensus ends. */
  retireManager(old: ManagerHost): void;
  replaceWorker(old: WorkerHost): Promise<void>;
  /** All other managers are lost, and an operator lets this one go on alone. */
  goOnAlone(survivor: ManagerHost): void;
}

/** Asks the leader to hand over. */
export function transferLeadership(machines: Machines): void {
  void machines
    .leader()
    ?.raft?.transferLeadership(null, new AbortController().signal)
    .catch(() => {});
}

/** Trouble just while a change is under way. */
export function disturb(world: World, machines: Machines): void {
  const { dice, network, time } = world;
  const leader = machines.leader();
  const anybody = dice.pick(machines.managers);
  switch (dice.oneOf('crash-leader', 'crash-somebody', 'isolate-leader', 'transfer')) {
    case 'crash-leader':
      leader?.crash();
      return;
    case 'crash-somebody':
      anybody?.crash();
      return;
    case 'transfer':
      transferLeadership(machines);
      return;
    case 'isolate-leader':
      if (leader === null) return;
      cutOff(world, machines, leader);
      time.after(dice.below(5_000), null, 'links return', () => network.mend());
  }
}

function cutOff(world: World, machines: Machines, host: ManagerHost): void {
  for (const { name } of [...machines.managers, ...machines.workers]) {
    if (name === host.name) continue;
    world.network.cut(host.name, name);
    world.network.cut(name, host.name);
  }
}

/** A follower misses so much that it needs a snapshot, and is disturbed while it receives it. */
export function lagFollower(
  world: World,
  machines: Machines,
  follower: ManagerHost | undefined,
  isOver: () => boolean,
): void {
  const { dice, network, time } = world;
  if (follower === undefined) return;
  if (dice.chance(500)) cutOff(world, machines, follower);
  else follower.crash();
  time.after(dice.between(1_000, 8_000), null, 'the follower returns', () => {
    network.mend();
    follower.start();
    time.after(dice.below(400), null, 'in the midst of a snapshot', () => {
      if (isOver()) return;
      if (dice.chance(400)) follower.crash();
      else if (dice.chance(300)) machines.leader()?.crash();
      else if (dice.chance(500)) cutOff(world, machines, follower);
    });
  });
}
