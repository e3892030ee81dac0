/**
 * PURE: what a change would do. The change is made in a tentative copy, the planners run there, the two are compared.
 *
 * Invariant: nothing is left behind in the store, and nothing is proposed.
 */
import type { Random } from '../../base/random.ts';
import type { Forecast, ForecastMove, ForecastShortage } from '../../model/forecast.ts';
import type { NodeId } from '../../model/ids.ts';
import type { ClusterNode, Service, Task } from '../../model/objects.ts';
import { isTerminalState } from '../../model/task-state.ts';
import { isActive, isGlobal, slotKey, slotsOf } from '../orchestrator/slots.ts';
import type { Action, Refusal } from '../state/actions.ts';
import type { StateView } from '../state/view.ts';
import { settle } from './settle.ts';

/** A store that takes changes back. */
export interface DraftStore extends StateView {
  tentatively(nowMs: number, run: (apply: (actions: readonly Action[]) => Refusal | null) => void): Action[];
}

export interface ForecastContext {
  readonly nowMs: number;
  readonly random: Random;
}

/** The outcome of a forecast; refused when the change itself does not apply. */
export type ForecastOutcome =
  | { readonly kind: 'forecast'; readonly forecast: Forecast }
  | { readonly kind: 'refused'; readonly refusal: Refusal };

/** What `change` would do. Jobs are not played: their tasks are shown where they would start. */
export function forecastChange(
  store: DraftStore,
  change: readonly Action[],
  context: ForecastContext,
): ForecastOutcome {
  let outcome: ForecastOutcome | null = null;
  store.tentatively(context.nowMs, (apply) => {
    const before = placesOf(store);
    const refusal = change.length === 0 ? null : apply(change);
    if (refusal !== null) {
      outcome = { kind: 'refused', refusal };
      return;
    }
    const settled = settle(store, apply, {
      ...context,
      isPlayed: (task) => task.desiredState !== 'complete',
    });
    const after = placesOf(store);
    outcome = {
      kind: 'forecast',
      forecast: {
        moves: compare(store, before, after),
        shortages: shortagesOf(store),
        settled,
        quorum: null,
      },
    };
  });
  // Set above, always: the compiler cannot see that the callback ran.
  return outcome as unknown as ForecastOutcome;
}

/** What would happen were the nodes lost or drained. */
export function forecastNodes(
  store: DraftStore,
  nodes: { readonly lose: readonly ClusterNode[]; readonly drain: readonly ClusterNode[] },
  context: ForecastContext,
): ForecastOutcome {
  const lost = new Set<NodeId>(nodes.lose.map((node) => node.id));
  const change = [
    ...nodes.lose.map((node): ClusterNode => ({ ...node, status: { ...node.status, state: 'down' } })),
    ...nodes.drain
      .filter((node) => !lost.has(node.id))
      .map((node): ClusterNode => ({ ...node, spec: { ...node.spec, availability: 'drain' } })),
  ].map((object): Action => ({ kind: 'update', table: 'node', object, expect: object.meta.version }));
  const outcome = forecastChange(store, change, context);
  if (outcome.kind === 'refused') return outcome;
  return { kind: 'forecast', forecast: { ...outcome.forecast, quorum: quorumWithout(store, lost) } };
}

function quorumWithout(view: StateView, lost: ReadonlySet<NodeId>): Forecast['quorum'] {
  const managers = [...view.all('node')].filter((node) => node.manager !== undefined);
  if (!managers.some((node) => lost.has(node.id))) return null;
  // Managers that are down already vote no more than those that are lost.
  const left = managers.filter((node) => !lost.has(node.id) && node.status.state !== 'down').length;
  const needed = Math.floor(managers.length / 2) + 1;
  return { managers: managers.length, left, needed, lost: left < needed };
}

interface Place {
  readonly task: Task;
  readonly service: string;
  readonly name: string;
  readonly hostname: string;
}

/** The newest wanted task of every slot, by service and slot. */
function placesOf(view: StateView): Map<string, Place> {
  const places = new Map<string, Place>();
  for (const service of view.all('service')) {
    for (const slot of slotsOf(view, service)) {
      const task = slot.active.at(-1);
      if (task === undefined || isTerminalState(task.status.state)) continue;
      const hostname = hostnameOf(view, task.nodeId);
      const name = `${service.spec.name}.${isGlobal(service) ? hostname : task.slot}`;
      places.set(`${service.id}/${slotKey(service, task)}`, {
        task,
        service: service.spec.name,
        name,
        hostname,
      });
    }
  }
  return places;
}

function hostnameOf(view: StateView, id: NodeId | ''): string {
  return id === '' ? '' : (view.get('node', id)?.description.hostname ?? id);
}

function isWaiting(place: Place): boolean {
  return place.task.status.state === 'new' || place.task.status.state === 'pending';
}

function compare(
  view: StateView,
  before: ReadonlyMap<string, Place>,
  after: ReadonlyMap<string, Place>,
): ForecastMove[] {
  const moves: ForecastMove[] = [];
  for (const [key, place] of after) {
    const old = before.get(key);
    const move = moveOf(old, place);
    if (move !== null) moves.push(move);
  }
  for (const [key, old] of before) {
    if (after.has(key)) continue;
    const { service, name, hostname } = old;
    moves.push({ kind: 'remove', service, name, from: hostname, to: '', reason: whyGone(view, old) });
  }
  return moves.toSorted(
    (a, b) => compareText(a.service, b.service) || slotOf(a) - slotOf(b) || compareText(a.name, b.name),
  );
}

function slotOf(move: ForecastMove): number {
  return Number(/\.(\d+)$/.exec(move.name)?.[1] ?? 0);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function moveOf(old: Place | undefined, place: Place): ForecastMove | null {
  const { service, name, task } = place;
  const from = old?.hostname ?? '';
  if (isWaiting(place)) {
    const reason = task.status.error === '' ? task.status.message : task.status.error;
    return { kind: 'pending', service, name, from, to: '', reason };
  }
  if (old?.task.id === task.id && old.hostname === place.hostname) return null;
  const kind = from === '' ? 'create' : from === place.hostname ? 'replace' : 'move';
  return { kind, service, name, from, to: place.hostname, reason: '' };
}

function whyGone(view: StateView, old: Place): string {
  const task = view.get('task', old.task.id);
  return task?.finished === true ? 'its restart policy asks for no replacement' : '';
}

/** Replicated services with fewer running tasks than they should have. */
function shortagesOf(view: StateView): ForecastShortage[] {
  return [...view.all('service')]
    .flatMap((service) => shortageOf(view, service))
    .toSorted((a, b) => compareText(a.service, b.service));
}

function shortageOf(view: StateView, service: Service): ForecastShortage[] {
  const { mode, name } = service.spec;
  if (mode.kind !== 'replicated' || service.pendingDelete) return [];
  const running = [...view.tasksOfService(service.id)].filter(
    (task) =>
      isActive(task) &&
      task.status.state === 'running' &&
      view.get('node', task.nodeId)?.status.state !== 'down',
  ).length;
  return running < mode.replicas ? [{ service: name, wanted: mode.replicas, running }] : [];
}
