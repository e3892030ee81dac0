/**
 * How long one plan of one planner takes at size; whole turns of the control loop are in control-loop.ts.
 *
 * `node bench/scheduler.ts [--runs 3] [--nodes 1000] [--tasks 10000]`. Needs nothing but Node: no root, no engine.
 * A plan changes nothing, so every run plans the same; asserts nothing.
 */
import { parseArgs } from 'node:util';
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
import { msText, print, printHeading, printTable, spreadOf } from './lib/figures.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    nodes: { type: 'string', default: '1000' },
    tasks: { type: 'string', default: '10000' },
  },
});
const nodeCount = Number(values.nodes);
const taskCount = Number(values.tasks);
const rows: string[][] = [['', 'one plan', 'actions']];

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
  const samples: number[] = [];
  let planned = 0;
  for (let run = 0; run < Number(values.runs); run++) {
    const startedMs = performance.now();
    planned = plan(store).actions.length;
    samples.push(performance.now() - startedMs);
  }
  rows.push([name, msText(spreadOf(samples)), String(planned)]);
}

const schedule = (store: Store): Plan => planScheduling(store, planContext());
const allocate = (store: Store): Plan => planAllocation(store, planContext());

printHeading(
  `plans: ${nodeCount.toLocaleString('en')} nodes, ${taskCount.toLocaleString('en')} tasks; medians (least..most)`,
);
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
printTable(rows);
print();
