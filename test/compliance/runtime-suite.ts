/** What every runtime must do, whatever it runs tasks as. Registered by the tests of each runtime. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { ConfigId, SecretId, TaskId } from '../../src/model/ids.ts';
import type { Task } from '../../src/model/objects.ts';
import type { ContainerSpec, RuntimeKind } from '../../src/model/spec.ts';
import type { LogRecord } from '../../src/model/wire.ts';
import type { Runtime, RuntimeTaskState } from '../../src/worker/types.ts';
import { waitFor } from '../support/wait.ts';
import { freshTaskId, makeTask, plainSetup } from '../support/worker-fixtures.ts';

/** One runtime under test. */
export interface RuntimeHarness {
  readonly kind: RuntimeKind;
  start(): Promise<Runtime>;
  /** A new life of the daemon's side, while what runs stays. The old one is closed. */
  reopen(): Promise<Runtime>;
  stop(): Promise<void>;
  /** What the runtime needs to run a program. */
  container(program: Program): Partial<ContainerSpec>;
  /** False for a runtime that only pretends: what needs a real program is left out. */
  readonly real: boolean;
}

export type Program =
  | { readonly kind: 'forever' }
  | { readonly kind: 'exit'; readonly code: number }
  | { readonly kind: 'print'; readonly lines: readonly string[] }
  | { readonly kind: 'ignore-term' }
  /** Real runtimes only. */
  | { readonly kind: 'shell'; readonly script: string };

/** The programs as shell scripts, for runtimes that have a shell. */
export function shellCommand(program: Program): string[] {
  const script = (): string => {
    switch (program.kind) {
      case 'forever':
        return 'trap "exit 143" TERM; while :; do sleep 0.05; done';
      case 'exit':
        return `exit ${program.code}`;
      case 'print':
        return `${program.lines.map((line) => `echo '${line}'`).join('; ')}; trap "exit 143" TERM; while :; do sleep 0.05; done`;
      case 'ignore-term':
        return 'trap "" TERM; echo ready; while :; do sleep 0.05; done';
      case 'shell':
        return program.script;
    }
  };
  return ['sh', '-c', script()];
}

const signal = (): AbortSignal => AbortSignal.timeout(30_000);

/** Registers the suite. */
export function runtimeSuite(name: string, harness: RuntimeHarness): void {
  describe(`runtime: ${name}`, () => {
    let runtime: Runtime;
    const events = new Set<TaskId>();

    const listen = (): void => runtime.onEvent((taskId) => events.add(taskId));
    before(async () => {
      runtime = await harness.start();
      listen();
    });
    after(async () => {
      for (const { taskId } of await runtime.list(signal())) await runtime.remove(taskId, signal());
      await harness.stop();
    });

    const taskOf = (program: Program, container: Partial<ContainerSpec> = {}): Task =>
      makeTask({
        spec: { runtime: harness.kind },
        container: { ...harness.container(program), ...container },
      });
    const run = async (task: Task): Promise<void> => {
      await runtime.prepare(task, signal());
      await runtime.create(task, plainSetup, signal());
      await runtime.start(task.id, signal());
    };
    const phase = async (id: TaskId): Promise<RuntimeTaskState['phase'] | undefined> =>
      (await runtime.inspect(id, signal()))?.phase;
    const exited = (id: TaskId): Promise<RuntimeTaskState> =>
      waitFor(`task ${id} to end`, async () => {
        const state = await runtime.inspect(id, signal());
        return state?.phase === 'exited' && state;
      });
    const logs = async (request: Partial<Parameters<Runtime['logs']>[0]> & { taskId: TaskId }) => {
      const records: LogRecord[] = [];
      const whole = { follow: false, tail: null, sinceMs: null, ...request };
      for await (const record of runtime.logs(whole, signal())) records.push(record);
      return records;
    };

    test('a task is made, started, stopped and removed, and each step may be repeated', async () => {
      const task = taskOf({ kind: 'forever' });
      await runtime.prepare(task, signal());
      for (const _ of [1, 2]) await runtime.create(task, plainSetup, signal());
      assert.equal(await phase(task.id), 'created');
      for (const _ of [1, 2]) await runtime.start(task.id, signal());
      assert.equal(await phase(task.id), 'running');
      for (const _ of [1, 2]) await runtime.stop(task.id, signal());
      assert.equal(await phase(task.id), 'exited');
      for (const _ of [1, 2]) await runtime.remove(task.id, signal());
      assert.equal(await runtime.inspect(task.id, signal()), null);
    });

    test('nothing there: stop and remove succeed, inspect is null, start says so', async () => {
      const id = freshTaskId();
      await runtime.stop(id, signal());
      await runtime.remove(id, signal());
      assert.equal(await runtime.inspect(id, signal()), null);
      await assert.rejects(runtime.start(id, signal()), { code: 'NOT_FOUND' });
      await assert.rejects(logs({ taskId: id }), { code: 'NOT_FOUND' });
    });

    test('the exit code of a task that ends by itself is told, and an event with it', async () => {
      for (const code of [0, 3]) {
        const task = taskOf({ kind: 'exit', code });
        await run(task);
        const state = await exited(task.id);
        assert.equal(state.container.exitCode, code);
        await waitFor('the event', () => events.has(task.id));
      }
    });

    test('a task that has ended is not started again', async () => {
      const task = taskOf({ kind: 'exit', code: 0 });
      await run(task);
      await exited(task.id);
      await runtime.stop(task.id, signal());
      assert.equal(await phase(task.id), 'exited');
    });

    test('a task that ignores its stop signal is killed after its grace', async () => {
      const task = taskOf({ kind: 'ignore-term' }, { stopGraceMs: 1_000 });
      await run(task);
      assert.equal(await phase(task.id), 'running');
      // Before it says so, a real program may not have come to ignoring anything.
      if (harness.real) await waitFor('the trap', async () => (await logs({ taskId: task.id })).length === 1);
      await runtime.stop(task.id, signal());
      assert.equal((await exited(task.id)).container.exitCode, 137);
    });

    test('remove ends what still runs', async () => {
      const task = taskOf({ kind: 'forever' });
      await run(task);
      await runtime.remove(task.id, signal());
      assert.equal(await runtime.inspect(task.id, signal()), null);
    });

    test('everything held is listed', async () => {
      const [made, running] = [taskOf({ kind: 'forever' }), taskOf({ kind: 'forever' })];
      await runtime.prepare(made, signal());
      await runtime.create(made, plainSetup, signal());
      await run(running);
      const phases = new Map((await runtime.list(signal())).map((state) => [state.taskId, state.phase]));
      assert.equal(phases.get(made.id), 'created');
      assert.equal(phases.get(running.id), 'running');
    });

    test('output is read whole, by tail and by time', async () => {
      const task = taskOf({ kind: 'print', lines: ['one', 'two', 'three'] });
      const beforeMs = Date.now();
      await run(task);
      const all = await waitFor('the output', async () => {
        const records = await logs({ taskId: task.id });
        return records.length === 3 && records;
      });
      assert.deepEqual(
        all.map((record) => [record.stream, record.line]),
        ['one', 'two', 'three'].map((line) => ['stdout', line]),
      );
      for (const { atMs } of all) assert.ok(atMs >= beforeMs - 5 && atMs <= Date.now() + 5, `${atMs}`);
      assert.deepEqual(
        (await logs({ taskId: task.id, tail: 2 })).map((record) => record.line),
        ['two', 'three'],
      );
      assert.deepEqual(await logs({ taskId: task.id, tail: 0 }), []);
      assert.deepEqual(await logs({ taskId: task.id, sinceMs: Date.now() + 60_000 }), []);
    });

    test('following ends when the task does', async () => {
      const task = taskOf({ kind: 'print', lines: ['first'] });
      await run(task);
      const lines: string[] = [];
      for await (const record of runtime.logs(
        { taskId: task.id, follow: true, tail: null, sinceMs: null },
        signal(),
      )) {
        // A shell whose child is stopped with it may remark on that.
        if (record.stream === 'stdout') lines.push(record.line);
        if (record.line === 'first') await runtime.stop(task.id, signal());
      }
      assert.deepEqual(lines, ['first']);
    });

    test('following ends when the reader gives up', async () => {
      const task = taskOf({ kind: 'print', lines: ['first'] });
      await run(task);
      const reader = new AbortController();
      for await (const _ of runtime.logs(
        { taskId: task.id, follow: true, tail: null, sinceMs: null },
        reader.signal,
      )) {
        reader.abort();
      }
      assert.equal(await phase(task.id), 'running');
    });

    test('a new life of the daemon finds what runs, what ended meanwhile, and the output of both', async () => {
      const [keeps, ends] = [
        taskOf({ kind: 'print', lines: ['kept'] }),
        taskOf(
          harness.real
            ? { kind: 'shell', script: 'echo ending; sleep 0.4; exit 5' }
            : { kind: 'exit', code: 5 },
        ),
      ];
      await run(keeps);
      await run(ends);
      runtime = await harness.reopen();
      listen();
      assert.equal((await exited(ends.id)).container.exitCode, 5);
      assert.equal(await phase(keeps.id), 'running');
      const lines = await waitFor('the output', async () => {
        const records = await logs({ taskId: keeps.id });
        return records.length > 0 && records;
      });
      assert.deepEqual(
        lines.map((record) => record.line),
        ['kept'],
      );
      await runtime.stop(keeps.id, signal());
      assert.equal(await phase(keeps.id), 'exited');
    });

    test('an aborted call gives up', async () => {
      const aborted = AbortSignal.abort(new Error('given up'));
      await assert.rejects(runtime.inspect(freshTaskId(), aborted));
    });

    if (harness.real) realPrograms();

    function realPrograms(): void {
      test('both streams are told apart and come in order', async () => {
        const script = 'echo out; sleep 0.1; echo err >&2; sleep 0.1; printf partial';
        const task = taskOf({ kind: 'shell', script });
        await run(task);
        await exited(task.id);
        const records = await logs({ taskId: task.id });
        assert.deepEqual(
          records.map((record) => `${record.stream} ${record.line}`),
          ['stdout out', 'stderr err', 'stdout partial'],
        );
      });

      test('environment, unset names and the working folder are the spec’s', async () => {
        const task = taskOf(
          { kind: 'shell', script: 'echo "$GREETING|$EMPTY|${LANG-none}"; pwd' },
          { env: ['GREETING=a b=c', 'EMPTY=', 'LANG'], dir: '/tmp' },
        );
        await run(task);
        await exited(task.id);
        assert.deepEqual(
          (await logs({ taskId: task.id })).map((record) => record.line),
          ['a b=c||none', '/tmp'],
        );
      });

      test('the stop signal of the spec is used', async () => {
        const script = 'trap "exit 42" USR1; trap "" TERM; echo ready; while :; do sleep 0.05; done';
        const task = taskOf({ kind: 'shell', script }, { stopSignal: 'SIGUSR1' });
        await run(task);
        await waitFor('the trap', async () => (await logs({ taskId: task.id })).length === 1);
        await runtime.stop(task.id, signal());
        assert.equal((await exited(task.id)).container.exitCode, 42);
      });

      test('secrets and configs are files of the task', async () => {
        const [secret, config] = ['s'.repeat(25) as SecretId, 'c'.repeat(25) as ConfigId];
        const mode = { uid: '0', gid: '0', mode: 0o400 };
        const script = `cat ${harness.kind === 'process' ? '$SWARMD_SECRETS/key etc/app.conf' : '/run/secrets/key /etc/app.conf'}`;
        const task = taskOf(
          { kind: 'shell', script },
          {
            secrets: [{ id: secret, name: 'key', file: { name: 'key', ...mode } }],
            configs: [{ id: config, name: 'conf', file: { name: '/etc/app.conf', ...mode } }],
          },
        );
        const setup = {
          ...plainSetup,
          secrets: new Map([[secret as string, Buffer.from('hidden\n')]]),
          configs: new Map([[config as string, Buffer.from('shown\n')]]),
        };
        await runtime.prepare(task, signal());
        await runtime.create(task, setup, signal());
        await runtime.start(task.id, signal());
        assert.equal((await exited(task.id)).container.exitCode, 0);
        assert.deepEqual(
          (await logs({ taskId: task.id })).map((record) => record.line),
          ['hidden', 'shown'],
        );
      });

      test('health goes from starting to healthy, and to unhealthy when checks fail', async () => {
        const healthCheck = { intervalMs: 100, timeoutMs: 2_000, retries: 2 };
        const good = taskOf(
          { kind: 'forever' },
          { healthCheck: { ...healthCheck, test: ['CMD-SHELL', 'exit 0'] } },
        );
        const bad = taskOf({ kind: 'forever' }, { healthCheck: { ...healthCheck, test: ['CMD', 'false'] } });
        await run(good);
        await run(bad);
        const health = (task: Task, wanted: string): Promise<boolean> =>
          waitFor(`${wanted}`, async () => (await runtime.inspect(task.id, signal()))?.health === wanted);
        await health(good, 'healthy');
        await health(bad, 'unhealthy');
        await waitFor('events', () => events.has(good.id) && events.has(bad.id));
      });

      test('a command that does not exist is refused with its name', async () => {
        const task = taskOf({ kind: 'forever' }, { command: ['no-such-command-here'], args: [] });
        await assert.rejects(run(task), /no-such-command-here/);
      });

      test('a memory limit is enforced and named as the cause', async (t) => {
        const script = 'x=a; while :; do x="$x$x$x$x"; done';
        const task = makeTask({
          spec: { runtime: harness.kind, resources: { limits: { memoryBytes: 32 * 1024 * 1024 } } },
          container: harness.container({ kind: 'shell', script }),
        });
        await run(task);
        const note = (await runtime.inspect(task.id, signal()))?.note;
        if (note !== undefined) {
          await runtime.remove(task.id, signal());
          t.skip(note);
          return;
        }
        assert.match((await exited(task.id)).error, /out of memory/);
      });
    }
  });
}
