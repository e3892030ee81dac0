/**
 * Placement constraints: parsing `key==value` and `key!=value`, and matching them against a node.
 *
 * Invariants: a key that no node can have is refused when the spec is written, with the valid ones named; label
 * keys are compared exactly, all else without case; a missing label is the empty text.
 */
import { assertNever } from '../base/assert.ts';
import { ok, refuse, type Result } from '../base/result.ts';
import {
  parseIpAddress,
  parseIpPrefix,
  prefixContains,
  type IpAddress,
  type IpPrefix,
} from './ip-address.ts';
import type { ClusterNode } from './objects.ts';
import { normalArchitecture } from './platform.ts';

/** Operators of the grammar, longest first where one starts another. */
export const constraintOperators = ['==', '!='] as const;
/** How key and value are compared. */
export type ConstraintOperator = (typeof constraintOperators)[number];

/** What a constraint looks at. */
export type ConstraintSubject =
  | { readonly kind: 'id' }
  | { readonly kind: 'hostname' }
  | { readonly kind: 'role' }
  | { readonly kind: 'ip'; readonly address: IpAddress | null; readonly prefix: IpPrefix | null }
  | { readonly kind: 'os' }
  | { readonly kind: 'architecture' }
  | { readonly kind: 'node-label'; readonly label: string }
  | { readonly kind: 'engine-label'; readonly label: string };

/** One parsed constraint. */
export interface Constraint {
  readonly subject: ConstraintSubject;
  readonly operator: ConstraintOperator;
  /** As written, trimmed. */
  readonly value: string;
}

/** Why a constraint was refused. `message` names the constraint and what to write instead. */
export interface ConstraintRefusal {
  readonly kind: 'no-operator' | 'unknown-key' | 'bad-label-key' | 'empty-value' | 'bad-value';
  readonly constraint: string;
  readonly message: string;
}

/** What constraints look at on a node. */
export type ConstraintNode = Pick<ClusterNode, 'id' | 'spec' | 'description' | 'status'>;

const NODE_LABEL_PREFIX = 'node.labels.';
const ENGINE_LABEL_PREFIX = 'engine.labels.';

/** The keys a constraint may name, as shown to users. */
export const constraintKeys = [
  'node.id',
  'node.hostname',
  'node.role',
  'node.ip',
  'node.platform.os',
  'node.platform.arch',
  'node.labels.<label>',
  'engine.labels.<label>',
] as const;

const LABEL_KEY = /^[A-Za-z0-9_][A-Za-z0-9_.\-/]*$/;

function refusal(
  kind: ConstraintRefusal['kind'],
  constraint: string,
  why: string,
): { readonly ok: false; readonly reason: ConstraintRefusal } {
  return refuse({ kind, constraint, message: `constraint '${constraint}': ${why}` });
}

/** The first operator in the text, or null. */
function findOperator(text: string): { operator: ConstraintOperator; at: number } | null {
  let found: { operator: ConstraintOperator; at: number } | null = null;
  for (const operator of constraintOperators) {
    const at = text.indexOf(operator);
    if (at >= 0 && (found === null || at < found.at)) found = { operator, at };
  }
  return found;
}

function plainSubject(key: string): ConstraintSubject | null {
  switch (key) {
    case 'node.id':
      return { kind: 'id' };
    case 'node.hostname':
      return { kind: 'hostname' };
    case 'node.role':
      return { kind: 'role' };
    case 'node.platform.os':
      return { kind: 'os' };
    case 'node.platform.arch':
      return { kind: 'architecture' };
    default:
      return null;
  }
}

/** The label that a `node.labels.X` or `engine.labels.X` key names; null for other keys. */
export function labelOfKey(
  key: string,
): { readonly kind: 'node-label' | 'engine-label'; readonly label: string } | null {
  const lower = key.toLowerCase();
  if (lower.startsWith(NODE_LABEL_PREFIX)) {
    return { kind: 'node-label', label: key.slice(NODE_LABEL_PREFIX.length) };
  }
  if (lower.startsWith(ENGINE_LABEL_PREFIX)) {
    return { kind: 'engine-label', label: key.slice(ENGINE_LABEL_PREFIX.length) };
  }
  return null;
}

/** Whether a label key may stand in a constraint or a spread preference. */
export function isLabelKey(key: string): boolean {
  return LABEL_KEY.test(key);
}

/** Parses one constraint; white space around key and value is dropped. */
export function parseConstraint(text: string): Result<Constraint, ConstraintRefusal> {
  const found = findOperator(text);
  if (found === null) {
    return refusal('no-operator', text, `expected one operator of ${constraintOperators.join(', ')}`);
  }
  const { operator } = found;
  const key = text.slice(0, found.at).trim();
  const value = text.slice(found.at + operator.length).trim();
  if (value === '') return refusal('empty-value', text, 'the value is empty; write what to compare with');
  const label = labelOfKey(key);
  if (label !== null) {
    if (!isLabelKey(label.label)) {
      return refusal(
        'bad-label-key',
        text,
        `'${label.label}' is no label key (letters, digits, '.', '-', '_', '/')`,
      );
    }
    return ok({ subject: label, operator, value });
  }
  const lowerKey = key.toLowerCase();
  if (lowerKey === 'node.ip') {
    const address = parseIpAddress(value);
    const prefix = parseIpPrefix(value);
    if (address === null && prefix === null) {
      return refusal(
        'bad-value',
        text,
        `'${value}' is neither an address nor a CIDR block such as 10.0.0.0/24`,
      );
    }
    return ok({ subject: { kind: 'ip', address, prefix }, operator, value });
  }
  const subject = plainSubject(lowerKey);
  if (subject === null) {
    return refusal('unknown-key', text, `unknown key '${key}'; valid keys are ${constraintKeys.join(', ')}`);
  }
  if (subject.kind === 'role' && !['manager', 'worker'].includes(value.toLowerCase())) {
    return refusal('bad-value', text, `a node's role is manager or worker, never '${value}'`);
  }
  return ok({ subject, operator, value });
}

/** Parses all constraints of a spec; the first bad one refuses them all. */
export function parseConstraints(texts: readonly string[]): Result<readonly Constraint[], ConstraintRefusal> {
  const parsed: Constraint[] = [];
  for (const text of texts) {
    const result = parseConstraint(text);
    if (!result.ok) return result;
    parsed.push(result.value);
  }
  return ok(parsed);
}

/** Whether the part of the node the constraint looks at equals its value. */
function equalsValue(constraint: Constraint, node: ConstraintNode): boolean {
  const { subject } = constraint;
  const value = constraint.value.toLowerCase();
  switch (subject.kind) {
    case 'id':
      return node.id.toLowerCase() === value;
    case 'hostname':
      return node.description.hostname.toLowerCase() === value;
    case 'role':
      return node.spec.role === value;
    case 'os':
      return node.description.platform.os.toLowerCase() === value;
    case 'architecture':
      return normalArchitecture(node.description.platform.architecture) === normalArchitecture(value);
    case 'node-label':
      return labelValue(node.spec.labels, subject.label).toLowerCase() === value;
    case 'engine-label':
      return labelValue(node.description.engineLabels, subject.label).toLowerCase() === value;
    case 'ip': {
      const address = parseIpAddress(node.status.address);
      if (address === null) return false;
      if (subject.prefix !== null) return prefixContains(subject.prefix, address);
      return (
        subject.address !== null &&
        subject.address.version === address.version &&
        subject.address.value === address.value
      );
    }
    default:
      return assertNever(subject);
  }
}

function labelValue(labels: Readonly<Record<string, string>>, key: string): string {
  return Object.hasOwn(labels, key) ? (labels[key] as string) : '';
}

/** Whether the node satisfies the constraint. */
export function constraintHolds(constraint: Constraint, node: ConstraintNode): boolean {
  const equal = equalsValue(constraint, node);
  switch (constraint.operator) {
    case '==':
      return equal;
    case '!=':
      return !equal;
    default:
      return assertNever(constraint.operator);
  }
}

/** Whether the node satisfies every constraint. */
export function constraintsHold(constraints: readonly Constraint[], node: ConstraintNode): boolean {
  return constraints.every((constraint) => constraintHolds(constraint, node));
}

/** Where spread keys may look, as shown to users. */
export const spreadKeys = ['node.labels.<label>', 'engine.labels.<label>'] as const;

/** The value of a spread key on a node; a missing label is '', a branch of its own. */
export function spreadValue(key: string, node: ConstraintNode): string {
  const label = labelOfKey(key);
  if (label === null) return '';
  return labelValue(
    label.kind === 'node-label' ? node.spec.labels : node.description.engineLabels,
    label.label,
  );
}
