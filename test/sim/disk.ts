/**
 * The disk under one manager's raft log: slow, full, failing, hanging, and the place where a crash cuts.
 *
 * Data owned: what is durable. Invariants: a write is durable only when its event ran; a dead process writes nothing
 * any more; a broken variant acknowledges what is not durable yet, and a crash takes that away.
 */
import { SwarmdError } from '../../src/base/errors.ts';
import { MemoryDisk, MemoryStorage, type StorageStep } from '../../src/raft/memory-storage.ts';
import type { LogBatch, RaftStorage } from '../../src/raft/storage.ts';
import type { BrokenVariant, Dice } from './draws.ts';
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

const HANG_CHECK_MS = 50;

/** A disk and what is wrong with it. Survives the processes that use it. */
export class SimDisk {
  memory = new MemoryDisk();
  readonly state: DiskState = { delayMaxMs: 0, hangs: false, fails: null, onStep: () => {} };
  /** Hears of each batch that became durable. */
  onDurable: () => void = () => {};
  /** Hears of each batch just before it becomes durable. */
  onBatch: (batch: LogBatch) => void = () => {};

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
      state.onStep(step, 'after');
    };
    // Each life asks its own: what a dead one still tries never reaches the disk.
    const ownView = new Proxy(memory, {
      get: (disk, property) =>
        property === 'beforeStep' ? beforeStep : (Reflect.get(disk, property) as unknown),
    });
    const storage = new MemoryStorage(ownView);
    return this.#watched(owner, broken === 'commit-old-term' ? storage : lying(storage, broken));
  }

  #watched(owner: Process, storage: RaftStorage): RaftStorage {
    return {
      load: () => storage.load(),
      initialise: async (memberId, batch) => {
        await storage.initialise(memberId, batch);
        this.onDurable();
      },
      append: async (batch) => {
        if (owner.alive) this.onBatch(batch);
        await storage.append(batch);
        this.onDurable();
      },
      saveSnapshot: (snapshot, state, compacted) => storage.saveSnapshot(snapshot, state, compacted),
      installSnapshot: async (snapshot, state, hardState) => {
        await storage.installSnapshot(snapshot, state, hardState);
        this.onDurable();
      },
      snapshotSize: (index, term) => storage.snapshotSize(index, term),
      readSnapshotChunk: (index, term, chunk) => storage.readSnapshotChunk(index, term, chunk),
      close: () => storage.close(),
    };
  }
}

/** A storage that answers before the write is durable: of votes only, or of everything. */
function lying(storage: RaftStorage, broken: BrokenVariant | null): RaftStorage {
  if (broken === null) return storage;
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
