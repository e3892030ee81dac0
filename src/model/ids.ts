/**
 * Branded identifiers. The only place that mints them.
 *
 * Invariant: an id is 25 characters of 0-9a-z and never reused.
 */
import { randomBase36, type Random } from '../base/random.ts';

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

export type ClusterId = Branded<'cluster'>;
export type NodeId = Branded<'node'>;
export type ServiceId = Branded<'service'>;
export type TaskId = Branded<'task'>;
export type NetworkId = Branded<'network'>;
export type SecretId = Branded<'secret'>;
export type ConfigId = Branded<'config'>;

/** Length of every id, in characters. */
export const ID_LENGTH = 25;

/** A fresh random id of the kind the caller names: `newId<TaskId>(random)`. */
export function newId<Id extends string>(random: Random): Id {
  return randomBase36(random, ID_LENGTH) as Id;
}

/** Whether `text` has the form of an id. */
export function isId(text: string): boolean {
  return /^[0-9a-z]{25}$/.test(text);
}

/** Brands a text read from the outside once its form was checked; null when it is no id. */
export function parseId<Id extends string>(text: string): Id | null {
  return isId(text) ? (text as Id) : null;
}
