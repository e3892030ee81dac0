/**
 * How a configuration change is written into an entry. Deterministic: every member decodes the same bytes.
 *
 * Layout: version 1, transition, step count (2 bytes), then kind and id (1 + 6 bytes) a step, then the context.
 */
import { assertDefined } from '../../base/assert.ts';
import type { ConfigChange, ConfigChangeStep } from './membership.ts';
import { EMPTY_BYTES } from './types.ts';

const VERSION = 1;
const HEADER_BYTES = 4;
const STEP_BYTES = 7;
const transitions = ['auto', 'joint-implicit', 'joint-explicit'] as const;
const kinds = ['add-voter', 'add-learner', 'remove', 'update'] as const;

/** The change that leaves a joint configuration. */
export const leaveJointChange: ConfigChange = { transition: 'auto', steps: [], context: EMPTY_BYTES };

/** Encodes a change; the one that leaves a joint configuration is empty. */
export function encodeConfigChange(change: ConfigChange): Uint8Array {
  if (change.transition === 'auto' && change.steps.length === 0 && change.context.length === 0)
    return EMPTY_BYTES;
  const bytes = new Uint8Array(HEADER_BYTES + change.steps.length * STEP_BYTES + change.context.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, VERSION);
  view.setUint8(1, transitions.indexOf(change.transition));
  view.setUint16(2, change.steps.length);
  let at = HEADER_BYTES;
  for (const step of change.steps) {
    view.setUint8(at, kinds.indexOf(step.kind));
    view.setUint16(at + 1, Math.floor(step.id / 2 ** 32));
    view.setUint32(at + 3, step.id % 2 ** 32);
    at += STEP_BYTES;
  }
  bytes.set(change.context, at);
  return bytes;
}

/** Decodes what {@link encodeConfigChange} wrote; null when it is something else. */
export function decodeConfigChange(bytes: Uint8Array): ConfigChange | null {
  if (bytes.length === 0) return leaveJointChange;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEADER_BYTES || view.getUint8(0) !== VERSION) return null;
  const transition = transitions[view.getUint8(1)];
  const contextAt = HEADER_BYTES + view.getUint16(2) * STEP_BYTES;
  if (transition === undefined || bytes.length < contextAt) return null;
  const steps: ConfigChangeStep[] = [];
  for (let at = HEADER_BYTES; at < contextAt; at += STEP_BYTES) {
    const kind = kinds[view.getUint8(at)];
    if (kind === undefined) return null;
    steps.push({ kind, id: view.getUint16(at + 1) * 2 ** 32 + view.getUint32(at + 3) });
  }
  return { transition, steps, context: bytes.slice(contextAt) };
}

/** Decodes the change in an entry of the log, where anything else is a defect: it was checked on its way in. */
export function configChangeOf(data: Uint8Array): ConfigChange {
  return assertDefined(decodeConfigChange(data), 'a configuration entry holds a configuration change');
}
