/** The runtime suite on the fake runtime and on real processes. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { systemRandom } from '../../src/base/random.ts';
import { ProcessRuntime } from '../../src/worker/process-runtime.ts';
import { FakeRuntime } from '../support/fake-runtime.ts';
import { type Program, type RuntimeHarness, runtimeSuite, shellCommand } from './runtime-suite.ts';

function fakeCommand(program: Program): string[] {
  switch (program.kind) {
    case 'exit':
      return ['exit', String(program.code)];
    case 'print':
      return ['print', ...program.lines];
    case 'ignore-term':
      return ['ignore-term'];
    case 'forever':
    case 'shell':
      return ['forever'];
  }
}

function fakeHarness(): RuntimeHarness {
  const runtime = new FakeRuntime({ clock: systemClock() });
  return {
    kind: 'process',
    real: false,
    start: () => Promise.resolve(runtime),
    reopen: async () => {
      await runtime.close();
      return runtime;
    },
    stop: () => runtime.close(),
    container: (program) => ({ command: fakeCommand(program) }),
  };
}

function processHarness(): RuntimeHarness {
  let dataDir = '';
  let runtime: ProcessRuntime | null = null;
  const open = (): ProcessRuntime =>
    (runtime = new ProcessRuntime(
      { dataDir, nodeId: 'n1' },
      { clock: systemClock(), random: systemRandom(), log: silentLogger },
    ));
  return {
    kind: 'process',
    real: true,
    start: async () => {
      dataDir = await mkdtemp(join(tmpdir(), 'swarmd-process-'));
      return open();
    },
    reopen: async () => {
      await runtime?.close();
      return open();
    },
    stop: async () => {
      await runtime?.close();
      await rm(dataDir, { recursive: true, force: true });
    },
    container: (program) => ({ command: shellCommand(program) }),
  };
}

runtimeSuite('fake', fakeHarness());
runtimeSuite('process', processHarness());
