/** PURE: what is still wrong with a healed cluster; nothing, when it did what it was asked to. */
import { endpointOf } from '../../src/manager/dispatcher/items.ts';
import { isActive, isUp } from '../../src/manager/orchestrator/slots.ts';
import type { Store } from '../../src/manager/state/store.ts';
import type { Service, Task } from '../../src/model/objects.ts';
import { isTerminalState } from '../../src/model/task-state.ts';
import type { ManagerHost } from './manager-host.ts';
import type { WorkerHost } from './worker-host.ts';

/** What a cluster is looked at for. */
export interface Expected {
  /** Services that were acknowledged and must be there. */
  readonly kept: ReadonlyMap<string, number>;
  /** How far the leader's state was a while ago: the others have come so far by now. */
  readonly index: number;
}

/** One line for each thing that is not as it should be. */
export function convergenceProblems(
  managers: readonly ManagerHost[],
  workers: readonly WorkerHost[],
  { kept, index }: Expected,
): string[] {
  const leaders = managers.filter((host) => host.raft?.status().role === 'leader' && host.live !== null);
  const [leader] = leaders;
  if (leader === undefined || leaders.length !== 1) return [`there are ${leaders.length} leaders`];
  const store = leader.state?.store;
  const status = leader.raft?.status();
  if (store === undefined || status === undefined) return ['the leader is not open'];
  const problems: string[] = [];
  for (const { id, voter } of status.members) {
    const host = managers.find((each) => each.member.id === id);
    if (host === undefined) problems.push(`member ${id} is unknown`);
    else if (!voter) problems.push(`${host.name} is no voter yet`);
    else if (host.live === null) problems.push(`${host.name} is down`);
    // That replicas are equal at an index is checked at every event.
    // Not by the index of the store, which entries without data pass over and a snapshot does not.
    else if ((host.raft?.status().appliedIndex ?? 0) < index)
      problems.push(`${host.name} has not come to entry ${index}`);
  }
  for (const { id, spec, manager, description } of store.all('node')) {
    const isMember = manager !== undefined && status.members.some(({ id }) => id === manager.raftId);
    if (spec.role === 'manager' && !isMember)
      problems.push(`${description.hostname} is not in the group yet`);
    if (manager === undefined && managers.some(({ member }) => member.nodeId === id))
      problems.push(`${description.hostname} still runs a manager`);
    if (spec.role === 'worker' && manager !== undefined)
      problems.push(`${description.hostname} is still listed as a manager`);
  }
  for (const id of kept.keys())
    if (store.get('service', id) === undefined) problems.push(`acknowledged service ${id} is lost`);
  for (const service of store.all('service')) problems.push(...serviceProblems(store, service));
  for (const worker of workers) problems.push(...workerProblems(store, worker));
  return problems;
}

function serviceProblems(store: Store, service: Service): string[] {
  const { name, mode, task } = service.spec;
  if (service.pendingDelete) return [`service ${name} is not removed yet`];
  const tasks = [...store.tasksOfService(service.id)].filter(isActive);
  if (mode.kind === 'replicated') {
    const slots = new Set(tasks.map((each) => each.slot));
    const paused =
      service.updateStatus?.state === 'paused' || service.updateStatus?.state === 'rollback_paused';
    if (slots.size !== mode.replicas && !paused)
      return [`service ${name} has ${slots.size} of ${mode.replicas} slots`];
  }
  // A version that cannot run, and what failed updates left of it, never comes up.
  if (task.container.command?.[0] === 'exit') return [];
  return tasks.flatMap((each) => (isSettled(store, each) ? [] : [`service ${name}: ${describe(each)}`]));
}

function isSettled(store: Store, task: Task): boolean {
  if (isUp(task) && task.desiredState === 'running') return true;
  if (task.spec.container.command?.[0] === 'exit') return true;
  // It waits for room, which no one will make.
  return task.status.state === 'pending' && (isFull(store) || task.nodeId !== '');
}

/** Whether the cluster's users left no node that takes another task, or not much of one. */
function isFull(store: Store): boolean {
  const free = [...store.all('node')].filter(
    (node) => node.spec.availability === 'active' && node.status.state === 'ready',
  );
  return free.every((node) => {
    const claims = [...store.tasksOfNode(node.id)]
      .filter((task) => !isTerminalState(task.status.state))
      .map((task) => task.spec.resources.reservations?.nanoCpus ?? 0);
    return claims.reduce((a, b) => a + b, 0) > node.description.resources.nanoCpus - 1.5e9;
  });
}

function describe(task: Task): string {
  const { state, message, error } = task.status;
  return `task ${task.id} slot ${task.slot} on ${task.nodeId || 'no node'} is ${state} (${message} ${error}), wanted ${task.desiredState}`;
}

function workerProblems(store: Store, worker: WorkerHost): string[] {
  const { name, nodeId, agent, engine } = worker;
  const node = store.get('node', nodeId);
  // A node that was removed is told so, and left alone.
  if (node === undefined) return [];
  if (agent?.connected !== true) return [`${name} is not connected`];
  if (node.status.state !== 'ready') return [`${name} is ${node.status.state}`];
  const wanted = new Set<string>();
  for (const task of store.tasksOfNode(nodeId)) {
    if (isActive(task) && task.status.state === 'running') wanted.add(task.id);
    if (!isActive(task) && !isTerminalState(task.status.state) && task.status.state !== 'pending')
      return [`${name}: ${describe(task)}`];
  }
  const problems: string[] = [];
  const running = new Set<string>(engine.fake.held('running'));
  for (const id of wanted) if (!running.has(id)) problems.push(`${name} does not run task ${id}`);
  for (const id of running) {
    if (wanted.has(id)) continue;
    const task = store.get('task', id);
    const crashes = task?.spec.container.command?.[0] === 'exit';
    if (!crashes) problems.push(`${name} runs ${task === undefined ? `unknown task ${id}` : describe(task)}`);
  }
  return [...problems, ...endpointProblems(store, worker)];
}

/** What the worker routes to is exactly what may be reached. */
function endpointProblems(store: Store, { name, endpoints }: WorkerHost): string[] {
  const problems: string[] = [];
  const told = new Set(endpoints);
  for (const task of store.all('task')) {
    const reachable = endpointOf(store, task) !== null;
    if (reachable !== told.has(task.id))
      problems.push(`${name}: endpoint of ${describe(task)} is ${reachable ? 'missing' : 'told'}`);
    told.delete(task.id);
  }
  return [...problems, ...[...told].map((id) => `${name}: endpoint of task ${id}, which is gone`)];
}
