/**
 * The container engine of one simulated machine: slow, failing and hanging, over the fake runtime.
 *
 * Data owned: which tasks were started, ever. Invariant: a task is started at most once in its life.
 */
import { SwarmdError } from '../../src/base/errors.ts';
import type { TaskId } from '../../src/model/ids.ts';
import type { NodeDescription, Task } from '../../src/model/objects.ts';
import type { LogRecord, LogRequest } from '../../src/model/wire.ts';
import type { Runtime, RuntimeTaskState, TaskSetup } from '../../src/worker/types.ts';
import { type FakeCall, FakeRuntime } from '../support/fake-runtime.ts';
import type { Dice } from './draws.ts';
import { driftingClock, Process, type VirtualTime } from './virtual-time.ts';

/** What is wrong with an engine now. */
export interface EngineState {
  delayMaxMs: number;
  /** Failures in 1,000 operations. */
  failure: number;
}

const hangable: readonly FakeCall[] = ['prepare', 'create', 'start', 'stop', 'remove', 'inspect', 'list'];

/** An engine; it outlives the workers that use it. */
export class Engine {
  readonly state: EngineState = { delayMaxMs: 0, failure: 0 };
  readonly fake: FakeRuntime;
  readonly #time: VirtualTime;
  readonly #dice: Dice;
  readonly #onStart: (taskId: TaskId) => void;
  /** Tasks that have a health check. */
  readonly #checked = new Set<TaskId>();
  /** Health checks say so of tasks that start from now on. */
  sickness = 0;

  constructor(time: VirtualTime, dice: Dice, onStart: (taskId: TaskId) => void) {
    this.#time = time;
    this.#dice = dice;
    this.#onStart = onStart;
    const drift = { rate: 1, offsetMs: 0, lateMaxMs: 0 };
    this.fake = new FakeRuntime({ clock: driftingClock(time, new Process('engine'), drift, () => 0) });
  }

  /** Some calls stop answering. */
  hang(): void {
    this.fake.hang(this.#dice.pick(hangable) ?? 'create');
  }

  heal(): void {
    this.sickness = 0;
    this.fake.outage = false;
    this.fake.unhang();
    for (const id of this.fake.held('running')) this.#makeHealthy(id);
  }

  /** The machine restarts: whatever ran has ended. */
  reboot(): void {
    for (const id of this.fake.held('running')) this.fake.exit(id, 137, 'the machine was restarted');
  }

  /** The engine as one worker process uses it. */
  runtime(owner: Process): Runtime {
    const { fake } = this;
    const around = async <T>(call: FakeCall, run: () => Promise<T>): Promise<T> => {
      fake.calls.length = 0;
      await this.#pause(owner, call);
      this.#mayFail(call);
      const result = await run();
      await this.#pause(owner, call);
      return result;
    };
    return {
      kind: fake.kind,
      prepare: (task: Task, signal) => around('prepare', () => fake.prepare(task, signal)),
      create: (task: Task, setup: TaskSetup, signal) =>
        around('create', () => this.#create(task, setup, signal)),
      start: (taskId, signal) => around('start', () => this.#start(taskId, signal)),
      stop: (taskId, signal) => around('stop', () => fake.stop(taskId, signal)),
      remove: (taskId, signal) => around('remove', () => fake.remove(taskId, signal)),
      inspect: (taskId, signal): Promise<RuntimeTaskState | null> =>
        around('inspect', () => fake.inspect(taskId, signal)),
      list: (signal): Promise<RuntimeTaskState[]> => around('list', () => fake.list(signal)),
      onEvent: (listener) => fake.onEvent((taskId) => owner.alive && listener(taskId)),
      logs: (request: LogRequest, signal): AsyncIterable<LogRecord> => fake.logs(request, signal),
      describe: (signal): Promise<Partial<NodeDescription> | null> => fake.describe(signal),
      close: () => fake.close(),
    };
  }

  #create(task: Task, setup: TaskSetup, signal: AbortSignal): Promise<void> {
    if (task.spec.container.healthCheck !== undefined) this.#checked.add(task.id);
    return this.fake.create(task, setup, signal);
  }

  async #start(taskId: TaskId, signal: AbortSignal): Promise<void> {
    const before = this.fake.starts(taskId);
    await this.fake.start(taskId, signal);
    if (this.fake.starts(taskId) === before) return;
    this.#onStart(taskId);
    const sick = this.sickness > 0 && this.#dice.chance(this.sickness);
    this.#time.after(this.#dice.between(50, 1_500), null, `health ${taskId.slice(0, 5)}`, () => {
      if (sick) this.#setHealth(taskId, 'unhealthy');
      else this.#makeHealthy(taskId);
    });
  }

  #makeHealthy(taskId: TaskId): void {
    this.#setHealth(taskId, 'healthy');
  }

  #setHealth(taskId: TaskId, health: 'healthy' | 'unhealthy'): void {
    if (this.#checked.has(taskId) && this.fake.held('running').includes(taskId))
      this.fake.setHealth(taskId, health);
  }

  #pause(owner: Process, call: FakeCall): Promise<void> {
    const delayMs = this.#dice.below(this.state.delayMaxMs + 1);
    return this.#time.sleep(delayMs, owner, `engine ${call}`);
  }

  #mayFail(call: FakeCall): void {
    const { failure } = this.state;
    if (failure === 0 || !this.#dice.chance(failure)) return;
    const code = this.#dice.oneOf('RUNTIME', 'UNAVAILABLE', 'TIMEOUT', 'NOT_FOUND', 'CONFLICT');
    const waits = code === 'UNAVAILABLE' && this.#dice.chance(500);
    throw new SwarmdError(code, `the engine failed to ${call}`, { details: waits ? { waits } : {} });
  }
}
