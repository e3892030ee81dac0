/**
 * What users do while everything fails: services created, scaled, updated, rolled back and removed, nodes drained,
 * and registers read and written, whose history is judged in the end.
 *
 * Data owned: the history of each register, what was acknowledged of each service.
 */
import { SwarmdError } from '../../src/base/errors.ts';
import type { NodeView, ServiceView } from '../../src/model/api.ts';
import { defaultServiceSpec, defaultTaskSpec, defaultUpdateConfig } from '../../src/model/defaults.ts';
import { newId, type ServiceId } from '../../src/model/ids.ts';
import type { Service } from '../../src/model/objects.ts';
import type { ServiceSpec } from '../../src/model/spec.ts';
import type { Action } from '../../src/manager/state/actions.ts';
import type { StateView } from '../../src/manager/state/view.ts';
import {
  checkLinearizable,
  type Operation,
  registerModel,
  type RegisterInput,
  type RegisterOutput,
} from '../support/linearizability.ts';
import { type Client, createAgain, createOnce } from './keyed-changes.ts';
import type { ManagerHost, World } from './manager-host.ts';

type RegisterOperation = {
  -readonly [K in keyof Operation<RegisterInput, RegisterOutput>]: Operation<
    RegisterInput,
    RegisterOutput
  >[K];
};

const REGISTERS = 3;
const FIRST_VALUE = 'first';
const OPERATIONS_MAX = 400;
const CALL_TIMEOUT_MS = 10_000;
const SEARCH_STEPS_MAX = 1_000_000;
/** Codes that say for sure that nothing was done. */
const refusals = [
  'CONFLICT',
  'NO_LEADER',
  'INVALID_ARGUMENT',
  'NOT_FOUND',
  'FAILED_PRECONDITION',
  'ALREADY_EXISTS',
];

/** The clients of one run. */
export class Workload {
  readonly counts = { calls: 0, acknowledged: 0, refused: 0, unknown: 0, reads: 0, writes: 0, keyed: 0 };
  /** Services whose creation was acknowledged and whose removal was never asked for, and when they were created. */
  readonly kept = new Map<string, number>();
  /** Clients wait for the survivor of a lost cluster. */
  isSuspended = false;
  readonly #removed = new Set<string>();
  readonly #world: World;
  readonly #hosts: () => readonly ManagerHost[];
  #histories: RegisterOperation[][] = [];
  /** What each register held at the beginning of its history. */
  #initial: (string | null)[] = [];
  /** Writes of the history before, whose end nobody knows. */
  #carried: RegisterOperation[][] = [];
  /** The cluster lost what came after this entry. */
  #rewoundTo = 0;
  /** And decided what there is up to this one. */
  decided = 0;
  #order = 0;
  #value = 0;
  #name = 0;
  #busy = 0;

  constructor(world: World, hosts: () => readonly ManagerHost[]) {
    this.#world = world;
    this.#hosts = hosts;
    for (let i = 0; i < REGISTERS; i++) this.#begin(FIRST_VALUE);
  }

  #begin(initial: string | null, open: RegisterOperation[] = []): void {
    this.#histories.push([...open]);
    this.#initial.push(initial);
  }

  /**
   * The cluster lost everything after entry `index`: up to now its history must be linearizable, and from the state
   * it goes on with it must be again.
   */
  rewind(index: number, decided: number): void {
    this.judge();
    this.decided = decided;
    // A write that is under way may reach whoever leads next, and a kept end of the log may hold it.
    this.#carried = this.#histories.map((history) =>
      history
        .filter(({ returnedAt }) => returnedAt === Number.POSITIVE_INFINITY)
        .map((write) => ({ ...write })),
    );
    this.#histories = [];
    this.#initial = [];
    this.#rewoundTo = index;
    this.isSuspended = true;
  }

  /** The survivor leads: `store` is what it goes on with. */
  resume(store: StateView): void {
    this.isSuspended = false;
    for (let i = 0; i < REGISTERS; i++)
      this.#begin(store.byName('service', `register-${i}`)?.spec.labels['value'] ?? null, this.#carried[i]);
    for (const [id, version] of this.kept) {
      if (store.get('service', id) !== undefined) continue;
      this.kept.delete(id);
      if (version <= this.#rewoundTo)
        this.#world.violation(
          `service ${id} of entry ${version} is lost, the survivor had ${this.#rewoundTo}`,
        );
    }
  }

  /** The registers: services that run nothing, whose label holds the value. */
  firstActions(): Action[] {
    return this.#histories.map((_, register) => {
      const spec = {
        ...serviceSpec(`register-${register}`),
        labels: { value: FIRST_VALUE },
        mode: { kind: 'replicated', replicas: 0 },
      } as const;
      const object: Service = {
        id: newId<ServiceId>(this.#world.dice.random),
        meta: { version: 0, createdAt: 0, updatedAt: 0 },
        spec,
        specVersion: 1,
        endpoint: { ports: [], virtualIps: [] },
        pendingDelete: false,
      };
      return { kind: 'create', table: 'service', object };
    });
  }

  /** One user does one thing. */
  act(): void {
    if (this.#busy > 8 || this.isSuspended) return;
    const { dice } = this.#world;
    const roll = dice.below(100);
    if (roll < 18) this.#run(() => this.#create());
    else if (roll < 25) this.#run(() => this.#createOnce());
    else if (roll < 45) this.#run(() => this.#change((spec) => scaled(spec, dice.below(7))));
    else if (roll < 65) this.#run(() => this.#change((spec) => this.#updated(spec)));
    else if (roll < 72) this.#run(() => this.#rollback());
    else if (roll < 84) this.#run(() => this.#remove());
    else this.#run(() => this.#availability());
  }

  /** One client reads or writes one register. */
  register(): void {
    const { dice } = this.#world;
    if (this.isSuspended) return;
    const register = dice.below(REGISTERS);
    const history = this.#histories[register] as RegisterOperation[];
    if (history.length >= OPERATIONS_MAX || this.#busy > 16) return;
    const name = `register-${register}`;
    if (dice.chance(400)) this.#run(() => this.#readAtReplica(name, history));
    else this.#run(() => this.#readAndWrite(name, history));
  }

  /** Judges the registers' histories; returns how many could not be judged. */
  judge(): number {
    let unknown = 0;
    this.#histories.forEach((history, register) => {
      const initial = { value: this.#initial[register] ?? null };
      const verdict = checkLinearizable({ ...registerModel, initial }, history, SEARCH_STEPS_MAX);
      if (verdict.linearizable === 'unknown') unknown += 1;
      if (verdict.linearizable === false)
        this.#world.violation(
          `register ${register}: its history is not linearizable (${verdict.prefix} of ${history.length} operations explained)`,
        );
    });
    return unknown;
  }

  #run(work: () => Promise<void>): void {
    this.#busy += 1;
    void work()
      .catch((error: unknown) => {
        if (!(error instanceof SwarmdError))
          this.#world.violation(`a call failed with a foreign error: ${String(error)}`);
        else if (error.code === 'INTERNAL')
          this.#world.violation(`a call failed with INTERNAL: ${error.message}`);
      })
      .finally(() => (this.#busy -= 1));
  }

  /** Calls through some manager; one that dies never answers, so the caller's own clock ends the wait. */
  async #call<T>(method: string, params: unknown): Promise<T> {
    const host = this.#world.dice.pick(this.#hosts().filter((each) => each.live !== null));
    const manager = host?.live?.manager;
    if (manager === undefined) throw new SwarmdError('NO_LEADER', 'every manager is down');
    this.counts.calls += 1;
    try {
      const answer = this.#world.bounded(CALL_TIMEOUT_MS, (signal) => manager.call(method, params, signal));
      return (await answer) as T;
    } catch (error) {
      this.counts[error instanceof SwarmdError && refusals.includes(error.code) ? 'refused' : 'unknown'] += 1;
      throw error;
    }
  }

  async #create(): Promise<void> {
    const { dice } = this.#world;
    const spec = {
      ...this.#updated(serviceSpec(`service-${this.#name++}`)),
      mode: dice.chance(200)
        ? ({ kind: 'global' } as const)
        : ({ kind: 'replicated', replicas: dice.below(7) } as const),
    };
    this.#keep(await this.#call<ServiceView>('service.create', { spec }));
  }

  #keep({ id, meta }: ServiceView): void {
    this.counts.acknowledged += 1;
    // Somebody else may have found and removed it before its maker heard of it.
    if (!this.#removed.has(id)) this.kept.set(id, meta.version);
  }

  /** A client that asks again until it is told, and perhaps once more when what it made is gone. */
  async #createOnce(): Promise<void> {
    const { dice, time } = this.#world;
    const client: Client = {
      dice,
      call: (method, params) => this.#call(method, params),
      sleep: (ms) => time.sleep(ms, null, 'client'),
    };
    const spec = {
      ...serviceSpec(`once-${this.#name++}`),
      mode: { kind: 'replicated', replicas: 0 },
    } as const;
    const made = await createOnce(client, spec);
    if (made === null) return;
    this.counts.keyed += 1;
    this.#keep(made);
    if (dice.chance(500)) return;
    this.kept.delete(made.id);
    this.#removed.add(made.id);
    await this.#call('service.remove', { ref: made.id });
    await client.sleep(dice.below(2_000));
    await createAgain(client, made);
  }

  async #some(): Promise<ServiceView | undefined> {
    const services = await this.#call<ServiceView[]>('service.list', { stack: null });
    return this.#world.dice.pick(services.filter((service) => !service.spec.name.startsWith('register')));
  }

  async #change(change: (spec: ServiceSpec) => ServiceSpec): Promise<void> {
    const service = await this.#some();
    if (service === undefined) return;
    const params = { ref: service.id, version: service.meta.version, spec: change(service.spec) };
    await this.#call('service.update', params);
    this.counts.acknowledged += 1;
  }

  async #rollback(): Promise<void> {
    const service = await this.#some();
    if (service === undefined) return;
    await this.#call('service.rollback', { ref: service.id, version: service.meta.version });
    this.counts.acknowledged += 1;
  }

  async #remove(): Promise<void> {
    const service = await this.#some();
    if (service === undefined) return;
    this.kept.delete(service.id);
    this.#removed.add(service.id);
    await this.#call('service.remove', { ref: service.id });
    this.counts.acknowledged += 1;
  }

  async #availability(): Promise<void> {
    const nodes = await this.#call<NodeView[]>('node.list', {});
    const node = this.#world.dice.pick(nodes);
    if (node === undefined) return;
    const availability = this.#world.dice.oneOf('active', 'active', 'active', 'drain', 'pause');
    await this.#call('node.update', {
      ref: node.id,
      version: node.meta.version,
      spec: { ...node.spec, availability },
    });
    this.counts.acknowledged += 1;
  }

  #updated(spec: ServiceSpec): ServiceSpec {
    const { dice } = this.#world;
    const bad = dice.chance(120);
    const container = {
      ...spec.task.container,
      command: bad ? ['exit', '1'] : ['run'],
      env: [`VERSION=${dice.below(1_000_000)}`],
      stopGraceMs: 1_000,
      ...(dice.chance(300) ? { healthCheck: { test: ['CMD', 'true'] } } : {}),
    };
    const update = {
      ...defaultUpdateConfig,
      parallelism: dice.below(4),
      delayMs: dice.oneOf(0, 200, 2_000),
      monitorMs: dice.oneOf(100, 1_000, 5_000),
      failureAction: dice.oneOf('pause', 'continue', 'rollback'),
      order: dice.oneOf('stop-first', 'start-first'),
      maxFailureRatio: dice.oneOf(0, 0.5),
    } as const;
    const restart = {
      ...spec.task.restart,
      delayMs: dice.oneOf(0, 200, 2_000),
    };
    const nanoCpus = dice.oneOf(0, 0, 500_000_000, 1_500_000_000);
    const resources = nanoCpus === 0 ? {} : { reservations: { nanoCpus } };
    return { ...spec, update, rollback: update, task: { ...spec.task, container, restart, resources } };
  }

  /** A read of a replica's own state, after a read index. */
  async #readAtReplica(name: string, history: RegisterOperation[]): Promise<void> {
    const live = this.#world.dice.pick(this.#hosts())?.live;
    if (live === null || live === undefined) return;
    const calledAt = ++this.#order;
    await this.#world.bounded(CALL_TIMEOUT_MS, (signal) => live.raft.readIndex(signal));
    const service = live.manager.stateMachine.store.byName('service', name);
    if (service === undefined) throw new SwarmdError('NO_LEADER', 'a member that has not joined yet');
    this.counts.reads += 1;
    history.push({
      input: { kind: 'read' },
      output: { value: service.spec.labels['value'] ?? null },
      calledAt,
      returnedAt: ++this.#order,
    });
  }

  /** A read at the leader, and often a write based on it. */
  async #readAndWrite(name: string, history: RegisterOperation[]): Promise<void> {
    const calledAt = ++this.#order;
    const service = await this.#call<ServiceView>('service.inspect', { ref: name });
    const from = service.spec.labels['value'] ?? null;
    this.counts.reads += 1;
    history.push({ input: { kind: 'read' }, output: { value: from }, calledAt, returnedAt: ++this.#order });
    // What follows would be a write of a history that is over.
    if (!this.#histories.includes(history) || !this.#world.dice.chance(700)) return;
    const to = `v${this.#value++}`;
    const spec = { ...service.spec, labels: { value: to } };
    const write: RegisterOperation = {
      input: { kind: 'cas', from: from ?? '', to },
      output: null,
      calledAt: ++this.#order,
      returnedAt: Number.POSITIVE_INFINITY,
    };
    history.push(write);
    try {
      await this.#call('service.update', { ref: service.id, version: service.meta.version, spec });
      write.output = { done: true };
      write.returnedAt = ++this.#order;
      this.counts.writes += 1;
    } catch (error) {
      if (!(error instanceof SwarmdError) || !refusals.includes(error.code)) throw error;
      history.splice(history.indexOf(write), 1);
    }
  }
}

function serviceSpec(name: string): ServiceSpec {
  const container = { ...defaultTaskSpec.container, command: ['run'], stopGraceMs: 1_000 };
  return {
    ...defaultServiceSpec,
    name,
    labels: {},
    task: { ...defaultTaskSpec, runtime: 'process', container },
  };
}

function scaled(spec: ServiceSpec, replicas: number): ServiceSpec {
  return spec.mode.kind === 'replicated' ? { ...spec, mode: { kind: 'replicated', replicas } } : spec;
}
