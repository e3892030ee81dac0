/**
 * The disk under one manager's raft log: slow, full, failing, hanging, lying, damaged, set back, and the place where
 * a crash cuts.
 *
 * Data owned: what is durable, what was durable before. Invariants: a write is durable only when its event ran; a
 * dead process writes nothing any more; a broken variant acknowledges what is not durable yet, and a crash takes
 * that away; damage is noticed when the log is opened.
 */
import { SwarmdError } from '../../src/base/errors.ts';
import type { Snapshot } from '../../src/raft/core/types.ts';
import { MemoryDisk, MemoryStorage, type StorageStep } from '../../src/raft/memory-storage.ts';
import type { LogBatch, RaftStorage, StoredState } from '../../src/raft/storage.ts';
import type { BrokenVariant } from './broken.ts';
import type { Dice } from './draws.ts';
import { type Damage, loadDamaged } from './damaged-log.ts';
import type { Process, VirtualTime } from './virtual-time.ts';

/** What is wrong with a disk now. */
export interface DiskState {
  delayMaxMs: number;
  /** Writes wait for a healed disk. */
  hangs: boolean;
  /** The next write fails so. */
  fails: 'fsync' | 'full' | null;
  /** Called before (`before`) and after each step that became durable; may crash the process. */
  onStep: (step: StorageStep, when: 'before' | 'after') => void;
}

/** Everything on a disk at one time. What it refers to never changes. */
export type DiskImage = Readonly<
  Pick<
    MemoryDisk,
    'memberId' | 'hardState' | 'compactedIndex' | 'compactedTerm' | 'entries' | 'snapshot' | 'snapshotState'
  >
>;

/** What is on a disk now. */
export function imageOf(disk: MemoryDisk): DiskImage {
  const { memberId, hardState, compactedIndex, compactedTerm, entries, snapshot, snapshotState } = disk;
  return { memberId, hardState, compactedIndex, compactedTerm, entries, snapshot, snapshotState };
}

/** The last entry on a disk. */
export function lastIndexOf(disk: Pick<MemoryDisk, 'entries' | 'compactedIndex'>): number {
  return disk.entries.at(-1)?.index ?? disk.compactedIndex;
}

const HANG_CHECK_MS = 50;
/** Earlier contents that are kept, to go back to. */
const IMAGES_MAX = 100;

/** A disk and what is wrong with it. Survives the processes that use it. */
export class SimDisk {
  memory = new MemoryDisk();
  readonly state: DiskState = { delayMaxMs: 0, hangs: false, fails: null, onStep: () => {} };
  /** Earlier contents, oldest first. */
  images: DiskImage[] = [];
  /** What is really on it since it says so of every write without doing it; empty while it does not lie. */
  lied: DiskImage[] = [];
  /** The next opening finds it damaged so. */
  damage: Damage | null = null;
  /** The last entry that was forgotten when it was set back to an earlier content; 0: it never was. */
  forgottenTo = 0;
  /** Hears of each batch that became durable. */
  onDurable: () => void = () => {};
  /** Hears of each batch just before it becomes durable. */
  onBatch: (batch: LogBatch) => void = () => {};
  /** Hears of each snapshot of the own state that became durable. */
  onSnapshot: (snapshot: Snapshot, state: Uint8Array) => void = () => {};

  get lies(): boolean {
    return this.lied.length > 0;
  }

  /** It was set back to an earlier content once: what its member confirmed since then was forgotten. */
  get wasSetBack(): boolean {
    return this.forgottenTo > 0;
  }

  /** Its member may be about to end, or to be lost. */
  get isDoubtful(): boolean {
    return this.lies || this.damage !== null || lastIndexOf(this.memory) < this.forgottenTo;
  }

  /** From now on nothing more is kept, until power is lost or the lie ends. */
  lie(): void {
    if (!this.lies) this.lied = [imageOf(this.memory)];
  }

  /** Puts an earlier content in place of the present one. */
  setBack(image: DiskImage): void {
    this.forgottenTo = Math.max(this.forgottenTo, lastIndexOf(this.memory));
    Object.assign(this.memory, image);
    this.images = this.images.filter((each) => each === image);
  }

  /** A storage for one life of the process. */
  open(time: VirtualTime, dice: Dice, owner: Process, broken: BrokenVariant | null): RaftStorage {
    const { memory } = this;
    // The last life's lock is gone with it.
    memory.locked = false;
    const beforeStep = async (step: StorageStep): Promise<void> => {
      const { state } = this;
      state.onStep(step, 'before');
      const delayMs = state.delayMaxMs === 0 ? 0 : dice.below(state.delayMaxMs + 1);
      await time.sleep(delayMs, owner, `disk ${step}`);
      while (state.hangs) await time.sleep(HANG_CHECK_MS, owner, 'disk hangs');
      const { fails } = state;
      if (fails !== null) {
        state.fails = null;
        throw new SwarmdError(
          fails === 'full' ? 'RESOURCE_EXHAUSTED' : 'UNAVAILABLE',
          fails === 'full' ? 'the disk is full' : 'fsync failed',
        );
      }
      const { forgottenTo } = this;
      state.onStep(step, 'after');
      // The power went, and with it this write and others before it: it must not follow on what is left.
      if (this.forgottenTo !== forgottenTo) throw new SwarmdError('UNAVAILABLE', 'the power went');
    };
    // Each life asks its own: what a dead one still tries never reaches the disk.
    const ownView = new Proxy(memory, {
      get: (disk, property) =>
        property === 'beforeStep' ? beforeStep : (Reflect.get(disk, property) as unknown),
    });
    return this.#watched(owner, lying(new MemoryStorage(ownView), broken), broken);
  }

  #watched(owner: Process, storage: RaftStorage, broken: BrokenVariant | null): RaftStorage {
    return {
      load: () => this.#load(storage, broken),
      initialise: async (memberId, batch) => {
        await storage.initialise(memberId, batch);
        this.#written();
      },
      append: async (batch) => {
        if (owner.alive) this.onBatch(batch);
        await storage.append(batch);
        this.#written();
      },
      saveSnapshot: async (snapshot, state, compacted) => {
        await storage.saveSnapshot(snapshot, state, compacted);
        this.#keepImage();
        if (owner.alive) this.onSnapshot(snapshot, state);
      },
      installSnapshot: async (snapshot, state, hardState) => {
        await storage.installSnapshot(snapshot, state, hardState);
        this.#written();
      },
      snapshotSize: (index, term) => storage.snapshotSize(index, term),
      readSnapshotChunk: (index, term, chunk) => storage.readSnapshotChunk(index, term, chunk),
      close: () => storage.close(),
    };
  }

  async #load(storage: RaftStorage, broken: BrokenVariant | null): Promise<StoredState> {
    const { damage } = this;
    if (damage === null) return await storage.load();
    return await loadDamaged(this.memory, damage, broken === 'trust-damaged-log');
  }

  #written(): void {
    this.#keepImage();
    this.onDurable();
  }

  #keepImage(): void {
    const image = imageOf(this.memory);
    this.images.push(image);
    if (this.images.length > IMAGES_MAX) this.images.shift();
    if (this.lies) this.lied.push(image);
  }
}

/** A storage that answers before the write is durable: of votes only, or of everything. */
function lying(storage: RaftStorage, broken: BrokenVariant | null): RaftStorage {
  if (broken !== 'vote-before-durable' && broken !== 'ack-before-durable') return storage;
  let tail: Promise<void> = Promise.resolve();
  const later = (write: () => Promise<void>): Promise<void> => {
    tail = tail.then(write);
    return tail;
  };
  return {
    load: () => storage.load(),
    initialise: (memberId, batch) => storage.initialise(memberId, batch),
    append: (batch) => {
      const written = later(() => storage.append(batch));
      const waits = broken === 'vote-before-durable' && batch.entries.length > 0;
      return waits ? written : Promise.resolve();
    },
    saveSnapshot: (snapshot, state, compacted) =>
      later(() => storage.saveSnapshot(snapshot, state, compacted)),
    installSnapshot: (snapshot, state, hardState) =>
      later(() => storage.installSnapshot(snapshot, state, hardState)),
    snapshotSize: (index, term) => storage.snapshotSize(index, term),
    readSnapshotChunk: (index, term, chunk) => storage.readSnapshotChunk(index, term, chunk),
    close: () => storage.close(),
  };
}
