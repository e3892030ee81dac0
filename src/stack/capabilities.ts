/** Linux capabilities as users list them: normal names, ALL, and what wins where a name is added and dropped. */

export interface Capabilities {
  readonly add: readonly string[];
  readonly drop: readonly string[];
}

const ALL = 'ALL';
/** In a change: forget what was there. */
const RESET = 'RESET';

/** `net_admin` as `CAP_NET_ADMIN`; ALL and RESET stay. */
export function normalCapability(name: string): string {
  const upper = name.trim().toUpperCase();
  return upper === ALL || upper === RESET || upper.startsWith('CAP_') ? upper : `CAP_${upper}`;
}

function normalSet(names: readonly string[]): Set<string> {
  return new Set(names.map(normalCapability));
}

/** Sorted; ALL makes the others redundant. */
function listed(names: ReadonlySet<string>): string[] {
  return names.has(ALL) ? [ALL] : [...names].toSorted();
}

/** Normal names, each once; what is both added and dropped is added. */
export function effectiveCapabilities(given: Capabilities): Capabilities {
  const add = new Set(listed(normalSet(given.add)));
  const drop = new Set([...normalSet(given.drop)].filter((name) => !add.has(name)));
  return { add: listed(add), drop: listed(drop) };
}

/**
 * Capabilities after a change. Adding one that was dropped only takes it off the dropped ones, and the other way
 * round: so that a change can be taken back.
 */
export function changeCapabilities(before: Capabilities, change: Capabilities): Capabilities {
  const start = effectiveCapabilities(before);
  const toAdd = normalSet(change.add);
  const toDrop = normalSet(change.drop);
  const add = new Set(toAdd.has(RESET) ? [] : start.add);
  const drop = new Set(toDrop.has(RESET) ? [] : start.drop);
  for (const name of toDrop) {
    if (name === RESET || toAdd.has(name)) continue;
    if (!add.delete(name)) drop.add(name);
  }
  for (const name of toAdd) {
    if (name === RESET) continue;
    if (!drop.delete(name)) add.add(name);
  }
  return { add: listed(add), drop: listed(drop) };
}
