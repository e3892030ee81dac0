/**
 * What the clients of a torture run do, and what they saw: registers (labels of services) are read and changed by
 * compare-and-set through the API, every operation is recorded, and the histories are judged.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SwarmdError } from '../../src/base/errors.ts';
import { type Random, randomBelow } from '../../src/base/random.ts';
import { connectApi } from '../../src/http/client.ts';
import { defaultServiceSpec, defaultTaskSpec } from '../../src/model/defaults.ts';
import type { ServiceSpec } from '../../src/model/spec.ts';
import type { Daemon } from '../e2e/lib/daemon.ts';
import {
  checkLinearizable,
  type Operation,
  type RegisterInput,
  type RegisterOutput,
  registerModel,
} from '../support/linearizability.ts';
import { waitFor } from '../support/wait.ts';

/** Registers of a run. */
export const REGISTERS = 4;
/** Name of the label that is the register. */
const LABEL = 'torture.value';
const CALL_MS = 3_000;

type Recorded = Operation<RegisterInput, RegisterOutput>;

/** A fault that is under way: its name, and the daemons (by position) that it is done to. */
export interface Condition {
  readonly name: string;
  readonly victims: readonly number[];
}

/** Nothing is being done. */
export const CALM: Condition = { name: 'no fault', victims: [] };

function spec(name: string, value: string): ServiceSpec {
  const container = { ...defaultTaskSpec.container, args: ['true'] };
  return {
    ...defaultServiceSpec,
    name,
    labels: { [LABEL]: value },
    mode: { kind: 'replicated', replicas: 0 },
    task: { ...defaultTaskSpec, runtime: 'process', container },
  };
}

/** The registers of a cluster, and one history each. */
export class Registers {
  readonly #daemons: readonly Daemon[];
  readonly #histories: Recorded[][] = Array.from({ length: REGISTERS }, () => []);
  /** How long changes took in milliseconds, asked of daemons that nothing was done to, by what was done to others. */
  readonly #tookMs = new Map<string, number[]>();
  readonly counts = { reads: 0, changes: 0, conflicts: 0, unknown: 0, failed: 0 };
  /** What is being done to the cluster. */
  condition: Condition = CALM;

  constructor(daemons: readonly Daemon[]) {
    this.#daemons = daemons;
  }

  /** Makes the registers. */
  async create(): Promise<void> {
    const [first] = this.#daemons as readonly [Daemon];
    for (const [register, history] of this.#histories.entries()) {
      await first.call('service.create', { spec: spec(`register-${register}`, 'first') });
      const input = { kind: 'write', value: 'first' } as const;
      history.push({ input, output: { done: true }, calledAt: 0, returnedAt: 0.1 });
    }
  }

  /** One client: operations on daemons and registers that `random` draws, until `isOver`. */
  async client(id: number, random: Random, isOver: () => boolean): Promise<void> {
    for (let n = 0; !isOver(); n++) {
      const daemon = randomBelow(random, this.#daemons.length);
      const change = randomBelow(random, 2) === 0 ? null : `${id}-${n}`;
      await this.operate(daemon, randomBelow(random, REGISTERS), change);
      const restMs = randomBelow(random, 60);
      await new Promise((resolve) => setTimeout(resolve, restMs));
    }
  }

  /** Reads the register, or changes it from what was read: a compare-and-set by the service's version. */
  async operate(index: number, register: number, change: string | null): Promise<void> {
    const daemon = this.#daemons[index] as Daemon;
    const api = connectApi(`unix://${daemon.socketPath}`);
    const history = this.#histories[register] as Recorded[];
    const ref = `register-${register}`;
    const readAt = performance.now();
    try {
      const service = await api.call('service.inspect', { ref }, { signal: AbortSignal.timeout(CALL_MS) });
      const value = service.spec.labels[LABEL] ?? '';
      const input = { kind: 'read' } as const;
      history.push({ input, output: { value }, calledAt: readAt, returnedAt: performance.now() });
      this.counts.reads += 1;
      if (change === null) return;
      const labels = { [LABEL]: change };
      const params = { ref, version: service.meta.version, spec: { ...service.spec, labels } };
      await this.#record(history, index, { kind: 'cas', from: value, to: change }, () =>
        api.call('service.update', params, { signal: AbortSignal.timeout(CALL_MS) }),
      );
    } catch {
      this.counts.failed += 1;
    } finally {
      api.close();
    }
  }

  async #record(
    history: Recorded[],
    index: number,
    input: RegisterInput,
    update: () => Promise<unknown>,
  ): Promise<void> {
    const { condition } = this;
    const calledAt = performance.now();
    try {
      await update();
      const returnedAt = performance.now();
      history.push({ input, output: { done: true }, calledAt, returnedAt });
      this.counts.changes += 1;
      if (condition !== this.condition || condition.victims.includes(index)) return;
      const took = this.#tookMs.get(condition.name) ?? [];
      took.push(returnedAt - calledAt);
      this.#tookMs.set(condition.name, took);
    } catch (error) {
      // Another change came first: this one did not happen. Whatever else went wrong, it may have.
      if (error instanceof SwarmdError && error.code === 'CONFLICT') {
        this.counts.conflicts += 1;
        return;
      }
      history.push({ input, output: null, calledAt, returnedAt: Number.POSITIVE_INFINITY });
      this.counts.unknown += 1;
    }
  }

  /** Waits until every daemon answers, then reads every register through each. */
  async readEverywhere(): Promise<void> {
    for (const [index, daemon] of this.#daemons.entries()) {
      await waitFor(
        `the healed ${daemon.name} to answer`,
        async () => (await daemon.call('service.list', { stack: null })).length === REGISTERS,
        { timeoutMs: 60_000 },
      );
      const { failed } = this.counts;
      for (let register = 0; register < REGISTERS; register++) await this.operate(index, register, null);
      if (this.counts.failed > failed) throw new Error(`${daemon.name} was healed, and answers no reads`);
    }
  }

  /** How long changes took, a line a condition. */
  latencies(): string[] {
    return [...this.#tookMs].map(([name, took]) => {
      const sorted = took.toSorted((a, b) => a - b);
      const at = (share: number): string => (sorted[Math.floor(share * (sorted.length - 1))] ?? 0).toFixed(1);
      return `${name}: ${took.length} changes, p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`;
    });
  }

  /** Whether every history is linearizable; those that are not are left in `folder`. */
  judge(folder: string): boolean {
    let good = true;
    for (const [register, history] of this.#histories.entries()) {
      const verdict = checkLinearizable(registerModel, history);
      console.log(
        `register ${register}: ${history.length} operations, linearizable: ${verdict.linearizable}`,
      );
      if (verdict.linearizable === true) continue;
      good = false;
      const file = join(folder, `history-${register}.json`);
      writeFileSync(file, JSON.stringify(history));
      console.log(`  history: ${file}`);
    }
    return good;
  }
}
