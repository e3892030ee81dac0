/**
 * What happens to the group of managers: members added, removed, demoted, promoted, moved, lost and replaced, changes
 * in the midst of other trouble, and a cluster that goes on with one survivor.
 *
 * Data owned: changes under way, members whose disk is lost.
 */
import { errorMessage, SwarmdError } from '../../src/base/errors.ts';
import type { NodeView } from '../../src/model/api.ts';
import type { FaultKind } from './draws.ts';
import { disturb, lagFollower, type Machines, transferLeadership } from './group-trouble.ts';
import type { ManagerHost, World } from './manager-host.ts';
import type { WorkerHost } from './worker-host.ts';

export type GroupFault = Extract<
  FaultKind,
  | 'transfer'
  | 'remove-manager'
  | 'replace-manager'
  | 'demote-manager'
  | 'add-manager'
  | 'promote-worker'
  | 'leader-leaves'
  | 'shrink-group'
  | 'change-under-fire'
  | 'move-manager'
  | 'force-new-cluster'
  | 'lag-follower'
  | 'replace-worker'
>;

const CALL_MS = 20_000;
/** Managers a cluster grows to. */
const MANAGERS_MAX = 6;
/** Changes that may be under way at once. */
const CHANGES_MAX = 2;
/** Times a cluster loses all managers but one. */
const FORCED_MAX = 2;

/** Changes of the group. */
export class GroupFaults {
  readonly #world: World;
  readonly #machines: Machines;
  readonly #lost = new Set<ManagerHost>();
  readonly #inChange = new Set<string>();
  #changing = 0;
  #forced = 0;
  #healed = false;
  #ports = 2_378;

  constructor(world: World, machines: Machines) {
    this.#world = world;
    this.#machines = machines;
  }

  inject(kind: GroupFault): void {
    const { dice, time } = this.#world;
    switch (kind) {
      case 'transfer':
        transferLeadership(this.#machines);
        return;
      case 'shrink-group':
        void this.#change('shrink', async () => {
          while (this.#others().length > 0 && !this.#healed) await this.#demote();
        });
        return;
      case 'change-under-fire':
        this.#start(
          dice.oneOf('remove-manager', 'replace-manager', 'demote-manager', 'promote-worker', 'add-manager'),
        );
        time.after(dice.below(300), null, 'under fire', () => {
          if (!this.#healed) disturb(this.#world, this.#machines);
        });
        if (dice.chance(500))
          time.after(dice.below(2_000), null, 'another change', () =>
            this.#start(dice.oneOf('demote-manager', 'promote-worker', 'replace-manager')),
          );
        return;
      case 'move-manager':
        this.#move();
        return;
      case 'force-new-cluster':
        this.#force();
        return;
      case 'lag-follower':
        lagFollower(this.#world, this.#machines, dice.pick(this.#others()), () => this.#healed);
        return;
      default:
        this.#start(kind);
    }
  }

  #start(
    kind:
      | 'remove-manager'
      | 'replace-manager'
      | 'demote-manager'
      | 'add-manager'
      | 'promote-worker'
      | 'leader-leaves'
      | 'replace-worker',
  ): void {
    const { dice } = this.#world;
    const { managers, workers } = this.#machines;
    if (this.#healed) return;
    const other = dice.pick(this.#others());
    switch (kind) {
      case 'remove-manager':
        void this.#change(other?.name, () => this.#removeManager(other, false));
        return;
      case 'replace-manager':
        void this.#change(other?.name, () => this.#removeManager(other, true));
        return;
      case 'demote-manager':
        void this.#change('demote', () => this.#demote());
        return;
      case 'add-manager':
        if (managers.length < MANAGERS_MAX) void this.#change('add', () => this.#machines.addManager());
        return;
      case 'promote-worker': {
        const worker = dice.pick(workers.filter((host) => !managers.some(({ name }) => name === host.name)));
        if (worker !== undefined && managers.length < MANAGERS_MAX)
          void this.#change(worker.name, () => this.#setRole(worker.nodeId, 'manager'));
        return;
      }
      case 'leader-leaves':
        void this.#change('leave', () => this.#leave());
        return;
      case 'replace-worker': {
        const worker = dice.pick(workers);
        void this.#change(worker?.name, () => this.#replaceWorker(worker));
        return;
      }
    }
  }

  /** From now on lost members are seen to, and nothing else happens. */
  heal(): void {
    this.#healed = true;
  }

  // Lost members.

  /** Whether the group can do without this member's disk, and those that are lost or about to be. */
  mayLose(host: ManagerHost): boolean {
    const leader = this.#machines.leader();
    const status = leader?.raft?.status();
    const store = leader?.state?.store;
    if (status === undefined || store === undefined || this.#changing > 0 || host.isRetired) return false;
    // A demotion that the next leader still has to finish takes one more away.
    for (const node of store.all('node'))
      if (node.manager !== undefined && node.spec.role === 'worker') return false;
    const voters = status.members.filter(({ voter }) => voter);
    const members = new Set(status.members.map(({ id }) => id));
    if (!voters.some(({ id }) => id === host.member.id)) return false;
    const hurt = new Set([host, ...this.#lost]);
    for (const each of this.#machines.managers)
      if (members.has(each.member.id) && each.disk.isDoubtful) hurt.add(each);
    return hurt.size <= (voters.length - 1) >> 1;
  }

  /** This member never comes back: an operator removes it, and makes its machine a new member. */
  lose(host: ManagerHost, why: string): void {
    const { dice, note, time } = this.#world;
    note(`${host.name} is lost: ${why}`);
    host.isLost = true;
    host.crash();
    this.#ownWorker(host)?.crash();
    this.#lost.add(host);
    time.after(dice.between(500, 5_000), null, `operator ${host.name}`, () => this.tend());
  }

  /** Operators see to one thing that the cluster cannot mend by itself. */
  tend(): void {
    const [host] = this.#lost;
    void this.#change('tend', async () => {
      if (host !== undefined) {
        await this.#removeIfThere(host.member.nodeId);
        await this.#machines.replaceManager(host);
        this.#lost.delete(host);
      } else if (this.#healed) await this.#tidy();
    });
  }

  /** Nodes without a machine are removed, workers that know no manager any more leave and join again. */
  async #tidy(): Promise<void> {
    const { managers, workers } = this.#machines;
    const machines = new Set<string>([
      ...managers.map(({ member }) => member.nodeId),
      ...workers.map(({ nodeId }) => nodeId),
    ]);
    const nodes = this.#machines.leader()?.state?.store.all('node') ?? [];
    const ids = new Set(managers.map(({ member }) => member.id));
    for (const { id, manager } of nodes) {
      if (!machines.has(id)) return await this.#remove(id);
      if (manager !== undefined && !ids.has(manager.raftId)) return await this.#setRole(id, 'worker');
    }
    const members = new Set(
      this.#machines
        .leader()
        ?.raft?.status()
        .members.map(({ id }) => id),
    );
    const addresses = managers
      .filter(({ member }) => members.has(member.id))
      .map(({ member }) => member.address);
    const stray = workers.find(
      ({ agent, knownManagers }) =>
        agent?.connected === false && !addresses.some((address) => knownManagers.includes(address)),
    );
    if (stray === undefined) return;
    await this.#removeIfThere(stray.nodeId);
    for (const host of managers.filter(({ member }) => member.nodeId === stray.nodeId))
      this.#machines.retireManager(host);
    await this.#machines.replaceWorker(stray);
  }

  async #removeIfThere(nodeId: string): Promise<void> {
    await this.#remove(nodeId).catch((error: unknown) => {
      if (!(error instanceof SwarmdError) || error.code !== 'NOT_FOUND') throw error;
    });
  }

  // Changes.

  /** One change of a node at a time, and few in all. */
  async #change(subject: string | undefined, run: () => Promise<void>): Promise<void> {
    if (subject === undefined || this.#changing >= CHANGES_MAX || this.#inChange.has(subject)) return;
    this.#changing += 1;
    this.#inChange.add(subject);
    try {
      await run();
    } catch (error) {
      this.#world.note(`the nodes were not changed: ${errorMessage(error)}`);
    } finally {
      this.#changing -= 1;
      this.#inChange.delete(subject);
    }
  }

  #leading(): NonNullable<ManagerHost['live']>['manager'] {
    const manager = this.#machines.leader()?.live?.manager;
    if (manager === undefined) throw new SwarmdError('NO_LEADER', 'nobody leads');
    return manager;
  }

  /** Members of the group, but not its leader. None while a member is lost: the group may need them. */
  #others(): ManagerHost[] {
    const { managers } = this.#machines;
    const leader = this.#machines.leader();
    if (this.#lost.size > 0 || managers.some(({ disk }) => disk.isDoubtful)) return [];
    const members = leader?.raft?.status().members ?? [];
    return managers.filter((host) => host !== leader && members.some(({ id }) => id === host.member.id));
  }

  #ownWorker(host: ManagerHost): WorkerHost | undefined {
    return this.#machines.workers.find(({ nodeId }) => nodeId === host.member.nodeId);
  }

  /** Removes a node through the leader; rejects unless that was acknowledged. */
  async #remove(nodeId: string): Promise<void> {
    const manager = this.#leading();
    await this.#world.bounded(CALL_MS, (signal) =>
      manager.call('node.remove', { ref: nodeId, force: true }, signal),
    );
  }

  /** A user removes a manager for good, perhaps to put another in its place. */
  async #removeManager(victim: ManagerHost | undefined, replace: boolean): Promise<void> {
    if (victim === undefined) return;
    await this.#remove(victim.member.nodeId);
    if (replace) await this.#machines.replaceManager(victim);
  }

  /** A user makes a manager a worker. One with a worker of its own hears of it there. */
  async #demote(): Promise<void> {
    const victim = this.#world.dice.pick(this.#others());
    if (victim === undefined) throw new SwarmdError('NOT_FOUND', 'there is nobody to demote');
    await this.#setRole(victim.member.nodeId, 'worker');
    if (this.#ownWorker(victim) === undefined) this.#machines.retireManager(victim);
  }

  async #setRole(ref: string, role: 'manager' | 'worker'): Promise<void> {
    const manager = this.#leading();
    await this.#world.bounded(CALL_MS, async (signal) => {
      const { spec, meta } = (await manager.call('node.inspect', { ref }, signal)) as NodeView;
      await manager.call('node.update', { ref, version: meta.version, spec: { ...spec, role } }, signal);
    });
  }

  /** The leader takes itself out of the group. */
  async #leave(): Promise<void> {
    const leader = this.#machines.leader();
    const manager = leader?.live?.manager;
    if (leader === null || manager === undefined || this.#others().length === 0) return;
    await this.#world.bounded(CALL_MS, (signal) => manager.leaveGroup(signal));
    this.#machines.retireManager(leader);
  }

  async #replaceWorker(worker: WorkerHost | undefined): Promise<void> {
    if (worker === undefined || this.#machines.managers.some((host) => host.name === worker.name)) return;
    await this.#remove(worker.nodeId);
    await this.#machines.replaceWorker(worker);
  }

  /** A manager comes back at another address. One at a time: the others must hear of it. */
  #move(): void {
    const { dice, note, time } = this.#world;
    const { managers, workers } = this.#machines;
    const store = this.#machines.leader()?.state?.store;
    // One that never received the state knows nobody whom it could tell: it has to leave and join again.
    const host = dice.pick(
      managers.filter(
        (each) => !each.isLost && each.state?.store.get('node', each.member.nodeId) !== undefined,
      ),
    );
    if (host === undefined || store === undefined) return;
    // A worker that finds none of the managers it knows of is lost for good: somebody must be where it was.
    const isKnown =
      managers.filter(({ isUp }) => isUp).length > 1 && workers.every(({ agent }) => agent?.connected);
    if (!isKnown) return;
    // A node that is to become another member moves when it is one.
    const settled = managers.every(({ member }) => {
      const listed = store.get('node', member.nodeId)?.manager;
      return listed?.address === member.address && listed.raftId === member.id;
    });
    if (!settled) return;
    host.crash();
    const address = `${host.name}:${this.#ports++}`;
    note(`${host.name} moves to ${address}`);
    host.member = { ...host.member, address };
    const own = this.#ownWorker(host);
    if (own !== undefined) {
      own.crash();
      own.rpcAddress = address;
    }
    time.after(dice.below(2_000), null, `${host.name} returns`, () => {
      host.start();
      own?.start();
    });
  }

  /** All managers but one are gone for good. */
  #force(): void {
    const { dice } = this.#world;
    const { managers } = this.#machines;
    if (this.#forced >= FORCED_MAX || this.#changing > 0 || managers.length < 2) return;
    const leader = this.#machines.leader();
    const usable = managers.filter((host) => {
      const { disk } = host;
      const isMember = host.seen?.members.some(({ id, voter }) => voter && id === host.member.id) === true;
      return isMember && !host.isLost && !disk.isDoubtful;
    });
    const survivor = dice.chance(600)
      ? dice.pick(usable.filter((host) => host !== leader))
      : dice.pick(usable);
    if (survivor === undefined) return;
    this.#forced += 1;
    this.#lost.clear();
    this.#machines.goOnAlone(survivor);
  }
}
