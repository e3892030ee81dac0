/**
 * PURE: when a leader may take its next snapshot, and how much of the log that snapshot may drop.
 *
 * Invariants: a snapshot that is on its way to a follower is not replaced under it, and what a follower needs after
 * it (or lacks while it answers) is not dropped before it got it; otherwise a follower would never catch up with a
 * leader that writes faster than it receives. Both are bounded: a follower that takes too long is sent a newer one.
 */
import type { Progress } from './core/progress.ts';
import type { LogReader } from './core/stable-log.ts';

/** Bounds of what is kept for followers that are catching up. */
export const catchUpLimits = {
  /** Snapshots that may fall due while one is being sent. */
  dueSnapshots: 50,
  /** Payload bytes of entries kept for them. */
  keptBytes: 256 * 1024 * 1024,
} as const;

/** Members other than this one, by id. */
type Peers = Iterable<readonly [id: number, progress: Progress]>;

/** Whether the snapshot at `index` is on its way to a follower. */
export function isBeingSent(peers: Peers, index: number): boolean {
  for (const [, { state, pendingSnapshot }] of peers) {
    if (state === 'snapshot' && pendingSnapshot === index) return true;
  }
  return false;
}

/** The last entry that a follower has, or will have when its snapshot arrived. */
function standing(progress: Progress): number {
  switch (progress.state) {
    case 'snapshot':
      return progress.pendingSnapshot;
    case 'probe':
      return Math.max(progress.match, progress.next - 1);
    case 'replicate':
      return progress.match;
  }
}

/**
 * The last entry to drop, at most `wanted`: less while a follower that answers, and can be served from the log,
 * still needs older ones.
 */
export function compactionIndex(
  log: Pick<LogReader, 'firstIndex' | 'entries'>,
  peers: Peers,
  wanted: number,
  keptBytesMax: number = catchUpLimits.keptBytes,
): number {
  const first = log.firstIndex();
  let index = wanted;
  for (const [, progress] of peers) {
    const has = standing(progress);
    const isServed = progress.recentActive || progress.state === 'snapshot';
    if (isServed && has >= first - 1 && has < index) index = has;
  }
  if (index >= wanted) return wanted;
  let bytes = 0;
  for (const entry of log.entries(index + 1, wanted + 1, Number.MAX_SAFE_INTEGER)) bytes += entry.data.length;
  return bytes > keptBytesMax ? wanted : index;
}
