/**
 * How long the leader's control loop thinks at size: whole turns, every planner of src/manager/leadership.ts through
 * Store.tentatively, and the application of what they plan, without log and network.
 *
 * `node bench/control-loop.ts [--runs 3] [--nodes 1000] [--services 100] [--replicas 100] [--scale 1000] [--detail]`.
 * Needs nothing but Node: no root, no engine. Every run makes the cluster anew; `--detail` adds each planner's share.
 */
import { parseArgs } from 'node:util';
import { seededRandom } from '../src/base/random.ts';
import { planners } from '../src/manager/forecast/planner-chain.ts';
import type { Action } from '../src/manager/state/actions.ts';
import { splitActions } from '../src/manager/state/split.ts';
import type { Store } from '../src/manager/state/store.ts';
import type { NetworkId, NodeId, ServiceId, TaskId } from '../src/model/ids.ts';
import type { ClusterNode, Service, Task } from '../src/model/objects.ts';
import {
  applyAll,
  makeNetwork,
  makeNode,
  makeService,
  makeStore,
  makeTaskSpec,
  NOW_MS,
} from '../test/support/planner-fixtures.ts';
import { msText, print, printHeading, printTable, spreadOf } from './lib/figures.ts';

interface Options {
  readonly runs: number;
  readonly nodes: number;
  readonly services: number;
  readonly replicas: number;
  readonly scale: number;
  readonly detail: boolean;
}

/** What a change leads to, until nothing is left to do. Milliseconds. */
interface Settling {
  readonly turns: number;
  readonly actions: number;
  readonly planMs: number;
  readonly applyMs: number;
  /** The longest time without a pause, which is what other work of the process waits for. */
  readonly longestTurnMs: number;
  readonly byPlanner: ReadonlyMap<string, number>;
}

/** Enough for everything here; more means that planners answer one another without end. */
const TURNS_MAX = 50;
const random = seededRandom(1);

/** One turn as src/manager/control-loop.ts takes it. */
function turn(store: Store, nowMs: number, byPlanner: Map<string, number>): Action[] {
  return store.tentatively(nowMs, (apply) => {
    for (const planner of planners) {
      const startedMs = performance.now();
      const { actions } = planner.plan(store, { nowMs, random });
      const refusal = actions.length === 0 ? null : apply(actions);
      if (refusal !== null) throw new Error(`${planner.name}: ${JSON.stringify(refusal)}`);
      byPlanner.set(planner.name, (byPlanner.get(planner.name) ?? 0) + performance.now() - startedMs);
    }
  });
}

function settle(store: Store): Settling {
  const byPlanner = new Map<string, number>();
  let [actions, planMs, applyMs, longestTurnMs] = [0, 0, 0, 0];
  for (let turns = 1; turns <= TURNS_MAX; turns++) {
    const startedMs = performance.now();
    const planned = turn(store, NOW_MS, byPlanner);
    const plannedMs = performance.now();
    const batches = splitActions(planned);
    longestTurnMs = Math.max(longestTurnMs, performance.now() - startedMs);
    for (const batch of batches) applyAll(store, batch);
    planMs += plannedMs - startedMs;
    applyMs += performance.now() - plannedMs;
    actions += planned.length;
    if (planned.length === 0) return { turns, actions, planMs, applyMs, longestTurnMs, byPlanner };
  }
  throw new Error(`the planners did not come to rest in ${TURNS_MAX} turns`);
}

function tasksOf(store: Store, state?: Task['status']['state']): Task[] {
  return [...store.all('task')].filter((task) => state === undefined || task.status.state === state);
}

/** The reports of workers that bring every assigned task to running. */
function reportRunning(store: Store): void {
  const reports = tasksOf(store, 'assigned').map((task): Action => report(task, 'running'));
  for (const batch of splitActions(reports)) applyAll(store, batch);
}

function report(task: Task, state: Task['status']['state'], message = state as string): Action {
  const status = { ...task.status, state, message, at: NOW_MS };
  return { kind: 'report-task', id: task.id as TaskId, nodeId: task.nodeId as NodeId, status };
}

function check(condition: boolean, what: string): void {
  if (!condition) throw new Error(`the cluster is not as it should be: ${what}`);
}

function first<T>(values: Iterable<T>, what: string): T {
  for (const value of values) return value;
  throw new Error(`the cluster has no ${what}`);
}

/** One life of a cluster; what each event leads to, by name. */
function live(options: Options, overlay: boolean): Map<string, Settling> {
  const { nodes, services, replicas } = options;
  const total = services * replicas;
  const results = new Map<string, Settling>();
  const networks = overlay ? [{ target: 'app' as NetworkId, aliases: [] }] : [];
  const task = makeTaskSpec({ networks });
  const store = makeStore({
    nodes: Array.from({ length: nodes }, (_, i) =>
      makeNode(`n${i}`, { address: `10.9.${i >> 8}.${i & 255}` }),
    ),
    networks: overlay ? [makeNetwork('app', { subnet: '10.64.0.0/16' })] : [],
  });
  settle(store);

  const create = Array.from({ length: services }, (_, i): Action => {
    const spec = { task, mode: { kind: 'replicated', replicas } } as const;
    return { kind: 'create', table: 'service', object: makeService(`s${i}`, { spec }) };
  });
  applyAll(store, create);
  results.set(`${services} services of ${replicas} replicas, created to assigned`, settle(store));
  check(tasksOf(store, 'assigned').length === total, `${total} tasks assigned`);

  reportRunning(store);
  results.set(`all ${total} tasks report that they run`, settle(store));

  const [steady] = tasksOf(store, 'running');
  check(steady !== undefined, 'tasks run');
  applyAll(store, [report(steady as Task, 'running', 'still running')]);
  results.set('one task reports, nothing to do', settle(store));

  applyAll(store, [report(steady as Task, 'failed')]);
  results.set('one task fails, replaced', settle(store));

  const node = first(store.all('node'), 'node') as ClusterNode;
  const lost = [...store.tasksOfNode(node.id)].length;
  const down = { ...node, status: { ...node.status, state: 'down' as const } };
  applyAll(store, [{ kind: 'update', table: 'node', object: down, expect: node.meta.version }]);
  results.set(`a node goes down with about ${Math.round(total / nodes)} tasks, replaced`, settle(store));
  check(lost > 0, 'the node had tasks');
  reportRunning(store);
  settle(store);

  const service = store.get('service', 's0' as ServiceId) as Service;
  const mode = { kind: 'replicated', replicas: replicas + options.scale } as const;
  const object = { ...service, spec: { ...service.spec, mode } };
  applyAll(store, [{ kind: 'update', table: 'service', object, expect: service.meta.version }]);
  results.set(`a service scaled up by ${options.scale}, assigned`, settle(store));
  const alive = tasksOf(store).filter((one) => one.desiredState === 'running').length;
  check(alive >= total + options.scale - 1, `${total + options.scale} tasks are wanted, not ${alive}`);
  reportRunning(store);
  settle(store);

  const scaled = store.get('service', service.id) as Service;
  const fewer = { ...scaled, spec: { ...scaled.spec, mode: service.spec.mode } };
  applyAll(store, [{ kind: 'update', table: 'service', object: fewer, expect: scaled.meta.version }]);
  results.set(`the service scaled down by ${options.scale}`, settle(store));
  return results;
}

function printLives(lives: readonly Map<string, Settling>[], detail: boolean): void {
  const rows: string[][] = [['', 'planning', 'applying', 'longest turn', 'turns', 'actions']];
  const shares: string[][] = [['', 'by planner, ms']];
  for (const [name, last] of lives.at(-1) ?? []) {
    const all = lives.flatMap((life) => life.get(name) ?? []);
    const text = (key: 'planMs' | 'applyMs' | 'longestTurnMs'): string =>
      msText(spreadOf(all.map((settling) => settling[key])));
    const counts = [String(last.turns), String(last.actions)];
    rows.push([name, text('planMs'), text('applyMs'), text('longestTurnMs'), ...counts]);
    const parts = [...last.byPlanner].map(([planner, ms]) => `${planner} ${ms.toFixed(1)}`);
    shares.push([name, parts.join(', ')]);
  }
  printTable(rows);
  print();
  if (detail) printTable(shares);
}

function main(options: Options): void {
  const { nodes, services, replicas } = options;
  const total = (services * replicas).toLocaleString('en');
  printHeading(
    `control loop: ${nodes.toLocaleString('en')} nodes, ${total} tasks, all planners; medians (least..most)`,
  );
  for (const overlay of [false, true]) {
    print(overlay ? 'on an overlay network' : 'without a network');
    const lives = Array.from({ length: options.runs }, () => live(options, overlay));
    printLives(lives, options.detail);
  }
}

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    nodes: { type: 'string', default: '1000' },
    services: { type: 'string', default: '100' },
    replicas: { type: 'string', default: '100' },
    scale: { type: 'string', default: '1000' },
    detail: { type: 'boolean', default: false },
  },
});
main({
  runs: Number(values.runs),
  nodes: Number(values.nodes),
  services: Number(values.services),
  replicas: Number(values.replicas),
  scale: Number(values.scale),
  detail: values.detail,
});
