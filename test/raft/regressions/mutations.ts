/**
 * What each named regression is proved with: the defect, put back into a copy of the sources as a textual change,
 * and the test that must then fail.
 *
 * Invariant: every `find` occurs exactly once in its file; when the code moves on, the mutation moves with it.
 */

/** One defect to put back. */
export interface Mutation {
  /** The regression, as the title of its test begins. */
  readonly regression: string;
  /** The test file, beside this one. */
  readonly test: string;
  /** The file to change, in src/raft. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

type Make = (regression: string, file: string, find: string, replace: string) => Mutation;

const provedIn =
  (test: string): Make =>
  (regression, file, find, replace) => ({ regression, test, file, find, replace });

const inCommitment = provedIn('commitment.test.ts');
const inReads = provedIn('reads.test.ts');
const inElections = provedIn('elections.test.ts');
const inTransfer = provedIn('transfer.test.ts');
const inConfiguration = provedIn('configuration.test.ts');
const inSnapshots = provedIn('snapshots.test.ts');
const inDisks = provedIn('disks.test.ts');

/** Every defect. */
export const mutations: readonly Mutation[] = [
  // Any entry on a majority is committed, whatever its term.
  inCommitment('fig8', 'core/log.ts', ' || !this.matchTerm(index, term)) return false;', ') return false;'),
  // The leader counts its own copy when it is appended, not when it is durable.
  inCommitment(
    'etcd-14370',
    'core/replication.ts',
    "send(core, message('append-response', core.config.id, { index: last }));",
    'const own = core.tracker.progress.get(core.config.id); if (own) { acknowledge(own, last); maybeCommit(core); }',
  ),
  // What is not known to be committed does not count when votes are asked for: as good as rolled back.
  inCommitment(
    'ccf-5674',
    'core/log.ts',
    'const lastTerm = this.lastTerm();\n    return term > lastTerm || (term === lastTerm && index >= this.lastIndex());',
    'const lastTerm = this.term(this.#committed);\n    return term > lastTerm || (term === lastTerm && index >= this.#committed);',
  ),
  // A write acknowledged in an older term counts.
  inCommitment(
    'append-aba',
    'core/step.ts',
    '} else if (received.term !== 0 && received.term < core.term) {',
    "} else if (received.term !== 0 && received.term < core.term && received.type !== 'storage-append-response') {",
  ),
  inCommitment(
    'dragonboat-249',
    'core/node.ts',
    'committedEntries: core.log.nextCommittedEntries(!asyncStorage),',
    'committedEntries: core.log.nextCommittedEntries(true),',
  ),
  inCommitment(
    'dragonboat-393',
    'core/state.ts',
    "draft.type === 'append-response' ||\n    draft.type === 'vote-response' ||",
    "(draft.type === 'append-response' && draft.to === core.config.id) ||\n    draft.type === 'vote-response' ||",
  ),
  inCommitment(
    'etcd-14143',
    'core/state.ts',
    "draft.type === 'append-response' ||\n    draft.type === 'vote-response' ||",
    "(draft.type === 'append-response' && draft.to === core.config.id) ||\n    draft.type === 'vote-response' ||",
  ),
  inCommitment(
    'dragonboat-254',
    'core/replication.ts',
    'const commit = Math.min(progress.match, core.log.committed);',
    'const commit = core.log.committed;',
  ),
  inCommitment(
    'redisraft-14',
    'applier.ts',
    'data: isChange ? EMPTY_BYTES : entry.data,',
    "data: isChange || this.#deps.core.state.role !== 'leader' ? EMPTY_BYTES : entry.data,",
  ),
  inCommitment(
    'redisraft-28',
    'core/state.ts',
    "draft.type === 'append-response' ||\n    draft.type === 'vote-response' ||",
    "draft.type === 'append-response' ||\n    (draft.type === 'vote-response' && draft.to === core.config.id) ||",
  ),
  inCommitment(
    'etcd-13766',
    'applier.ts',
    'const index = this.#sentIndex;',
    'const index = this.#deps.core.state.log.committed;',
  ),
  inCommitment(
    'raft-300',
    'startup.ts',
    'Math.max(stored.hardState.commit, snapshot.index)',
    'stored.hardState.commit',
  ),

  inReads(
    'etcd-7331',
    'core/reads.ts',
    '} else if (!committedInCurrentTerm(core)) {',
    '} else if (core.term < 0) {',
  ),
  inReads(
    'redisraft-18',
    'core/reads.ts',
    'if (isAlone && committedInCurrentTerm(core)) {',
    'if (isAlone) {',
  ),
  // The round of heartbeats is named by the reader's own number, which a repeated request brings again.
  inReads('etcd-20418', 'core/read-index.ts', 'queue.lastContext++;', 'queue.lastContext = request.context;'),
  inReads(
    'raft-rs-368',
    'core/reconfigure.ts',
    "takeConfirmed(core.reads, (acks) => voteResult(tracker, acks) === 'won'),",
    '[],',
  ),
  inReads('d-engine-381', 'core/reads.ts', "if (core.config.readOnly === 'lease') {", 'if (core.term > 0) {'),
  inReads(
    'stale reads by default',
    'core/follower.ts',
    "case 'read-index':\n    case 'transfer-leader':",
    "case 'read-index':\n      core.readStates.push({ index: core.log.committed, context: received.context });\n      return 'ok';\n    case 'transfer-leader':",
  ),
  inReads('stale reads by default', 'core/config.ts', "readOnly: 'safe',", "readOnly: 'lease',"),

  inElections(
    'etcd-8243',
    'core/step.ts',
    'send(core, message(type, received.from, { term: received.term }));',
    'send(core, message(type, received.from, { term: core.term }));',
  ),
  inElections(
    'etcd-8501',
    'core/step.ts',
    "} else if (type === 'pre-vote') {",
    '} else if (core.term < 0) {',
  ),
  inElections(
    'etcd-10355',
    'core/state.ts',
    "core.tracker.votes = new Map();\n  core.leader = NOBODY;\n  core.role = 'pre-candidate';",
    "core.tracker.votes = new Map();\n  core.role = 'pre-candidate';",
  ),

  inTransfer(
    'hashicorp-413',
    'reconfiguration.ts',
    'assertLeader(control);\n  const { state, members } = control;\n  const self',
    'const { state, members } = control;\n  const self',
  ),
  // The successor asks for a pre-vote first, in the old term.
  inTransfer('hashicorp-487', 'core/follower.ts', "hup(core, 'transfer');", "hup(core, 'pre-election');"),
  inTransfer(
    'hashicorp-570',
    'core/election.ts',
    "const context = campaignKind === 'transfer' ? FORCED_CAMPAIGN : 0;",
    'const context = FORCED_CAMPAIGN;',
  ),
  inTransfer('hashicorp-581', 'core/leader.ts', ' || core.transferee !== NOBODY) return', ') return'),

  inConfiguration(
    'single-server change of 2015',
    'core/node.ts',
    "if (!committedInCurrentTerm(this.#core)) return 'nothing of this term is committed yet';",
    '',
  ),
  inConfiguration(
    'rethinkdb-5289',
    'startup.ts',
    'if (bootstrap === undefined && options.join !== true) {',
    'if (memberId < 0) {',
  ),
  // A change counts from the moment it is proposed.
  inConfiguration(
    'redisraft-17',
    'core/reconfigure.ts',
    'core.pendingConfigIndex = core.log.lastIndex() + position + 1;',
    'applyConfigChange(core, configChangeOf(draft.data));',
  ),
  inConfiguration(
    'redisraft-44',
    'core/election.ts',
    ' || hasUnappliedConfigChange(core)) return;',
    ') return;',
  ),
  inConfiguration(
    'etcd-12359: a voter without',
    'core/step.ts',
    'core.log.maybeCommit(received.commit, received.rejectHint);',
    '',
  ),
  inConfiguration(
    'etcd-12359: the refusal',
    'core/follower.ts',
    'if (received.reject) core.log.maybeCommit(received.commit, received.logTerm);',
    '',
  ),
  // Found here, by random schedules.
  inConfiguration(
    'a candidate that learned',
    'core/reconfigure.ts',
    "if (core.role !== 'follower' && !promotable(core)) becomeFollower(core, core.term, NOBODY);",
    '',
  ),
  inConfiguration(
    'camunda-57386: members refused',
    'core/step.ts',
    'const type = isPre ?',
    'if (core.isLearner) return;\n  const type = isPre ?',
  ),
  inConfiguration(
    'camunda-57386: members refused',
    'core/step.ts',
    'const type = isPre ?',
    'if (!core.tracker.progress.has(received.from)) return;\n  const type = isPre ?',
  ),
  inConfiguration(
    'camunda-57386: a restart',
    'applier.ts',
    'if (change !== undefined && !this.#deps.ensureCommit(change.index)) return;',
    '',
  ),
  inConfiguration(
    'logcabin-205',
    'core/state.ts',
    'return own !== undefined && !own.isLearner && !core.log.hasPendingSnapshot();',
    'return own?.isLearner !== true && !core.log.hasPendingSnapshot();',
  ),
  inConfiguration(
    'matrixone-23281',
    'applier.ts',
    'config: core.config(),',
    'config: stable.snapshotConfig(),',
  ),

  inSnapshots(
    'willemt-118: an old append',
    'core/replication.ts',
    'if (request.index < core.log.committed) {',
    'if (core.term < 0) {',
  ),
  inSnapshots(
    'willemt-118: a snapshot was refused',
    'core/replication.ts',
    'if (core.log.matchTerm(snapshot.index, snapshot.term)) {',
    'if (core.log.lastIndex() >= snapshot.index) {',
  ),
  inSnapshots(
    'etcd-18055',
    'log-writer.ts',
    'if (index <= snapshot.index) this.#states.delete(index);',
    'this.#states.delete(index);',
  ),

  // Found here, by the test: the change undid what the snapshot said about the group.
  inSnapshots(
    'a change of the group that waited',
    'applier.ts',
    'isCovered ? core.config() : core.applyConfigChange(change)',
    'core.applyConfigChange(change)',
  ),

  inDisks(
    'hashicorp-503',
    'driver.ts',
    "if (state.role === 'leader' && !isAlone &&",
    'if (state.term < 0 && !isAlone &&',
  ),
  inDisks(
    'hashicorp-666',
    'driver.ts',
    "if (state.role === 'leader' && !isAlone &&",
    'if (state.term < 0 && !isAlone &&',
  ),
  inDisks(
    'hashicorp-612',
    'core/leader.ts',
    "if (progress.match < core.log.lastIndex() || progress.state === 'probe') sendAppend(core, received.from);",
    '',
  ),
  inDisks(
    'redisraft-43',
    'level-storage.ts',
    'if (index !== expected) throw damaged(this.#folder, `entry ${expected} is missing`);',
    '',
  ),
  // A new snapshot is written over the old one.
  inDisks('redisraft-654', 'level-storage.ts', 'const id = this.#nextSnapshotId++;', 'const id = 1;'),
];
