/**
 * Changes that are made again once when nobody can say whether they were made.
 *
 * Invariant: every change carries a key of its own, so that the second call applies only if the first did not.
 */
import { type Clock, sleep } from '../base/clock.ts';
import { SwarmdError } from '../base/errors.ts';
import type { ApiMethod, ApiParams, ApiResult } from '../model/api.ts';
import type { ApiConnection } from './context.ts';

/** Wait before the second call, milliseconds: time to elect a leader. */
export const RETRY_WAIT_MS = 1_000;

const CHANGES: ReadonlySet<string> = new Set(['create', 'update', 'rollback', 'remove']);

/** `api`, with a key on every change and one more try after OUTCOME_UNKNOWN and NO_LEADER. */
export function retryChanges(
  api: ApiConnection,
  dependencies: { readonly clock: Clock; newKey(): string },
): ApiConnection {
  return {
    serviceLogs: (params, options) => api.serviceLogs(params, options),
    close: () => api.close(),
    async call<M extends ApiMethod>(
      method: M,
      params: ApiParams<M>,
      options: { readonly signal: AbortSignal },
    ): Promise<ApiResult<M>> {
      if (!isChange(method) || 'once' in params) return await api.call(method, params, options);
      const keyed = { ...params, once: dependencies.newKey() };
      try {
        return await api.call(method, keyed, options);
      } catch (error) {
        if (!isWorthARetry(error) || options.signal.aborted) throw error;
        await sleep(dependencies.clock, RETRY_WAIT_MS, options.signal);
        return await api.call(method, keyed, options);
      }
    },
  };
}

function isChange(method: ApiMethod): boolean {
  return CHANGES.has(method.split('.')[1] ?? '');
}

function isWorthARetry(error: unknown): boolean {
  return error instanceof SwarmdError && (error.code === 'OUTCOME_UNKNOWN' || error.code === 'NO_LEADER');
}
