import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { progressView } from '../../../src/cli/progress-view.ts';
import { defaultServiceSpec } from '../../../src/model/defaults.ts';
import type { ServiceView } from '../../../src/model/api.ts';
import type { Task, UpdateStatus } from '../../../src/model/objects.ts';
import type { ServiceMode } from '../../../src/model/spec.ts';
import type { TaskState } from '../../../src/model/task-state.ts';
import { TestCli } from '../../support/cli.ts';
import { FakeApi } from '../../support/fake-api.ts';

function service(api: FakeApi, mode: ServiceMode, change: Partial<ServiceView> = {}): ServiceView {
  api.settle = () => {};
  return { ...api.addService({ ...defaultServiceSpec, name: 'web', mode }), ...change };
}

function status(state: TaskState, text: { message?: string; error?: string } = {}): Task['status'] {
  return { state, at: 0, message: text.message ?? '', error: text.error ?? '' };
}

const three: ServiceMode = { kind: 'replicated', replicas: 3 };

describe('the progress of a replicated service', () => {
  it('says why a task that is tried again does not get on', () => {
    const api = new FakeApi();
    const web = service(api, three);
    const task = api.addTask(web, {
      slot: 1,
      status: status('preparing', { error: 'the registry is away' }),
    });
    const view = progressView(web, api.tasks, api.nodes);
    assert.deepEqual(view.errors, [`task ${task.id.slice(0, 12)} preparing: the registry is away`]);
  });

  it('has a line a slot and is done when all run', () => {
    const api = new FakeApi();
    const web = service(api, three);
    assert.deepEqual(progressView(web, api.tasks, api.nodes).lines, [
      'overall progress: 0 out of 3 tasks',
      '1/3: waiting',
      '2/3: waiting',
      '3/3: waiting',
    ]);
    api.addTask(web, { slot: 1 });
    api.addTask(web, { slot: 2, status: status('starting') });
    api.addTask(web, { slot: 3, status: status('pending', { message: 'no suitable node (x)' }) });
    const view = progressView(web, api.tasks, api.nodes);
    assert.equal(view.state, 'progressing');
    assert.deepEqual(view.lines, [
      'overall progress: 1 out of 3 tasks',
      '1/3: running   [========>]',
      '2/3: starting  [=======> ]',
      '3/3: pending   [==>      ] no suitable node (x)',
    ]);
    assert.deepEqual(view.errors, ['no suitable node (x)']);
  });

  it('does not count tasks of the old spec', () => {
    const api = new FakeApi();
    const before = service(api, three);
    for (const slot of [1, 2, 3]) api.addTask(before, { slot });
    const container = { ...before.spec.task.container, image: 'new' };
    const after = {
      ...before,
      specVersion: before.specVersion + 5,
      spec: { ...before.spec, task: { ...before.spec.task, container } },
    };
    assert.equal(progressView(before, api.tasks, api.nodes).state, 'converged');
    assert.equal(progressView(after, api.tasks, api.nodes).done, 0);
  });

  it('counts tasks that only the placement told apart', () => {
    const api = new FakeApi();
    const before = service(api, { kind: 'replicated', replicas: 1 });
    api.addTask(before);
    const placement = { ...before.spec.task.placement, constraints: ['node.role==manager'] };
    const after = {
      ...before,
      specVersion: before.specVersion + 5,
      spec: { ...before.spec, task: { ...before.spec.task, placement } },
    };
    assert.equal(progressView(after, api.tasks, api.nodes).state, 'converged');
  });

  it('waits for tasks that are to go, and for the update to end', () => {
    const api = new FakeApi();
    const web = service(api, { kind: 'replicated', replicas: 1 });
    api.addTask(web, { slot: 1 });
    api.addTask(web, { slot: 2 });
    assert.equal(progressView(web, api.tasks, api.nodes).state, 'progressing');
    const updating: UpdateStatus = { state: 'updating', startedAt: 0, message: '' };
    const one = api.tasks.slice(0, 1);
    assert.equal(progressView({ ...web, updateStatus: updating }, one, api.nodes).state, 'progressing');
    assert.equal(progressView(web, one, api.nodes).state, 'converged');
  });

  it('ends with a paused update or a rollback', () => {
    const api = new FakeApi();
    const web = service(api, three);
    for (const [state, wanted] of [
      ['paused', 'paused'],
      ['rollback_completed', 'rolled-back'],
      ['rollback_paused', 'rollback-paused'],
    ] as const) {
      const view = progressView(
        { ...web, updateStatus: { state, startedAt: 0, message: 'why' } },
        [],
        api.nodes,
      );
      assert.deepEqual([view.state, view.message], [wanted, 'why']);
    }
  });

  it('tells the errors of the current spec', () => {
    const api = new FakeApi();
    const web = service(api, { kind: 'replicated', replicas: 1 });
    const task = api.addTask(web, {
      desiredState: 'shutdown',
      status: status('failed', { error: 'task: non-zero exit (1)' }),
    });
    const { errors, lines } = progressView(web, api.tasks, api.nodes);
    assert.deepEqual(errors, [`task ${task.id.slice(0, 12)} failed: task: non-zero exit (1)`]);
    assert.equal(lines[1], '1/1: failed (task: non-zero exit (1))');
  });

  it('is one line for many slots, and done at once for none', () => {
    const api = new FakeApi();
    assert.equal(
      progressView(service(api, { kind: 'replicated', replicas: 21 }), [], api.nodes).lines.length,
      1,
    );
    assert.equal(
      progressView(service(api, { kind: 'replicated', replicas: 0 }), [], api.nodes).state,
      'converged',
    );
  });
});

describe('the progress of other modes', () => {
  it('global: a line a node', () => {
    const api = new FakeApi();
    const agent = service(api, { kind: 'global' });
    api.addTask(agent, { slot: 0 });
    const view = progressView(agent, api.tasks, api.nodes);
    assert.deepEqual(view.lines, ['overall progress: 1 out of 1 tasks', 'alpha: running   [========>]']);
    assert.equal(view.state, 'converged');
  });

  it('jobs: completions of this run', () => {
    const api = new FakeApi();
    const job = service(
      api,
      { kind: 'replicated-job', maxConcurrent: 1, totalCompletions: 2 },
      { jobIteration: 2 },
    );
    api.addTask(job, { jobIteration: 1, status: status('complete'), desiredState: 'complete' });
    api.addTask(job, { jobIteration: 2, status: status('complete'), desiredState: 'complete' });
    assert.deepEqual(progressView(job, api.tasks, api.nodes).lines, [
      'job progress: 1 out of 2 complete',
      'active tasks: 0',
    ]);
    api.addTask(job, { jobIteration: 2, status: status('complete'), desiredState: 'complete' });
    assert.equal(progressView(job, api.tasks, api.nodes).state, 'converged');
  });
});

describe('waiting', () => {
  /** An update that ends in `state`. */
  async function update(
    state: UpdateStatus['state'],
    ...flags: readonly string[]
  ): Promise<{ exitCode: number; stderr: string }> {
    const cli = new TestCli();
    await cli.run('service', 'create', '-d', '--name', 'web', 'nginx:1');
    cli.api.settle = (web) =>
      cli.api.put({ ...web, updateStatus: { state, startedAt: 0, message: 'the reason' } });
    return cli.run('service', 'update', ...flags, '--image', 'nginx:2', 'web');
  }

  it('exits with 1 when the update pauses', async () => {
    const { exitCode, stderr } = await update('paused');
    assert.deepEqual([exitCode, stderr], [1, 'Error: the reason\n']);
  });

  it('exits with 0 after an automatic rollback, with 1 when strict', async () => {
    assert.equal((await update('rollback_completed')).exitCode, 0);
    assert.equal((await update('rollback_completed', '--strict')).exitCode, 1);
    assert.equal((await update('rollback_paused')).exitCode, 1);
  });

  it('exits with 0 at Ctrl-C and says how to look', async () => {
    const cli = new TestCli();
    cli.api.settle = () => setImmediate(() => cli.interrupt.abort(new Error('interrupted')));
    const { exitCode, stderr } = await cli.run('service', 'create', '--name', 'web', 'nginx');
    assert.equal(exitCode, 0);
    assert.match(stderr, /goes on without this command\. To look: swarmd service ps web/);
  });

  it('redraws on a terminal', async () => {
    const cli = new TestCli();
    cli.isTty = true;
    const { stdout } = await cli.run('service', 'create', '--name', 'web', 'nginx');
    assert.ok(
      stdout.includes('\u001B[3A\r\u001B[2Koverall progress: 1 out of 1 tasks\n'),
      JSON.stringify(stdout.slice(0, 300)),
    );
  });
});
