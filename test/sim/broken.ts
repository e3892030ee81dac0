/**
 * Defects put in on purpose, to see that the checks find them: each within so many seeds of so many events.
 *
 * Invariant: a defect is in force while one run lasts; `restore` takes it out again.
 */
import { planners } from '../../src/manager/forecast/planner-chain.ts';
import { DispatcherServer } from '../../src/manager/dispatcher/server.ts';
import type { Planner } from '../../src/manager/state/planner.ts';
import type { StateView } from '../../src/manager/state/view.ts';
import { decodeCheckpoint, encodeCheckpoint } from '../../src/manager/state/codec.ts';
import { StoreStateMachine } from '../../src/manager/state-machine.ts';
import type { TableName, Tables } from '../../src/model/objects.ts';
import { taskStateRank } from '../../src/model/task-state.ts';
import { RaftLog } from '../../src/raft/core/log.ts';
import { RaftCore } from '../../src/raft/core/node.ts';
import { message } from '../../src/raft/core/types.ts';
import { RaftNode } from '../../src/raft/node.ts';
import type { Draws, FaultKind } from './draws.ts';

/** How a defect is looked for. */
export interface Hunt {
  /** What is wrong. */
  readonly defect: string;
  readonly draws: Partial<Pick<Draws, 'managers' | 'workers' | 'faults'>>;
  readonly events: number;
  /** Seeds, from 1 on, within which it must be found. */
  readonly seedsMax: number;
}

const crashes: readonly FaultKind[] = ['crash-manager', 'crash-at-commit', 'isolate'];

function hunt(
  defect: string,
  faults: readonly FaultKind[],
  seedsMax: number,
  options: { readonly workers?: number; readonly managers?: number; readonly events?: number } = {},
): Hunt {
  const { workers = 0, managers = 3, events = 5_000 } = options;
  return { defect, draws: { managers, workers, faults: new Set(faults) }, events, seedsMax };
}

/** Every defect. */
export const hunts = {
  'vote-before-durable': hunt('a vote is told before it is on disk', crashes, 40),
  'ack-before-durable': hunt('entries are acknowledged before they are on disk', crashes, 40),
  'commit-old-term': hunt('replicas are counted for entries of earlier terms (figure 8)', crashes, 40),
  'commit-undurable': hunt('a leader counts its own entry before it is on disk', crashes, 40),
  'vote-any-log': hunt('a vote is given to a candidate that lacks entries', [...crashes, 'partition'], 40),
  'stale-reads': hunt('a leader answers reads without asking whether it leads', ['pause', 'isolate'], 40),
  'two-changes': hunt(
    'a change of the group is made while another is not committed',
    ['change-under-fire', 'replace-manager', 'demote-manager', 'isolate'],
    40,
    { managers: 5, workers: 2 },
  ),
  'forget-outcomes': hunt('a snapshot lacks the table of keyed changes', crashes, 40),
  'old-snapshot': hunt('a snapshot holds the state of the one before it', crashes, 40),
  'trust-damaged-log': hunt('a log damaged in the middle is cut there and used', ['damage-disk'], 40),
  'over-commit': hunt('the scheduler believes every node to be twice as large', ['transfer'], 40, {
    workers: 1,
  }),
  'update-at-once': hunt('the updater believes that every task it made runs already', ['task-dies'], 40, {
    workers: 4,
  }),
  'forget-removal': hunt('the dispatcher forgets tasks that are to stop', ['transfer'], 40, { workers: 2 }),
} as const satisfies Record<string, Hunt>;

export type BrokenVariant = keyof typeof hunts;
export const brokenVariants = Object.keys(hunts) as readonly BrokenVariant[];

/** Replaces a method of a class until the run ends. */
function patch<T extends object, K extends keyof T & string>(
  prototype: T,
  method: K,
  make: (old: T[K]) => T[K],
): () => void {
  const old = prototype[method];
  prototype[method] = make(old);
  return () => {
    prototype[method] = old;
  };
}

/** Puts a defect into the code under test; returns what takes it out. Defects of disks are not put in here. */
export function breakCode(broken: BrokenVariant | null): () => void {
  switch (broken) {
    case 'commit-old-term':
      return patch(RaftLog.prototype, 'maybeCommit', () => commitAnyTerm);
    case 'commit-undurable':
      return patch(RaftCore.prototype, 'propose', (propose) => {
        return function (this: RaftCore, payloads) {
          const outcome = propose.call(this, payloads);
          const { config, term, log } = this.state;
          const index = log.lastIndex();
          if (outcome === 'ok')
            this.receive(message('append-response', config.id, { from: config.id, term, index }));
          return outcome;
        };
      });
    case 'vote-any-log':
      return patch(RaftLog.prototype, 'isUpToDate', () => () => true);
    case 'stale-reads':
      return patch(RaftNode.prototype, 'readIndex', (readIndex) => {
        return function (this: RaftNode, signal) {
          const { role, appliedIndex } = this.status();
          return role === 'leader' ? Promise.resolve(appliedIndex) : readIndex.call(this, signal);
        };
      });
    case 'two-changes': {
      const restore = patch(RaftCore.prototype, 'configChangeRefusal', () => () => null);
      const restoreProposing = patch(RaftCore.prototype, 'proposeConfigChange', (proposeConfigChange) => {
        return function (this: RaftCore, change) {
          Object.assign(this.state.config, { disableConfigValidation: true });
          return proposeConfigChange.call(this, change);
        };
      });
      return () => {
        restoreProposing();
        restore();
      };
    }
    default:
      return breakCluster(broken);
  }
}

function breakCluster(broken: BrokenVariant | null): () => void {
  switch (broken) {
    case 'forget-outcomes':
      return patch(StoreStateMachine.prototype, 'snapshot', (snapshot) => {
        return function (this: StoreStateMachine) {
          const contents = decodeCheckpoint(snapshot.call(this));
          if (!contents.ok) throw new Error(contents.reason);
          return encodeCheckpoint({ ...contents.value, outcomes: [] });
        };
      });
    case 'old-snapshot':
      return patch(StoreStateMachine.prototype, 'snapshot', (snapshot) => {
        const last = new WeakMap<StoreStateMachine, Uint8Array>();
        return function (this: StoreStateMachine) {
          const now = snapshot.call(this);
          const before = last.get(this) ?? now;
          last.set(this, now);
          return before;
        };
      });
    case 'over-commit':
      return planWith('scheduler', 'node', (node) => ({
        ...node,
        description: {
          ...node.description,
          resources: { ...node.description.resources, nanoCpus: node.description.resources.nanoCpus * 2 },
        },
      }));
    case 'update-at-once':
      return planWith('updates', 'task', (task) =>
        task.update === undefined
          ? task
          : { ...task, update: { ...task.update, runningAt: task.meta.createdAt } },
      );
    case 'forget-removal':
      return patch(DispatcherServer.prototype, 'changed', (changed) => {
        return function (this: DispatcherServer, changes) {
          const kept = changes.filter(
            ({ table, after }) =>
              table !== 'task' ||
              (after !== null && taskStateRank[after.desiredState] <= taskStateRank.running),
          );
          changed.call(this, kept);
        };
      });
    default:
      return () => {};
  }
}

/** A leader that counts replicas for entries of earlier terms too: figure 8 of the Raft paper. */
function commitAnyTerm(this: RaftLog, index: number): boolean {
  if (index <= this.committed || index > this.lastIndex()) return false;
  this.commitTo(index);
  return true;
}

/** Lets one planner see the objects of a table as they are not. */
function planWith<T extends TableName>(
  name: string,
  table: T,
  change: (object: Tables[T]) => Tables[T],
): () => void {
  const planner = planners.find((each) => each.name === name) as { plan: Planner } | undefined;
  if (planner === undefined) throw new Error(`there is no planner ${name}`);
  const { plan } = planner;
  planner.plan = (view, context) => plan(distorted(view, table, change), context);
  return () => {
    planner.plan = plan;
  };
}

function distorted<T extends TableName>(
  view: StateView,
  table: T,
  change: (object: Tables[T]) => Tables[T],
): StateView {
  const seen = <U extends TableName>(of: U, object: Tables[U]): Tables[U] =>
    (of as TableName) === table ? (change(object as Tables[T]) as Tables[U]) : object;
  return {
    index: view.index,
    get: (of, id) => {
      const object = view.get(of, id);
      return object === undefined ? undefined : seen(of, object);
    },
    all: (of) => [...view.all(of)].map((object) => seen(of, object)),
    count: (of) => view.count(of),
    byName: (of, name) => {
      const object = view.byName(of, name);
      return object === undefined ? undefined : seen(of, object);
    },
    tasksOfService: (id) => [...view.tasksOfService(id)].map((task) => seen('task', task)),
    tasksOfNode: (id) => [...view.tasksOfNode(id)].map((task) => seen('task', task)),
    outcome: (key) => view.outcome(key),
  };
}
