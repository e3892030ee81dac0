/** Global services: one task for each node that fits, and what becomes of it when the node changes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeVerdict } from '../../../src/manager/orchestrator/global.ts';
import { FakeCluster } from '../../support/fake-cluster.ts';
import { makeNode, makeService, makeTaskSpec, type NodeOptions } from '../../support/planner-fixtures.ts';

const constraints = ['node.labels.zone==a'];
const platforms = [{ os: 'linux', architecture: 'amd64' }];

const verdicts: readonly [
  string,
  NodeOptions,
  Parameters<typeof makeTaskSpec>[0],
  'run' | 'keep' | 'stop',
][] = [
  ['a ready node', {}, {}, 'run'],
  ['an unknown node', { state: 'unknown' }, {}, 'run'],
  ['a node that is down', { state: 'down' }, {}, 'stop'],
  ['a drained node', { spec: { availability: 'drain' } }, {}, 'stop'],
  ['a paused node', { spec: { availability: 'pause' } }, {}, 'keep'],
  ['a node without the runtime', { description: { runtimes: ['process'] } }, {}, 'keep'],
  ['a node that constraints leave out', {}, { placement: { constraints } }, 'stop'],
  [
    'a node that constraints take',
    { spec: { labels: { zone: 'a' } } },
    { placement: { constraints } },
    'run',
  ],
  ['a node of the platform by its other name', {}, { placement: { platforms } }, 'run'],
  [
    'a node of another platform',
    { description: { platform: { os: 'linux', architecture: 'aarch64' } } },
    { placement: { platforms } },
    'stop',
  ],
  ['a constraint that cannot be read', {}, { placement: { constraints: ['nonsense'] } }, 'stop'],
];

for (const [title, node, task, expected] of verdicts) {
  test(`${title}: ${expected}`, () => {
    const service = makeService('svc', { spec: { mode: { kind: 'global' }, task: makeTaskSpec(task) } });
    assert.equal(nodeVerdict(service)(makeNode('n', node)), expected);
  });
}

function globalCluster(nodes = 3): FakeCluster {
  const cluster = new FakeCluster({ nodes });
  const task = makeTaskSpec({ placement: { constraints: ['node.labels.skip!=yes'] } });
  cluster.create({ mode: { kind: 'global' }, task });
  cluster.settle();
  return cluster;
}

function nodesUp(cluster: FakeCluster): string[] {
  return cluster
    .up()
    .map((task) => task.nodeId as string)
    .toSorted();
}

test('every node gets one task, in slot 0 and with its node set from the start; a new node too', () => {
  const cluster = globalCluster();
  assert.deepEqual(nodesUp(cluster), ['n1', 'n2', 'n3']);
  assert.ok(cluster.tasks().every((task) => task.slot === 0));
  cluster.addNode('n4');
  cluster.turn();
  assert.deepEqual(cluster.active().filter((task) => task.nodeId === 'n4').length, 1);
  cluster.settle();
  assert.deepEqual(nodesUp(cluster), ['n1', 'n2', 'n3', 'n4']);
});

test('a drained node loses its task and gets another when it is active again', () => {
  const cluster = globalCluster();
  cluster.setNode('n1', 'ready', 'drain');
  cluster.advance(60_000);
  assert.deepEqual(nodesUp(cluster), ['n2', 'n3']);
  assert.equal(cluster.active().length, 2);
  cluster.setNode('n1', 'ready', 'active');
  cluster.settle();
  assert.deepEqual(nodesUp(cluster), ['n1', 'n2', 'n3']);
});

test('a node that comes back stops its old task and runs a new one', () => {
  const cluster = globalCluster();
  const old = cluster.active().find((task) => task.nodeId === 'n1');
  cluster.setNode('n1', 'down');
  cluster.settle();
  assert.equal(cluster.active().length, 2);
  cluster.setNode('n1', 'ready');
  cluster.settle();
  assert.deepEqual(nodesUp(cluster), ['n1', 'n2', 'n3']);
  assert.equal(cluster.store.get('task', old?.id ?? '')?.status.state, 'shutdown');
});

test('a node that no longer fits the constraints is asked to stop', () => {
  const cluster = globalCluster();
  const node = cluster.node('n2');
  const spec = { ...node.spec, labels: { skip: 'yes' } };
  cluster.apply([{ kind: 'update', table: 'node', object: { ...node, spec }, expect: node.meta.version }]);
  cluster.settle();
  assert.deepEqual(nodesUp(cluster), ['n1', 'n3']);
});

test('a paused node keeps its task; one that fails there is shut down and not replaced', () => {
  const cluster = globalCluster();
  cluster.setNode('n1', 'ready', 'pause');
  cluster.advance(60_000);
  assert.deepEqual(nodesUp(cluster), ['n1', 'n2', 'n3']);
  const [task] = cluster.active().filter((one) => one.nodeId === 'n1');
  assert.ok(task !== undefined);
  cluster.report(task, 'failed');
  cluster.advance(60_000);
  assert.equal(cluster.store.get('task', task.id)?.desiredState, 'shutdown');
  assert.deepEqual(nodesUp(cluster), ['n2', 'n3']);
  cluster.setNode('n1', 'ready', 'active');
  cluster.settle();
  assert.deepEqual(nodesUp(cluster), ['n1', 'n2', 'n3']);
});

test('a failed task is replaced on its own node after the delay', () => {
  const cluster = globalCluster();
  const [task] = cluster.active().filter((one) => one.nodeId === 'n3');
  assert.ok(task !== undefined);
  cluster.report(task, 'failed');
  cluster.advance(4_999);
  assert.deepEqual(nodesUp(cluster), ['n1', 'n2']);
  cluster.advance(1);
  assert.deepEqual(nodesUp(cluster), ['n1', 'n2', 'n3']);
});

test('tasks of a removed node go', () => {
  const cluster = globalCluster();
  cluster.removeNode('n2');
  cluster.settle();
  assert.deepEqual(nodesUp(cluster), ['n1', 'n3']);
  assert.ok(cluster.tasks().every((task) => task.nodeId !== 'n2'));
});

test('a removed global service leaves nothing behind', () => {
  const cluster = globalCluster();
  cluster.remove();
  cluster.settle();
  assert.equal(cluster.store.count('task') + cluster.store.count('service'), 0);
});
