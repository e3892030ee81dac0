/** Names users give to objects, and the texts that explain what is wrong with one. */
import type { Problems } from './field-reader.ts';
import type { Labels } from './spec.ts';

/** Longest name of a service or network: one DNS label. */
export const NAME_LENGTH_MAX = 63;
/** Longest name of a secret or config. */
export const FILE_OBJECT_NAME_LENGTH_MAX = 64;

const DNS_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?$/;
const FILE_OBJECT_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?$/;

/** Checks the name of a service or network: it becomes a DNS name. */
export function checkDnsName(name: string, path: string, problems: Problems): void {
  if (name === '') problems.push(`${path}: must be given`);
  else if (name.length > NAME_LENGTH_MAX) {
    problems.push(`${path}: '${name}' has ${name.length} characters; use ${NAME_LENGTH_MAX} or fewer`);
  } else if (!DNS_NAME.test(name)) {
    problems.push(
      `${path}: '${name}' cannot be a DNS name; use letters, digits, '-' and '_', with a letter or digit at both ends`,
    );
  }
}

/** Checks the name of a secret or config. */
export function checkFileObjectName(name: string, path: string, problems: Problems): void {
  if (name === '') problems.push(`${path}: must be given`);
  else if (name.length > FILE_OBJECT_NAME_LENGTH_MAX || !FILE_OBJECT_NAME.test(name)) {
    problems.push(
      `${path}: '${name}' is no valid name; use up to ${FILE_OBJECT_NAME_LENGTH_MAX} letters, digits, '-', '_' and '.', with a letter or digit at both ends`,
    );
  }
}

/** Checks that no label has an empty key. */
export function checkLabels(labels: Labels, path: string, problems: Problems): void {
  if (Object.hasOwn(labels, '')) problems.push(`${path}: a label needs a key`);
}
