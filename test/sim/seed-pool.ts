/**
 * Seeds spread over processes, one seed at a time each. Every seed is a run of its own, so the order in which they
 * end does not matter; a process that dies is an error of the run.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { BrokenVariant } from './broken.ts';
import type { FaultKind } from './draws.ts';
import { simulate, type SimulationOptions, type SimulationResult } from './simulation.ts';

/** What is the same for all seeds; null is what the seed draws. */
export interface SeedJob {
  readonly events: number;
  readonly broken: BrokenVariant | null;
  readonly faults: readonly FaultKind[] | null;
  readonly managers: number | null;
  readonly workers: number | null;
}

/** The run of one seed. */
export function optionsOf(
  seed: number,
  { events, broken, faults, managers, workers }: SeedJob,
): SimulationOptions {
  const draws = {
    ...(faults === null ? {} : { faults: new Set(faults) }),
    ...(managers === null ? {} : { managers }),
    ...(workers === null ? {} : { workers }),
  };
  return { seed, events, broken, draws };
}

/** Runs `count` seeds from `first` on in `processes`; `take` hears of each, and says whether to go on. */
export async function runSeeds(
  first: number,
  count: number,
  job: SeedJob,
  processes: number,
  take: (result: SimulationResult) => boolean,
): Promise<void> {
  let next = first;
  let goesOn = true;
  const more = (): number | null => (goesOn && next < first + count ? next++ : null);
  const ended = (result: SimulationResult): void => {
    goesOn = take(result) && goesOn;
  };
  if (processes <= 1) {
    for (let seed = more(); seed !== null; seed = more()) ended(await simulate(optionsOf(seed, job)));
    return;
  }
  await Promise.all(Array.from({ length: processes }, () => runInProcess(job, more, ended)));
}

async function runInProcess(
  job: SeedJob,
  more: () => number | null,
  ended: (result: SimulationResult) => void,
): Promise<void> {
  const child = fork(fileURLToPath(new URL('seed-worker.ts', import.meta.url)), [JSON.stringify(job)]);
  try {
    for (let seed = more(); seed !== null; seed = more()) ended(await ask(child, seed));
  } finally {
    child.disconnect();
  }
}

function ask(child: ChildProcess, seed: number): Promise<SimulationResult> {
  return new Promise((resolve, reject) => {
    const onExit = (code: number | null): void =>
      reject(new Error(`the process that ran seed ${seed} ended with ${code}`));
    child.once('exit', onExit);
    child.once('message', (result) => {
      child.off('exit', onExit);
      resolve(result as SimulationResult);
    });
    child.send(seed);
  });
}
