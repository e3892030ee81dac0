/**
 * Faults drawn while the cluster runs, and their end.
 *
 * Invariant: every fault that does not end by itself ends with `heal`.
 */
import { DiskFaults } from './disk-faults.ts';
import type { FaultKind } from './draws.ts';
import { healthyNetwork } from './draws.ts';
import { injectEngineFault } from './engine-faults.ts';
import { GroupFaults } from './group-faults.ts';
import type { Machines } from './group-trouble.ts';
import type { ManagerHost, World } from './manager-host.ts';
import type { WorkerHost } from './worker-host.ts';

/** Injects faults. */
export class Faults {
  readonly counts = new Map<FaultKind, number>();
  readonly #world: World;
  readonly #machines: Machines;
  readonly #kinds: readonly FaultKind[];
  readonly #group: GroupFaults;
  readonly #disks: DiskFaults;
  #healed = false;
  /** The leader that commits next, after so many times, crashes there; null: none does. */
  #commitTrap: number | null = null;
  /** No faults until then: what the cluster does between storms matters as much as in them. */
  #lullUntilMs = 0;

  constructor(world: World, machines: Machines) {
    this.#world = world;
    this.#machines = machines;
    this.#kinds = [...world.draws.faults];
    this.#group = new GroupFaults(world, machines);
    this.#disks = new DiskFaults(world, this.#group, () => machines.managers);
  }

  /** The faults of the whole run. */
  begin(): void {
    const { draws, network, dice } = this.#world;
    network.faults = draws.network;
    for (const host of this.#machines.managers) host.disk.state.delayMaxMs = draws.diskDelayMaxMs;
    for (const { engine } of this.#machines.workers) {
      Object.assign(engine.state, { delayMaxMs: draws.runtimeDelayMaxMs, failure: draws.runtimeFailure });
    }
    if (!draws.badClocks) return;
    for (const { drift } of [...this.#machines.managers, ...this.#machines.workers]) {
      drift.rate = 1 + (dice.below(101) - 50) / 1_000;
      drift.offsetMs = dice.below(20_000) - 10_000;
    }
  }

  /** One more fault, or the return of something that was down. */
  strike(): void {
    const { dice, time } = this.#world;
    if (time.nowMs < this.#lullUntilMs) return;
    if (dice.chance(60)) {
      this.#lullUntilMs = time.nowMs + dice.between(2_000, 12_000);
      this.#world.note('lull');
      this.#mend();
      return;
    }
    if (dice.chance(450)) this.#restore();
    const kind = dice.pick(this.#kinds);
    if (kind === undefined) return;
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
    this.#world.note(`fault: ${kind}`);
    this.#inject(kind);
  }

  /** Everything works from now on. */
  heal(): void {
    this.#world.network.faults = healthyNetwork;
    this.#commitTrap = null;
    this.#healed = true;
    this.#group.heal();
    this.#disks.heal();
    this.#mend();
    for (const host of this.#machines.managers) host.disk.state.delayMaxMs = 0;
    for (const { engine } of this.#machines.workers)
      Object.assign(engine.state, { delayMaxMs: 5, failure: 0 });
  }

  /** What was broken works again; what is bad for the whole run stays. */
  #mend(): void {
    const { network, draws } = this.#world;
    network.mend();
    for (const { disk } of this.#machines.managers) {
      Object.assign(disk.state, {
        delayMaxMs: draws.diskDelayMaxMs,
        hangs: false,
        fails: null,
        onStep: () => {},
      });
    }
    for (const { engine } of this.#machines.workers) engine.heal();
    for (const { drift, process } of [...this.#machines.managers, ...this.#machines.workers]) {
      drift.lateMaxMs = 0;
      if (process !== null) process.pausedUntilMs = 0;
    }
    this.revive();
  }

  /** Starts whatever is down, but for members that are lost: those are replaced. */
  revive(): void {
    this.#group.tend();
    for (const host of [...this.#machines.managers, ...this.#machines.workers]) host.start();
  }

  /** Some of what is wrong gets better. */
  #restore(): void {
    const { dice, network } = this.#world;
    if (dice.chance(500)) network.mend();
    for (const host of [...this.#machines.managers, ...this.#machines.workers])
      if (dice.chance(700)) host.start();
    for (const { disk, drift } of this.#machines.managers) {
      if (dice.chance(500))
        Object.assign(disk.state, { hangs: false, delayMaxMs: this.#world.draws.diskDelayMaxMs });
      if (dice.chance(500)) drift.lateMaxMs = 0;
    }
    for (const { engine } of this.#machines.workers) {
      if (!dice.chance(500)) continue;
      engine.fake.unhang();
      engine.fake.outage = false;
    }
  }

  #inject(kind: FaultKind): void {
    const { dice, network, time } = this.#world;
    const { managers, workers } = this.#machines;
    const manager = dice.pick(managers.filter((host) => host.isUp));
    const worker = dice.pick(workers);
    switch (kind) {
      case 'crash-manager':
        manager?.crash();
        return;
      case 'crash-in-write':
        if (manager !== undefined) this.#crashInWrite(manager);
        return;
      case 'crash-at-commit':
        this.#commitTrap = dice.below(3);
        return;
      case 'crash-loop':
        if (manager !== undefined) this.#crashLoop(manager, dice.between(2, 6));
        return;
      case 'crash-all':
        for (const host of managers) host.crash();
        time.after(dice.below(2_000), null, 'power returns', () => this.revive());
        return;
      case 'crash-worker':
        worker?.crash();
        return;
      case 'reboot-worker':
        worker?.reboot();
        return;
      case 'pause': {
        const process = (dice.chance(400) ? this.#machines.leader() : dice.pick([...managers, ...workers]))
          ?.process;
        if (process !== null && process !== undefined) process.pausedUntilMs = time.nowMs + dice.below(5_000);
        return;
      }
      case 'partition':
      case 'asymmetric':
      case 'bridge':
      case 'isolate':
        this.#partition(kind);
        return;
      case 'clog': {
        const [from, to] = [this.#anyHost(), this.#anyHost()];
        network.clog(from, to, time.nowMs + dice.below(4_000));
        return;
      }
      case 'break-connections':
        for (let i = 0; i < 3; i++) network.cut(this.#anyHost(), this.#anyHost());
        time.after(dice.below(8_000), null, 'links return', () => network.mend());
        return;
      case 'fsync-error':
      case 'disk-full':
      case 'disk-hang':
      case 'fsync-lie':
      case 'set-back-disk':
      case 'damage-disk':
      case 'wipe-disk':
        if (manager !== undefined) this.#disks.inject(kind, manager);
        return;
      case 'slow-leader-disk': {
        const leader = this.#machines.leader();
        if (leader !== null) leader.disk.state.delayMaxMs = dice.oneOf(100, 1_000, 4_000);
        return;
      }
      case 'slow-majority-disk':
        managers
          .slice(0, (managers.length >> 1) + 1)
          .forEach((host) => (host.disk.state.delayMaxMs = dice.oneOf(50, 500)));
        return;
      case 'clock-jump': {
        const drift = dice.pick([...managers, ...workers])?.drift;
        if (drift !== undefined) drift.offsetMs += dice.below(240_000) - 120_000;
        return;
      }
      case 'starve-ticks':
        if (manager !== undefined) manager.drift.lateMaxMs = dice.oneOf(100, 1_000);
        return;
      case 'replay-snapshots':
        network.replaySnapshots();
        return;
      case 'task-dies':
      case 'task-vanishes':
      case 'task-unhealthy':
      case 'runtime-hangs':
      case 'runtime-outage':
        if (worker !== undefined) injectEngineFault(kind, worker, dice);
        return;
      default:
        this.#group.inject(kind);
    }
  }

  /** The machine of a manager lost its power. */
  powerLost(host: ManagerHost): void {
    this.#disks.powerLost(host);
  }

  /** A member's log cannot be trusted. */
  logLost(host: ManagerHost, why: string): void {
    this.#group.lose(host, why);
  }

  /** A leader's commit index rose. */
  committed(host: ManagerHost): void {
    if (this.#commitTrap === null || this.#commitTrap-- > 0) return;
    this.#commitTrap = null;
    this.#world.note(`${host.name} crashes as it commits`);
    host.crash();
  }

  #anyHost(): string {
    const { managers, workers } = this.#machines;
    return (this.#world.dice.pick([...managers, ...workers]) as ManagerHost | WorkerHost).name;
  }

  #crashInWrite(host: ManagerHost): void {
    const { dice } = this.#world;
    const when = dice.oneOf('before', 'after');
    let skip = dice.below(4);
    host.disk.state.onStep = (step, at) => {
      if (at !== when || skip-- > 0) return;
      host.disk.state.onStep = () => {};
      this.#world.note(`${host.name} crashes ${when} ${step}`);
      host.crash();
    };
  }

  #crashLoop(host: ManagerHost, times: number): void {
    const { dice, time } = this.#world;
    if (this.#healed) return;
    host.crash();
    if (times === 0) return;
    time.after(dice.below(300), null, `crash loop ${host.name}`, () => {
      host.start();
      time.after(dice.below(600), null, `crash loop ${host.name}`, () => this.#crashLoop(host, times - 1));
    });
  }

  #partition(kind: 'partition' | 'asymmetric' | 'bridge' | 'isolate'): void {
    const { dice, network } = this.#world;
    const names = [...this.#machines.managers, ...this.#machines.workers].map((host) => host.name);
    const bridge = kind === 'bridge' ? dice.pick(names) : undefined;
    const alone =
      kind === 'isolate' ? (dice.chance(500) ? this.#machines.leader()?.name : dice.pick(names)) : undefined;
    const side = new Set(alone === undefined ? names.filter(() => dice.chance(500)) : [alone]);
    for (const from of names) {
      for (const to of names) {
        if (side.has(from) === side.has(to) || from === bridge || to === bridge) continue;
        if (kind === 'asymmetric' && side.has(from)) continue;
        network.cut(from, to);
      }
    }
  }
}
