/** What the core noted, as log lines. */
import { assertNever } from '../base/assert.ts';
import type { Logger } from '../base/log.ts';
import type { Note } from './core/state.ts';

/** Logs the core's notes. */
export function logNotes(log: Logger, notes: readonly Note[]): void {
  for (const note of notes) logNote(log, note);
}

function logNote(log: Logger, note: Note): void {
  switch (note.kind) {
    case 'became': {
      const { role, term, leader } = note;
      if (role === 'leader') log.info('raft leader elected: this node', { term });
      else log.debug('raft role changed', { role, term, leader });
      return;
    }
    case 'quorum-lost':
      log.warn('raft leadership given up: no quorum answers', { term: note.term });
      return;
    case 'config-switched':
      log.info('raft configuration changed', { ...note.config });
      return;
    case 'config-refused':
      log.warn('raft configuration change refused', { reason: note.reason });
      return;
    case 'snapshot-restored':
      log.info('raft snapshot received', { index: note.index, term: note.term });
      return;
    case 'snapshot-ignored':
      log.debug('raft snapshot ignored', { index: note.index, reason: note.reason });
      return;
    case 'snapshot-wanted':
      log.debug('raft snapshot wanted: the stored one does not know the follower', { by: note.by });
      return;
    case 'transfer-aborted':
      log.warn('raft leadership transfer given up', { to: note.to });
      return;
    default:
      assertNever(note);
  }
}
