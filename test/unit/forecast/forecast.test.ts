/** Forecasts and explanations: they say what the planners do, and leave nothing behind. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { explainService, explainTask } from '../../../src/manager/forecast/explain.ts';
import { forecastChange, forecastNodes } from '../../../src/manager/forecast/forecast.ts';
import type { Store } from '../../../src/manager/state/store.ts';
import type { Action } from '../../../src/manager/state/actions.ts';
import type { Forecast } from '../../../src/model/forecast.ts';
import type { Service } from '../../../src/model/objects.ts';
import {
  makeNode,
  makeService,
  makeStore,
  makeTask,
  makeTaskSpec,
  NOW_MS,
  planContext,
} from '../../support/planner-fixtures.ts';

const GIB = 1024 ** 3;

function replicated(id: string, replicas: number, task = makeTaskSpec()): Service {
  return makeService(id, { spec: { mode: { kind: 'replicated', replicas }, task } });
}

function running(id: string, service: string, node: string, slot: number) {
  return makeTask(id, { service, node, slot, status: { state: 'running' } });
}

function forecast(store: Store, change: readonly Action[]): Forecast {
  const outcome = forecastChange(store, change, planContext());
  assert.equal(outcome.kind, 'forecast');
  return (outcome as Extract<typeof outcome, { kind: 'forecast' }>).forecast;
}

function whatif(store: Store, lose: readonly string[], drain: readonly string[]): Forecast {
  const nodes = (ids: readonly string[]) => ids.map((id) => store.get('node', id)!);
  const outcome = forecastNodes(store, { lose: nodes(lose), drain: nodes(drain) }, planContext());
  assert.equal(outcome.kind, 'forecast');
  return (outcome as Extract<typeof outcome, { kind: 'forecast' }>).forecast;
}

const lines = ({ moves }: Forecast): string[] =>
  moves.map(({ kind, name, from, to, reason }) => [kind, name, from, to, reason].filter(Boolean).join(' '));

describe('a dry run', () => {
  it('shows where tasks of a new service would go, and changes nothing', () => {
    const store = makeStore({ nodes: [makeNode('a'), makeNode('b')] });
    const digest = store.digest();
    const create: Action = { kind: 'create', table: 'service', object: replicated('web', 3) };
    const found = forecast(store, [create]);
    assert.deepEqual(lines(found), ['create web.1 host-a', 'create web.2 host-b', 'create web.3 host-a']);
    assert.deepEqual(found.shortages, []);
    assert.equal(found.settled, true);
    assert.equal(store.digest(), digest);
  });

  it('names what would stay pending, with the reason of the scheduler', () => {
    const store = makeStore({ nodes: [makeNode('a')] });
    const task = makeTaskSpec({
      resources: { reservations: { nanoCpus: 0, memoryBytes: 5 * GIB, generic: {} } },
    });
    const found = forecast(store, [{ kind: 'create', table: 'service', object: replicated('db', 2, task) }]);
    assert.deepEqual(lines(found), [
      'create db.1 host-a',
      'pending db.2 no suitable node (insufficient resources on 1 node)',
    ]);
    assert.deepEqual(found.shortages, [{ service: 'db', wanted: 2, running: 1 }]);
  });

  it('follows a rolling update to its end', () => {
    const web = replicated('web', 2);
    const store = makeStore({
      nodes: [makeNode('a'), makeNode('b')],
      services: [web],
      tasks: [running('t1', 'web', 'a', 1), running('t2', 'web', 'b', 2)],
    });
    const current = store.get('service', 'web')!;
    const task = makeTaskSpec({ container: { image: 'app:2' } });
    const object = {
      ...current,
      spec: { ...current.spec, task },
      specVersion: 2,
      previousSpec: current.spec,
      previousSpecVersion: 1,
    };
    const found = forecast(store, [
      { kind: 'update', table: 'service', object, expect: current.meta.version },
    ]);
    assert.deepEqual(lines(found), ['replace web.1 host-a host-a', 'replace web.2 host-b host-b']);
    assert.equal(found.settled, true);
  });
});

describe('what if', () => {
  const world = {
    nodes: ['a', 'b', 'c'].map((id, at) => ({
      ...makeNode(id),
      manager: { raftId: at + 1, address: '10.9.0.1' },
    })),
    services: [replicated('web', 3)],
    tasks: [running('t1', 'web', 'a', 1), running('t2', 'web', 'b', 2), running('t3', 'web', 'c', 3)],
  };

  it('says where tasks of a lost node would go, and that the managers left suffice', () => {
    const found = whatif(makeStore(world), ['c'], []);
    assert.deepEqual(lines(found), ['move web.3 host-c host-a']);
    assert.deepEqual(found.quorum, { managers: 3, left: 2, needed: 2, lost: false });
  });

  it('says that the quorum would be lost', () => {
    assert.equal(whatif(makeStore(world), ['b', 'c'], []).quorum?.lost, true);
  });

  it('a drained node loses its tasks and keeps its vote', () => {
    const found = whatif(makeStore(world), [], ['a', 'b', 'c']);
    assert.equal(found.quorum, null);
    assert.deepEqual(found.shortages, [{ service: 'web', wanted: 3, running: 0 }]);
    assert.match(lines(found)[0] ?? '', /^pending web\.1 host-a no suitable node \(3 nodes not available/);
  });
});

describe('explain', () => {
  it('tells for each node the filters it fails, in the order of the scheduler, and what would help', () => {
    const task = makeTaskSpec({ placement: { constraints: ['node.labels.disk==ssd'] } });
    const store = makeStore({
      nodes: [
        makeNode('a', { spec: { availability: 'drain' } }),
        makeNode('b'),
        makeNode('c', { state: 'down' }),
      ],
      services: [replicated('db', 1, task)],
      tasks: [makeTask('t1', { service: 'db', spec: task, status: { error: 'no suitable node' } })],
    });
    const found = explainTask(store, store.get('task', 't1')!, NOW_MS);
    assert.deepEqual(
      found.nodes.map((node) => [node.hostname, node.refusals.map((one) => `${one.filter}: ${one.reason}`)]),
      [
        ['host-a', ['ready: availability is drain', 'constraints: does not meet node.labels.disk==ssd']],
        ['host-b', ['constraints: does not meet node.labels.disk==ssd']],
        ['host-c', ['ready: is down', 'constraints: does not meet node.labels.disk==ssd']],
      ],
    );
    assert.equal(found.task.reason, 'no suitable node');
    assert.match(found.task.help[0] ?? '', /^host-b does not meet .*label the node/);
  });

  it('ranks nodes as the scheduler would use them: fewer tasks first, those with failures last', () => {
    const failed = Array.from({ length: 5 }, (_, at) =>
      makeTask(`f${at}`, {
        service: 'web',
        node: 'c',
        desiredState: 'shutdown',
        status: { state: 'failed' },
      }),
    );
    const store = makeStore({
      nodes: [makeNode('a'), makeNode('b'), makeNode('c')],
      services: [replicated('web', 1)],
      tasks: [running('t1', 'web', 'a', 1), ...failed],
    });
    const found = explainService(store, store.get('service', 'web')!, NOW_MS);
    assert.deepEqual(
      found.nodes.map(({ hostname, rank, avoided }) => [hostname, rank, avoided]),
      [
        ['host-b', 1, false],
        ['host-a', 2, false],
        ['host-c', 3, true],
      ],
    );
    assert.equal(found.tasks[0]?.state, 'running');
  });

  it('counts tasks by branch of each preference', () => {
    const task = makeTaskSpec({ placement: { preferences: [{ spread: 'node.labels.zone' }] } });
    const zone = (id: string, value: string) => makeNode(id, { spec: { labels: { zone: value } } });
    const store = makeStore({
      nodes: [zone('a', 'x'), zone('b', 'x'), zone('c', 'y')],
      services: [replicated('web', 1, task)],
      tasks: [running('t1', 'web', 'a', 1)],
    });
    const found = explainService(store, store.get('service', 'web')!, NOW_MS);
    assert.equal(found.nodes[0]?.hostname, 'host-c');
    assert.deepEqual(
      found.nodes.map((node) => node.branches.map(({ value, serviceTasks }) => [value, serviceTasks])),
      [[['y', 0]], [['x', 1]], [['x', 1]]],
    );
  });
});
