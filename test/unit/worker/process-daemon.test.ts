import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { systemRandom } from '../../../src/base/random.ts';
import { writeRun } from '../../../src/worker/process-folder.ts';
import { ProcessRuntime } from '../../../src/worker/process-runtime.ts';
import { isAlive, parseStat, readBootId, readStat } from '../../../src/worker/process-shim.ts';
import { waitFor } from '../../support/wait.ts';
import { makeTask, plainSetup } from '../../support/worker-fixtures.ts';

const signal = (): AbortSignal => AbortSignal.timeout(30_000);
const open = (dataDir: string, logBytesMax?: number): ProcessRuntime =>
  new ProcessRuntime(
    { dataDir, nodeId: 'n1', ...(logBytesMax === undefined ? {} : { logBytesMax }) },
    { clock: systemClock(), random: systemRandom(), log: silentLogger },
  );
const folderFor = (t: { after(hook: () => Promise<void>): void }): Promise<string> =>
  mkdtemp(join(tmpdir(), 'swarmd-daemon-')).then((dataDir) => {
    t.after(() => rm(dataDir, { recursive: true, force: true }));
    return dataDir;
  });

test('tasks outlive a daemon that is killed; their codes and output are found', async (t) => {
  const dataDir = await folderFor(t);
  const keeps = makeTask({
    container: { command: ['sh', '-c', 'trap "exit 9" TERM; echo up; while :; do sleep 0.05; done'] },
  });
  const ends = makeTask({ container: { command: ['sh', '-c', 'echo begin; sleep 0.5; echo end; exit 7'] } });
  const list = join(dataDir, 'tasks.json');
  await writeFile(list, JSON.stringify([keeps, ends]));
  const script = new URL('./testdata/process-daemon.ts', import.meta.url).pathname;
  const daemon = spawn(process.execPath, [script, dataDir, list], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(daemon.stdout, 'data');
  daemon.kill('SIGKILL');
  await once(daemon, 'exit');

  const runtime = open(dataDir);
  t.after(() => runtime.close());
  const states = await runtime.list(signal());
  assert.equal(states.find((state) => state.taskId === keeps.id)?.phase, 'running');
  const state = await waitFor('the end', async () => {
    const seen = await runtime.inspect(ends.id, signal());
    return seen?.phase === 'exited' && seen;
  });
  assert.deepEqual([state.container.exitCode, state.error], [7, '']);
  const lines: string[] = [];
  const request = { taskId: ends.id, follow: false, tail: null, sinceMs: null };
  for await (const record of runtime.logs(request, signal())) lines.push(record.line);
  assert.deepEqual(lines, ['begin', 'end']);
  await runtime.stop(keeps.id, signal());
  assert.equal((await runtime.inspect(keeps.id, signal()))?.container.exitCode, 9);
  for (const { id } of [keeps, ends]) await runtime.remove(id, signal());
});

test('a supervisor killed from outside takes the task with it, and that is said', async (t) => {
  const runtime = open(await folderFor(t));
  t.after(() => runtime.close());
  const task = makeTask({ container: { command: ['sleep', '60'] } });
  await runtime.create(task, plainSetup, signal());
  await runtime.start(task.id, signal());
  const pid = (await runtime.inspect(task.id, signal()))?.container.pid as number;
  process.kill(pid, 'SIGKILL');
  const state = await waitFor('the end', async () => {
    const seen = await runtime.inspect(task.id, signal());
    return seen?.phase === 'exited' && seen;
  });
  assert.equal(state.container.exitCode, 137);
  assert.match(state.error, /supervisor/);
  await runtime.remove(task.id, signal());
});

test('a pid that belongs to another process now is never taken for the task', async (t) => {
  const dataDir = await folderFor(t);
  const runtime = open(dataDir);
  t.after(() => runtime.close());
  const task = makeTask({ container: { command: ['sleep', '60'] } });
  await runtime.create(task, plainSetup, signal());
  const bystander = spawn('sleep', ['60'], { stdio: 'ignore' });
  t.after(async () => {
    bystander.kill('SIGKILL');
    await once(bystander, 'exit');
  });
  await once(bystander, 'spawn');
  const pid = bystander.pid as number;
  const startTicks = ((await readStat(pid))?.startTicks ?? 0) - 1;
  const run = { pid, startTicks, bootId: await readBootId(), startedAtMs: 0, note: '' };
  await writeRun(join(dataDir, 'tasks', task.id), run);
  assert.equal((await runtime.inspect(task.id, signal()))?.phase, 'exited');
  await runtime.stop(task.id, signal());
  await runtime.remove(task.id, signal());
  const stat = await readStat(pid);
  assert.equal(stat?.state === 'S' || stat?.state === 'R', true);
  assert.equal(await isAlive({ pid, startTicks: stat?.startTicks ?? 0, bootId: 'another boot' }), false);
});

test('what a task leaves in its session goes when its command ends', async (t) => {
  const runtime = open(await folderFor(t));
  t.after(() => runtime.close());
  const task = makeTask({ container: { command: ['sh', '-c', 'sleep 60 & echo $!; exit 0'] } });
  await runtime.create(task, plainSetup, signal());
  await runtime.start(task.id, signal());
  const pid = await waitFor('the output', async () => {
    for await (const record of runtime.logs(
      { taskId: task.id, follow: false, tail: null, sinceMs: null },
      signal(),
    )) {
      return record.line;
    }
    return undefined;
  });
  await waitFor('its end', async () => {
    const stat = await readStat(Number(pid));
    return stat === null || stat.state === 'Z';
  });
  await runtime.remove(task.id, signal());
});

test('a program that a signal ends leaves no more output than its own', async (t) => {
  const runtime = open(await folderFor(t));
  t.after(() => runtime.close());
  const task = makeTask({ container: { command: ['sh', '-c', 'echo own; kill -9 $$'] } });
  await runtime.create(task, plainSetup, signal());
  await runtime.start(task.id, signal());
  const lines: string[] = [];
  const request = { taskId: task.id, follow: true, tail: null, sinceMs: null };
  for await (const record of runtime.logs(request, signal())) lines.push(record.line);
  assert.deepEqual(lines, ['own']);
  assert.equal((await runtime.inspect(task.id, signal()))?.container.exitCode, 137);
  await runtime.remove(task.id, signal());
});

test('output is bounded: the file is cut, and the last lines stay', async (t) => {
  const dataDir = await folderFor(t);
  const runtime = open(dataDir, 20_000);
  t.after(() => runtime.close());
  const script =
    'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo "line $i of a rather long text"; done; sleep 60';
  const task = makeTask({ container: { command: ['sh', '-c', script] } });
  await runtime.create(task, plainSetup, signal());
  await runtime.start(task.id, signal());
  const log = join(dataDir, 'tasks', task.id, 'stdout.log');
  await waitFor('the cut', () => existsSync(`${log}.1`));
  const request = { taskId: task.id, follow: false, tail: 1, sinceMs: null };
  await waitFor('the last line', async () => {
    for await (const record of runtime.logs(request, signal())) {
      return record.line === 'line 3000 of a rather long text';
    }
    return false;
  });
  await runtime.remove(task.id, signal());
});

test('a task of another user runs as that user', {
  skip: process.getuid?.() !== 0 && 'needs root',
}, async (t) => {
  const runtime = open(await folderFor(t));
  t.after(() => runtime.close());
  const task = makeTask({
    container: { command: ['sh', '-c', 'id -u; id -g; touch own && echo done'], user: '65534:65533' },
  });
  await runtime.create(task, plainSetup, signal());
  await runtime.start(task.id, signal());
  const lines: string[] = [];
  const request = { taskId: task.id, follow: true, tail: null, sinceMs: null };
  for await (const record of runtime.logs(request, signal())) lines.push(record.line);
  assert.deepEqual(lines.slice(0, 2), ['65534', '65533']);
  await runtime.remove(task.id, signal());
});

test('what a process cannot have is refused with the way out', async (t) => {
  const runtime = open(await folderFor(t));
  t.after(() => runtime.close());
  const mounts = [{ type: 'volume' as const, source: 'data', target: '/data', readOnly: false }];
  for (const container of [
    {},
    { command: ['sleep', '1'], mounts },
    { command: ['sleep', '1'], tty: true },
    { command: ['sleep', '1'], user: 'nobody-of-that-name' },
    { command: ['sleep', '1'], stopSignal: 'SIGNONE' },
    { command: ['sleep', '1'], dir: '/no/such/folder' },
    { command: ['sleep', '1'], healthCheck: { test: ['WHAT'] } },
  ]) {
    const task = makeTask({ container });
    await assert.rejects(runtime.create(task, plainSetup, signal()), { code: 'INVALID_ARGUMENT' });
    assert.equal(await runtime.inspect(task.id, signal()), null);
  }
});

test('published ports: each task its own, in the environment, and picked anew when taken', async (t) => {
  const dataDir = await folderFor(t);
  const runtime = open(dataDir);
  t.after(() => runtime.close());
  const endpointPorts = [
    { protocol: 'tcp' as const, targetPort: 80, publishedPort: 30_000, publishMode: 'ingress' as const },
    { protocol: 'tcp' as const, targetPort: 81, publishedPort: 30_001, publishMode: 'ingress' as const },
  ];
  const command = ['sh', '-c', 'echo $PORT $PORT_80 $PORT_81'];
  const [one, two] = [
    makeTask({ endpointPorts, container: { command } }),
    makeTask({ endpointPorts, container: { command } }),
  ];
  const all: number[] = [];
  for (const task of [one, two]) {
    await runtime.create(task, plainSetup, signal());
    all.push(...((await runtime.inspect(task.id, signal()))?.ports ?? []).map((port) => port.hostPort));
  }
  assert.equal(new Set(all).size, 4);
  for (const port of all) assert.ok(port >= 20_000 && port < 30_000);

  const { createServer } = await import('node:net');
  const squatter = createServer();
  await new Promise<void>((resolve) => squatter.listen(all[0], '0.0.0.0', resolve));
  t.after(() => new Promise<void>((resolve) => void squatter.close(() => resolve())));
  await runtime.start(one.id, signal());
  const ports = ((await runtime.inspect(one.id, signal()))?.ports ?? []).map((port) => port.hostPort);
  assert.equal(ports.includes(all[0] as number), false);
  const lines: string[] = [];
  const request = { taskId: one.id, follow: true, tail: null, sinceMs: null };
  for await (const record of runtime.logs(request, signal())) lines.push(record.line);
  assert.deepEqual(lines, [`${ports[0]} ${ports[0]} ${ports[1]}`]);
  for (const { id } of [one, two]) await runtime.remove(id, signal());
});

test('the line of /proc/PID/stat, whatever the name of the command', () => {
  const tail = 'S 1 42 43 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1';
  assert.deepEqual(parseStat(`42 (a) b) (c) ${tail}`), {
    pid: 42,
    state: 'S',
    group: 42,
    session: 43,
    startTicks: 987_654,
  });
  assert.equal(parseStat('nonsense'), null);
});
