/**
 * Who the members are beyond their ids: their nodes and addresses.
 *
 * Data owned: a table that follows the configuration. It travels in the context of configuration changes and
 * in the `data` of snapshots, so that every member that knows the configuration knows the addresses.
 */
import { SwarmdError } from '../base/errors.ts';
import type { ConfigChange } from './core/membership.ts';
import type { ConfigState } from './core/types.ts';
import type { RaftMember } from './types.ts';

/** How to reach a member. */
export interface Contact extends Pick<RaftMember, 'id' | 'nodeId' | 'address'> {
  /** The group was forced to go on without it: it is never listened to again. */
  readonly expelled?: true;
}

const MEMBER_ID_MAX = 2 ** 48 - 1;

/** Whether `id` can be a member's: a positive integer of at most 48 bits. */
export function isMemberId(id: unknown): id is number {
  return typeof id === 'number' && Number.isInteger(id) && id > 0 && id <= MEMBER_ID_MAX;
}

/** Encodes how to reach members. */
export function encodeContacts(contacts: readonly Contact[]): Uint8Array {
  const rows = contacts.map(({ id, nodeId, address, expelled }) =>
    expelled === true ? { id, nodeId, address, expelled } : { id, nodeId, address },
  );
  return new TextEncoder().encode(JSON.stringify(rows));
}

/** Decodes what {@link encodeContacts} wrote; null when it is something else. */
export function parseContacts(bytes: Uint8Array): readonly Contact[] | null {
  try {
    const rows = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as unknown;
    return Array.isArray(rows) && rows.every(isContact) ? rows : null;
  } catch {
    return null;
  }
}

/** Decodes stored contacts; CORRUPT when that cannot be done. */
export function decodeContacts(bytes: Uint8Array): readonly Contact[] {
  if (bytes.length === 0) return [];
  const contacts = parseContacts(bytes);
  if (contacts !== null) return contacts;
  throw new SwarmdError(
    'CORRUPT',
    'the member list in the raft log cannot be read; remove this manager from the cluster and join again',
  );
}

function isContact(row: unknown): row is Contact {
  if (typeof row !== 'object' || row === null) return false;
  const { id, nodeId, address, expelled } = row as Record<string, unknown>;
  if (expelled !== undefined && expelled !== true) return false;
  return isMemberId(id) && typeof nodeId === 'string' && typeof address === 'string';
}

/** The members and how to reach them. */
export class MemberTable {
  #contacts = new Map<number, Contact>();
  readonly #expelled = new Map<number, Contact>();
  #expelledIds: readonly number[] = [];
  /** Where members say they are by now; the log may not say so yet. */
  readonly #moved = new Map<number, string>();
  /** The entry that last changed the group, or stands for it: the table follows the log up to there. */
  #index = 0;
  /** What a leader or candidate says of a log that is further, until the own log is as far. */
  #learned: { readonly index: number; readonly contacts: ReadonlyMap<number, Contact> } | null = null;
  #config: ConfigState;
  #list: readonly RaftMember[] = [];
  #reach: readonly RaftMember[] = [];

  constructor(config: ConfigState, contacts: readonly Contact[]) {
    this.#config = config;
    this.#take(contacts);
    this.#rebuild();
  }

  /** Every member, by ascending id. The same array until something changes. */
  get list(): readonly RaftMember[] {
    return this.#list;
  }

  /** Every member where it is by now, by ascending id. The same array until something changes. */
  get reach(): readonly RaftMember[] {
    return this.#reach;
  }

  /** The configuration the table follows. */
  get config(): ConfigState {
    return this.#config;
  }

  /** Index of the entry up to which the table follows the log; 0 before any. */
  get index(): number {
    return this.#index;
  }

  get(id: number): RaftMember | null {
    return this.#list.find((member) => member.id === id) ?? null;
  }

  /** How to reach `id`, also shortly after it left (its last messages are still under way). */
  contact(id: number): RaftMember | null {
    const known = this.#learned?.contacts.get(id) ?? this.#contacts.get(id);
    if (known === undefined) return null;
    const { nodeId } = known;
    const address = this.#moved.get(id) ?? known.address;
    return { id, nodeId, address, voter: this.get(id)?.voter ?? false };
  }

  /** Whether the group was forced to go on without `id`. */
  isExpelled(id: number): boolean {
    return this.#expelled.has(id);
  }

  /** The members the group was forced to go on without, by ascending id. */
  get expelled(): readonly number[] {
    return this.#expelledIds;
  }

  /** Notes where a member says it is, until the log says where. */
  moved(id: number, address: string): void {
    if (!this.#contacts.has(id)) return;
    this.#moved.set(id, address);
    this.#rebuildReach();
  }

  /**
   * Takes what another member's log says up to `index`. Where that is further than the own log it counts instead: what
   * is still to be received may say that the leader moved, and could not be acknowledged at its old address.
   */
  learn(contacts: readonly Contact[], index: number): void {
    if (index <= Math.max(this.#index, this.#learned?.index ?? 0)) return;
    const rows = contacts.filter(({ id }) => !this.#expelled.has(id));
    const named = rows.map(({ id, nodeId, address }) => [id, { id, nodeId, address }] as const);
    this.#learned = { index, contacts: new Map(named) };
    this.#rebuildReach();
  }

  /** Takes the change at `index` that was applied, and the configuration it led to. */
  apply(change: ConfigChange, config: ConfigState, index: number): void {
    this.#take(decodeContacts(change.context));
    this.#follow(config, index);
  }

  /** Replaces everything by what a snapshot of the state after entry `index` says. */
  restore(config: ConfigState, data: Uint8Array, index: number): void {
    this.#contacts = new Map();
    this.#take(decodeContacts(data));
    this.#follow(config, index);
  }

  #follow(config: ConfigState, index: number): void {
    this.#config = config;
    this.#index = index;
    if (this.#learned !== null && this.#learned.index <= index) this.#learned = null;
    this.#rebuild();
  }

  /** The contacts of the present members, and who was expelled, for a snapshot. */
  encode(): Uint8Array {
    return encodeContacts([...this.#list, ...this.expelled.map((id) => this.#expelled.get(id) as Contact)]);
  }

  #take(contacts: readonly Contact[]): void {
    for (const contact of contacts) {
      this.#moved.delete(contact.id);
      if (contact.expelled === true) {
        this.#expelled.set(contact.id, contact);
        this.#contacts.delete(contact.id);
        this.#expelledIds = [...this.#expelled.keys()].sort((a, b) => a - b);
      } else {
        this.#contacts.set(contact.id, contact);
      }
    }
  }

  #rebuild(): void {
    const { voters, votersOutgoing, learners, learnersNext } = this.#config;
    const ids = new Set([...voters, ...votersOutgoing, ...learners, ...learnersNext]);
    this.#list = [...ids]
      .sort((a, b) => a - b)
      .map((id) => ({
        id,
        nodeId: this.#contacts.get(id)?.nodeId ?? '',
        address: this.#contacts.get(id)?.address ?? '',
        voter: voters.includes(id) || votersOutgoing.includes(id),
      }));
    this.#rebuildReach();
  }

  #rebuildReach(): void {
    this.#reach = this.#list.map((member) => this.contact(member.id) ?? member);
  }
}
