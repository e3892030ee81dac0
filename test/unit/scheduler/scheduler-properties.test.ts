import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { planScheduling } from '../../../src/manager/scheduler/scheduler.ts';
import { constraintsHold, parseConstraints } from '../../../src/model/constraint.ts';
import type { ClusterNode, Task } from '../../../src/model/objects.ts';
import type { PortConfig } from '../../../src/model/spec.ts';
import {
  applyAll,
  makeNode,
  makeStore,
  makeTask,
  makeTaskSpec,
  planContext,
} from '../../support/planner-fixtures.ts';

const nodes = fc
  .array(
    fc.record({
      zone: fc.constantFrom('a', 'b', ''),
      cpus: fc.integer({ min: 0, max: 4 }),
      memory: fc.integer({ min: 0, max: 4 }),
      gpus: fc.integer({ min: 0, max: 2 }),
      state: fc.constantFrom('ready', 'ready', 'down', 'unknown'),
      availability: fc.constantFrom('active', 'active', 'pause', 'drain'),
      runtimes: fc.subarray(['docker', 'process']),
    }),
    { maxLength: 6 },
  )
  .map((list) =>
    list.map((item, index) =>
      makeNode(`n${index}`, {
        state: item.state as ClusterNode['status']['state'],
        spec: {
          labels: item.zone === '' ? {} : { zone: item.zone },
          availability: item.availability as ClusterNode['spec']['availability'],
        },
        description: {
          runtimes: item.runtimes as ClusterNode['description']['runtimes'],
          resources: {
            nanoCpus: item.cpus * 1e9,
            memoryBytes: item.memory * 1e9,
            generic: { gpu: item.gpus },
          },
        },
      }),
    ),
  );

const services = fc
  .array(
    fc.record({
      replicas: fc.integer({ min: 1, max: 8 }),
      cpus: fc.integer({ min: 0, max: 2 }),
      memory: fc.integer({ min: 0, max: 2 }),
      gpus: fc.integer({ min: 0, max: 1 }),
      constraint: fc.constantFrom('', 'node.labels.zone==a', 'node.labels.zone!=a', 'node.id==n1'),
      spread: fc.boolean(),
      max: fc.integer({ min: 0, max: 2 }),
      hostPort: fc.constantFrom(0, 0, 8080),
      runtime: fc.constantFrom('docker', 'process'),
    }),
    { maxLength: 4 },
  )
  .map((list) =>
    list.flatMap((item, index) => {
      const ports: readonly PortConfig[] =
        item.hostPort === 0
          ? []
          : [{ protocol: 'tcp', targetPort: 80, publishedPort: item.hostPort, publishMode: 'host' }];
      const spec = makeTaskSpec({
        runtime: item.runtime as 'docker' | 'process',
        resources: {
          reservations: {
            nanoCpus: item.cpus * 1e9,
            memoryBytes: item.memory * 1e9,
            ...(item.gpus === 0 ? {} : { generic: { gpu: item.gpus } }),
          },
        },
        placement: {
          constraints: item.constraint === '' ? [] : [item.constraint],
          preferences: item.spread ? [{ spread: 'node.labels.zone' }] : [],
          maxReplicasPerNode: item.max,
        },
      });
      return Array.from({ length: item.replicas }, (_, slot) =>
        makeTask(`s${index}t${slot}`, { service: `s${index}`, slot: slot + 1, spec, endpointPorts: ports }),
      );
    }),
  );

function assertSound(node: ClusterNode, tasks: readonly Task[]): void {
  const used = { nanoCpus: 0, memoryBytes: 0, gpus: 0 };
  const ports = new Set<number>();
  const byService = new Map<string, number>();
  for (const task of tasks) {
    const constraints = parseConstraints(task.spec.placement.constraints);
    assert.ok(constraints.ok && constraintsHold(constraints.value, node));
    assert.ok(node.status.state === 'ready' && node.spec.availability === 'active');
    assert.ok(node.description.runtimes.includes(task.spec.runtime));
    used.nanoCpus += task.spec.resources.reservations?.nanoCpus ?? 0;
    used.memoryBytes += task.spec.resources.reservations?.memoryBytes ?? 0;
    used.gpus += task.genericResources?.['gpu'] ?? 0;
    for (const { publishedPort } of task.endpointPorts) {
      assert.ok(!ports.has(publishedPort), 'a host port is given once');
      ports.add(publishedPort);
    }
    const count = (byService.get(task.serviceId) ?? 0) + 1;
    byService.set(task.serviceId, count);
    const { maxReplicasPerNode } = task.spec.placement;
    assert.ok(maxReplicasPerNode === 0 || count <= maxReplicasPerNode);
  }
  const { nanoCpus, memoryBytes, generic } = node.description.resources;
  assert.ok(
    used.nanoCpus <= nanoCpus && used.memoryBytes <= memoryBytes && used.gpus <= (generic['gpu'] ?? 0),
  );
}

test('no node is over-committed, every filter holds, and what is left says why', () => {
  fc.assert(
    fc.property(nodes, services, (nodeList, taskList) => {
      const store = makeStore({ nodes: nodeList, tasks: taskList });
      applyAll(store, planScheduling(store, planContext()).actions);
      for (const node of nodeList) assertSound(node, [...store.tasksOfNode(node.id)]);
      for (const task of store.all('task')) {
        if (task.status.state === 'assigned') assert.notEqual(task.nodeId, '');
        else assert.match(task.status.error, /^no suitable node/);
      }
      assert.deepEqual(planScheduling(store, planContext()).actions, [], 'a second plan has nothing to add');
    }),
    { numRuns: 300 },
  );
});

test('the same state gives the same plan, in whatever order nodes were stored', () => {
  fc.assert(
    fc.property(nodes, services, (nodeList, taskList) => {
      const forward = makeStore({ nodes: nodeList, tasks: taskList });
      const backward = makeStore({ nodes: nodeList.toReversed(), tasks: taskList });
      const plan = planScheduling(forward, planContext()).actions;
      assert.deepEqual(planScheduling(forward, planContext()).actions, plan);
      assert.deepEqual(planScheduling(backward, planContext()).actions, plan);
    }),
    { numRuns: 100 },
  );
});

test('on equal nodes the tasks of a service differ by one at most, whatever runs there already', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 8 }),
      fc.integer({ min: 1, max: 40 }),
      fc.array(fc.integer({ min: 0, max: 7 }), { maxLength: 20 }),
      (nodeCount, replicas, others) => {
        const store = makeStore({
          nodes: Array.from({ length: nodeCount }, (_, index) => makeNode(`n${index}`)),
          tasks: [
            ...others.map((on, index) =>
              makeTask(`o${index}`, {
                service: 'other',
                node: `n${on % nodeCount}`,
                status: { state: 'running' },
              }),
            ),
            ...Array.from({ length: replicas }, (_, index) => makeTask(`t${index}`)),
          ],
        });
        applyAll(store, planScheduling(store, planContext()).actions);
        const counts = Array.from(
          store.all('node'),
          (node) => [...store.tasksOfNode(node.id)].filter((task) => task.serviceId === 'svc').length,
        );
        assert.ok(Math.max(...counts) - Math.min(...counts) <= 1, counts.join());
      },
    ),
  );
});

test('spread preferences even out the branches before the nodes', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 30 }),
      (zoneSizes, replicas) => {
        const spec = makeTaskSpec({ placement: { preferences: [{ spread: 'node.labels.zone' }] } });
        const store = makeStore({
          nodes: zoneSizes.flatMap((size, zone) =>
            Array.from({ length: size }, (_, index) =>
              makeNode(`z${zone}n${index}`, { spec: { labels: { zone: `${zone}` } } }),
            ),
          ),
          tasks: Array.from({ length: replicas }, (_, index) => makeTask(`t${index}`, { spec })),
        });
        applyAll(store, planScheduling(store, planContext()).actions);
        const perZone = zoneSizes.map((size, zone) => {
          const counts = Array.from({ length: size }, (_, index) =>
            store.get('node', `z${zone}n${index}`),
          ).map((node) => (node === undefined ? 0 : [...store.tasksOfNode(node.id)].length));
          assert.ok(Math.max(...counts) - Math.min(...counts) <= 1);
          return counts.reduce((sum, count) => sum + count, 0);
        });
        assert.ok(Math.max(...perZone) - Math.min(...perZone) <= 1, perZone.join());
      },
    ),
  );
});
