/** API methods that explain and foretell. They read on the leader and propose nothing. */
import { SwarmdError } from '../../base/errors.ts';
import type { ApiParams } from '../../model/api.ts';
import type { Forecast, ServiceExplanation, TaskPlacementExplanation } from '../../model/forecast.ts';
import type { ClusterNode } from '../../model/objects.ts';
import { explainService, explainTask } from '../forecast/explain.ts';
import { forecastChange, forecastNodes, type ForecastOutcome } from '../forecast/forecast.ts';
import type { Action } from '../state/actions.ts';
import { refusalError } from './commit.ts';
import { findNode, findService, findTask } from './lookup.ts';
import type { NodeApiContext } from './nodes.ts';
import { newService, updatedService } from './services.ts';

export function explainServiceOf(
  context: NodeApiContext,
  { ref }: ApiParams<'service.explain'>,
): ServiceExplanation {
  return explainService(context.view, findService(context.view, ref), context.nowMs());
}

export function explainTaskOf(
  context: NodeApiContext,
  { ref }: ApiParams<'task.explain'>,
): TaskPlacementExplanation {
  return explainTask(context.view, findTask(context.view, ref), context.nowMs());
}

/** What creating the service would do, or updating it where `service` names one. */
export function forecastService(context: NodeApiContext, params: ApiParams<'service.forecast'>): Forecast {
  return answer(forecastChange(context.view, [serviceChange(context, params)], timeOf(context)));
}

function serviceChange(context: NodeApiContext, params: ApiParams<'service.forecast'>): Action {
  if (params.service === null) {
    return { kind: 'create', table: 'service', object: newService(context, params) };
  }
  const current = findService(context.view, params.service);
  const object = updatedService(context, current, params.spec);
  return { kind: 'update', table: 'service', object, expect: current.meta.version };
}

/** What losing and draining the nodes would do. */
export function forecastNodesOf(context: NodeApiContext, params: ApiParams<'node.forecast'>): Forecast {
  const lose = nodesOf(context, 'lose', params.lose);
  const drain = nodesOf(context, 'drain', params.drain);
  if (lose.length + drain.length === 0) {
    throw new SwarmdError('INVALID_ARGUMENT', 'no node is named; give nodes to lose or to drain');
  }
  return answer(forecastNodes(context.view, { lose, drain }, timeOf(context)));
}

function nodesOf(context: NodeApiContext, name: string, refs: readonly unknown[]): ClusterNode[] {
  const nodes = refs.map((ref) => {
    if (typeof ref === 'string') return findNode(context.view, ref);
    throw new SwarmdError('INVALID_ARGUMENT', `parameter ${name} holds a ${typeof ref}; give names or ids`);
  });
  return [...new Set(nodes)];
}

function timeOf({ random, nowMs }: NodeApiContext): Parameters<typeof forecastNodes>[2] {
  return { random, nowMs: nowMs() };
}

function answer(outcome: ForecastOutcome): Forecast {
  if (outcome.kind === 'refused') throw refusalError(outcome.refusal);
  return outcome.forecast;
}
