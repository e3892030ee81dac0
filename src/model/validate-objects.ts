/**
 * Node, network, secret and config specs from outside: read, filled with defaults, and checked.
 *
 * Invariant: a refusal names each field that is wrong and what to do; payloads never appear in one.
 */
import type { Result } from '../base/result.ts';
import { CONFIG_BYTES_MAX, SECRET_BYTES_MAX } from './defaults.ts';
import {
  boolean,
  object,
  oneOf,
  optional,
  recordOf,
  required,
  resultOf,
  text,
  withDefault,
  type Problems,
  type Reader,
} from './field-reader.ts';
import { parseIpPrefix } from './ip-address.ts';
import { checkDnsName, checkFileObjectName, checkLabels } from './names.ts';
import type { ConfigSpec, NetworkSpec, NodeSpec, SecretSpec } from './spec.ts';

/** Prefix lengths a network's own subnet may have. */
const SUBNET_PREFIX_MIN = 8;
const SUBNET_PREFIX_MAX = 29;

const labels = recordOf(text);

function parse<T>(read: Reader<T>, check: (spec: T, problems: Problems) => void, value: unknown): Result<T> {
  const problems: Problems = [];
  const spec = read(value, '', problems);
  if (problems.length === 0) check(spec, problems);
  return resultOf(spec, problems);
}

function validate<T>(check: (spec: T, problems: Problems) => void, spec: T): Result<T> {
  const problems: Problems = [];
  check(spec, problems);
  return resultOf(spec, problems);
}

const readNodeSpec = object<NodeSpec>({
  labels: withDefault(labels, {}),
  role: withDefault(oneOf(['worker', 'manager']), 'worker'),
  availability: withDefault(oneOf(['active', 'pause', 'drain']), 'active'),
});

function checkNodeSpec(spec: NodeSpec, problems: Problems): void {
  checkLabels(spec.labels, 'labels', problems);
}

/** Reads a value from outside as a node spec. */
export function parseNodeSpec(value: unknown): Result<NodeSpec> {
  return parse(readNodeSpec, checkNodeSpec, value);
}

/** Checks the rules of a node spec that already has its shape. */
export function validateNodeSpec(spec: NodeSpec): Result<NodeSpec> {
  return validate(checkNodeSpec, spec);
}

const readNetworkSpec = object<NetworkSpec>({
  name: required(text),
  labels: withDefault(labels, {}),
  driver: withDefault(oneOf(['overlay', 'host', 'bridge']), 'overlay'),
  internal: withDefault(boolean, false),
  attachable: withDefault(boolean, false),
  ingress: withDefault(boolean, false),
  driverOptions: withDefault(recordOf(text), {}),
  subnet: optional(text),
});

/** Why `text` is no subnet for a network, or null. */
function subnetProblem(subnet: string): string | null {
  const prefix = parseIpPrefix(subnet);
  if (prefix === null || prefix.version !== 4)
    return `'${subnet}' is no IPv4 subnet; write one such as 10.0.1.0/24`;
  if (prefix.length < SUBNET_PREFIX_MIN || prefix.length > SUBNET_PREFIX_MAX) {
    return `/${prefix.length} is out of range; use /${SUBNET_PREFIX_MIN} to /${SUBNET_PREFIX_MAX}`;
  }
  const hostBits = prefix.value & ((1n << BigInt(32 - prefix.length)) - 1n);
  return hostBits === 0n
    ? null
    : `'${subnet}' is an address inside a subnet; write the subnet's first address`;
}

function checkNetworkSpec(spec: NetworkSpec, problems: Problems): void {
  checkDnsName(spec.name, 'name', problems);
  checkLabels(spec.labels, 'labels', problems);
  if (spec.subnet !== undefined) {
    const problem = subnetProblem(spec.subnet);
    if (problem !== null) problems.push(`subnet: ${problem}`);
    if (spec.driver === 'host') problems.push('subnet: a host network has no addresses of its own');
  }
  if (!spec.ingress) return;
  if (spec.driver !== 'overlay') problems.push(`ingress: the ingress network needs driver overlay`);
  if (spec.attachable) problems.push('attachable: the ingress network cannot be attachable');
  if (spec.internal) problems.push('internal: the ingress network cannot be internal');
}

/** Reads a value from outside as a network spec. */
export function parseNetworkSpec(value: unknown): Result<NetworkSpec> {
  return parse(readNetworkSpec, checkNetworkSpec, value);
}

/** Checks the rules of a network spec that already has its shape. */
export function validateNetworkSpec(spec: NetworkSpec): Result<NetworkSpec> {
  return validate(checkNetworkSpec, spec);
}

const payloadFields = { name: required(text), labels: withDefault(labels, {}), data: required(payloadText) };
const readSecretSpec = object<SecretSpec>(payloadFields);
const readConfigSpec = object<ConfigSpec>(payloadFields);

/** A text that a problem never quotes. */
function payloadText(value: unknown, path: string, problems: Problems): string {
  if (typeof value === 'string') return value;
  problems.push(`${path}: expected base64 text`);
  return '';
}

/** Decoded length of base64 text in bytes, or null when it is none. */
function base64Bytes(data: string): number | null {
  if (data.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(data)) return null;
  const padding = data.endsWith('==') ? 2 : data.endsWith('=') ? 1 : 0;
  return (data.length / 4) * 3 - padding;
}

function checkPayload(spec: SecretSpec | ConfigSpec, bytesMax: number, problems: Problems): void {
  checkFileObjectName(spec.name, 'name', problems);
  checkLabels(spec.labels, 'labels', problems);
  const bytes = base64Bytes(spec.data);
  if (bytes === null) problems.push('data: is no base64 text');
  else if (bytes === 0 || bytes >= bytesMax) {
    problems.push(`data: has ${bytes} bytes; must have more than 0 and fewer than ${bytesMax}`);
  }
}

function checkSecretSpec(spec: SecretSpec, problems: Problems): void {
  checkPayload(spec, SECRET_BYTES_MAX, problems);
}

function checkConfigSpec(spec: ConfigSpec, problems: Problems): void {
  checkPayload(spec, CONFIG_BYTES_MAX, problems);
}

/** Reads a value from outside as a secret spec. */
export function parseSecretSpec(value: unknown): Result<SecretSpec> {
  return parse(readSecretSpec, checkSecretSpec, value);
}

/** Checks the rules of a secret spec that already has its shape. */
export function validateSecretSpec(spec: SecretSpec): Result<SecretSpec> {
  return validate(checkSecretSpec, spec);
}

/** Reads a value from outside as a config spec. */
export function parseConfigSpec(value: unknown): Result<ConfigSpec> {
  return parse(readConfigSpec, checkConfigSpec, value);
}

/** Checks the rules of a config spec that already has its shape. */
export function validateConfigSpec(spec: ConfigSpec): Result<ConfigSpec> {
  return validate(checkConfigSpec, spec);
}
