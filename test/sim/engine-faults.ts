/** What goes wrong with container engines and the tasks on them. */
import { assertNever } from '../../src/base/assert.ts';
import type { Dice, FaultKind } from './draws.ts';
import type { WorkerHost } from './worker-host.ts';

export type EngineFault = Extract<
  FaultKind,
  'task-dies' | 'task-vanishes' | 'task-unhealthy' | 'runtime-hangs' | 'runtime-outage'
>;

/** Injects one fault into a worker's engine. */
export function injectEngineFault(kind: EngineFault, { engine }: WorkerHost, dice: Dice): void {
  const running = dice.pick(engine.fake.held('running'));
  switch (kind) {
    case 'task-dies':
      if (running !== undefined) engine.fake.exit(running, dice.oneOf(0, 1, 137));
      return;
    case 'task-vanishes':
      if (running !== undefined) engine.fake.vanish(running);
      return;
    case 'task-unhealthy':
      engine.sickness = dice.oneOf(0, 300, 1_000);
      return;
    case 'runtime-hangs':
      engine.hang();
      return;
    case 'runtime-outage':
      engine.fake.outage = true;
      return;
    default:
      assertNever(kind);
  }
}
