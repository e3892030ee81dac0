/**
 * How long one plan takes at size: `node bench/scheduler.ts [nodes] [tasks]`. Prints one line a case; asserts nothing.
 */
import { planAllocation } from '../src/manager/allocator/allocator.ts';
import { planEnforcement } from '../src/manager/orchestrator/constraint-enforcer.ts';
import { planScheduling } from '../src/manager/scheduler/scheduler.ts';
import type { Plan } from '../src/manager/state/planner.ts';
import type { Store } from '../src/manager/state/store.ts';
import type { NetworkId } from '../src/model/ids.ts';
import {
  applyAll,
  makeNetwork,
  makeNode,
  makeService,
  makeStore,
  makeTask,
  makeTaskSpec,
  planContext,
} from '../test/support/planner-fixtures.ts';

const nodeCount = Number(process.argv[2] ?? 1_000);
const taskCount = Number(process.argv[3] ?? 10_000);

type Overrides = Parameters<typeof makeTaskSpec>[0];

function world(services: number, state: 'new' | 'pending', spec: Overrides): Store {
  const taskSpec = makeTaskSpec(spec);
  return makeStore({
    nodes: Array.from({ length: nodeCount }, (_, index) =>
      makeNode(`n${index}`, { spec: { labels: { zone: `z${index % 10}`, rack: `r${index % 100}` } } }),
    ),
    networks: [makeNetwork('app', { subnet: '10.64.0.0/16' })],
    services: Array.from({ length: services }, (_, index) =>
      makeService(`s${index}`, { spec: { task: taskSpec } }),
    ),
    tasks: Array.from({ length: taskCount }, (_, index) =>
      makeTask(`t${index}`, { service: `s${index % services}`, spec: taskSpec, status: { state } }),
    ),
  });
}

function report(name: string, store: Store, plan: (store: Store) => Plan): void {
  const started = performance.now();
  const { actions } = plan(store);
  const elapsedMs = performance.now() - started;
  console.log(`${name.padEnd(52)} ${elapsedMs.toFixed(0).padStart(6)} ms  ${actions.length} actions`);
}

const schedule = (store: Store): Plan => planScheduling(store, planContext());
const allocate = (store: Store): Plan => planAllocation(store, planContext());

console.log(`${nodeCount} nodes, ${taskCount} tasks`);
report('schedule: one service', world(1, 'pending', {}), schedule);
report('schedule: 1,000 services', world(1_000, 'pending', {}), schedule);
report(
  'schedule: 1,000 services, constraints and reservations',
  world(1_000, 'pending', {
    placement: { constraints: ['node.labels.zone!=z3', 'node.platform.arch==amd64'] },
    resources: { reservations: { nanoCpus: 1e7, memoryBytes: 1e7 } },
  }),
  schedule,
);
const spread = {
  placement: { preferences: [{ spread: 'node.labels.zone' }, { spread: 'node.labels.rack' }] },
};
report('schedule: one service, two spread levels', world(1, 'pending', spread), schedule);
const unplaceable = world(1_000, 'pending', { placement: { constraints: ['node.labels.zone==none'] } });
report('schedule: nothing fits', unplaceable, schedule);
applyAll(unplaceable, schedule(unplaceable).actions);
report('schedule: nothing fits, reasons already written', unplaceable, schedule);

const fresh = world(100, 'new', { networks: [{ target: 'app' as NetworkId, aliases: [] }] });
report('allocate: addresses for every task', fresh, allocate);
applyAll(fresh, allocate(fresh).actions);
applyAll(fresh, schedule(fresh).actions);
report('allocate: gateways for every node', fresh, allocate);
applyAll(fresh, allocate(fresh).actions);
report('allocate: nothing to do', fresh, allocate);
report('schedule: nothing to do', fresh, schedule);
report('enforce: nothing to do', fresh, (store) => planEnforcement(store, planContext()));
