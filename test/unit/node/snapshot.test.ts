/** Backups and the log inspector: files and folders of this test, no daemon. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Level } from 'level';
import { systemRandom } from '../../../src/base/random.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { firstActions } from '../../../src/manager/first-state.ts';
import { decodeCheckpoint, encodeBatch, encodeCheckpoint } from '../../../src/manager/state/codec.ts';
import { Store } from '../../../src/manager/state/store.ts';
import { StoreStateMachine } from '../../../src/manager/state-machine.ts';
import { type ClusterId, newId, type NodeId, type SecretId } from '../../../src/model/ids.ts';
import type { Action } from '../../../src/manager/state/actions.ts';
import { inspectFolder } from '../../../src/node/inspect.ts';
import { readIdentity } from '../../../src/node/identity.ts';
import { lockFolder } from '../../../src/node/lock.ts';
import {
  decodeSnapshotFile,
  encodeSnapshotFile,
  readSnapshotFile,
  type SnapshotHeader,
} from '../../../src/node/snapshot-file.ts';
import { createCertificateAuthority } from '../../../src/pki/certificate-authority.ts';
import { encodeConfigChange } from '../../../src/raft/core/config-codec.ts';
import type { Entry } from '../../../src/raft/core/types.ts';
import { entryKey } from '../../../src/raft/keys.ts';
import { LevelStorage } from '../../../src/raft/level-storage.ts';
import { encodeContacts } from '../../../src/raft/members.ts';
import { readSnapshotState } from '../../../src/raft/storage.ts';
import { TestCli } from '../../support/cli.ts';

const random = systemRandom();
const SECRET = 'bmV2ZXIgc2hvd24=';

const header: SnapshotHeader = {
  format: 1,
  clusterId: 'c'.repeat(25),
  index: 40,
  term: 3,
  takenAt: 1_700_000_000_000,
  version: '1.2.3',
  members: [{ id: 5, nodeId: 'n1', address: '10.0.0.1:2377', voter: true }],
};

/** The first entry of a cluster, with one secret. */
async function actionsOf(clusterId: ClusterId, nodeId: NodeId): Promise<Action[]> {
  const authority = await createCertificateAuthority({ clusterId, nowMs: Date.now() });
  const first = firstActions(
    {
      clusterId,
      nodeId,
      raftId: 5,
      hostname: 'old-host',
      address: '10.0.0.1',
      managerAddress: '10.0.0.1:2377',
      rootCertificatePem: authority.certificatePem,
      rootKeyPem: authority.privateKeyPem,
      labels: {},
      availability: 'active',
      spec: {},
    },
    random,
  );
  const secret = {
    id: newId<SecretId>(random),
    meta: { version: 0, createdAt: 0, updatedAt: 0 },
    spec: { name: 'db-password', labels: {}, data: SECRET },
  };
  return [...first, { kind: 'create', table: 'secret', object: secret }];
}

describe('a snapshot file', () => {
  it('gives back what was written, and notices every changed byte of its state', () => {
    const state = new Uint8Array(1000).map((_, i) => i);
    const bytes = encodeSnapshotFile(header, state);
    const file = decodeSnapshotFile(bytes);
    assert.ok(file.ok);
    assert.deepEqual(file.value.header, header);
    assert.deepEqual(new Uint8Array(file.value.state), state);
    assert.equal(file.value.checksumOk, true);
    for (let at = bytes.length - 1032; at < bytes.length; at += 37) {
      const damaged = Buffer.from(bytes);
      damaged[at] = (damaged[at] as number) ^ 1;
      const read = decodeSnapshotFile(damaged);
      assert.ok(read.ok && !read.value.checksumOk, `byte ${at}`);
    }
  });

  it('that is cut short, longer or something else is refused in words', () => {
    const bytes = encodeSnapshotFile(header, new Uint8Array(100));
    for (let length = 0; length < bytes.length; length += 7) {
      assert.equal(decodeSnapshotFile(bytes.subarray(0, length)).ok, false, `${length} bytes`);
    }
    assert.match(
      JSON.stringify(decodeSnapshotFile(Buffer.concat([bytes, Buffer.alloc(1)]))),
      /cut short or added/,
    );
    assert.match(JSON.stringify(decodeSnapshotFile(Buffer.from('hello'))), /no swarmd snapshot/);
  });
});

describe('snapshot commands', () => {
  let folder: string;
  let cli: TestCli;
  const clusterId = newId<ClusterId>(random);
  const nodeId = newId<NodeId>(random);
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'swarmd-snap-'));
    cli = new TestCli();
    cli.cwd = folder;
    const store = new Store();
    store.apply(8, { at: 1, actions: await actionsOf(clusterId, nodeId) });
    cli.api.state = encodeCheckpoint(store.contents());
  });
  after(() => rm(folder, { recursive: true, force: true }));

  it('save a file that only its owner reads, and replace it whole', async () => {
    for (let round = 0; round < 2; round++) {
      const { stdout, stderr, exitCode } = await cli.run('snapshot', 'save', 'a.snap');
      assert.equal(exitCode, 0, stderr);
      assert.match(stdout, /at entry 9, term 1: \d+ bytes in .*a\.snap/);
    }
    assert.equal((await stat(join(folder, 'a.snap'))).mode & 0o777, 0o600);
    assert.equal((await cli.run('snapshot', 'save', 'no/such/folder/a')).exitCode, 1);
  });

  it('inspect it without showing a secret, and say when it is damaged', async () => {
    const { stdout, exitCode } = await cli.run('snapshot', 'inspect', 'a.snap');
    assert.equal(exitCode, 0);
    assert.match(stdout, /Entry: +9 of term 1/);
    assert.match(stdout, /1 cluster, 1 node, 0 service, 0 task, 1 network, 1 secret, 0 config/);
    assert.match(stdout, /Checksum: +matches/);
    assert.ok(!stdout.includes(SECRET));
    const bytes = await readFile(join(folder, 'a.snap'));
    bytes[bytes.length - 100] = (bytes[bytes.length - 100] as number) ^ 1;
    await writeFile(join(folder, 'bad.snap'), bytes);
    const bad = await cli.run('snapshot', 'inspect', 'bad.snap');
    assert.equal(bad.exitCode, 1);
    assert.match(bad.stdout, /DOES NOT MATCH/);
    const refused = await cli.run('snapshot', 'restore', 'bad.snap', '--data-dir', 'r0');
    assert.match(refused.stderr, /fails its checksum/);
    assert.equal((await cli.run('snapshot', 'inspect', 'none.snap')).exitCode, 1);
  });

  it('restore a folder whose only manager is new, with every object, and only once', async () => {
    const flags = ['--data-dir', 'r1', '--listen-addr', '127.0.0.1:0', '--label', 'zone=b'];
    const { stdout, stderr, exitCode } = await cli.run('snapshot', 'restore', 'a.snap', ...flags);
    assert.equal(exitCode, 0, stderr);
    assert.match(stdout, /Run it with: swarmd daemon --data-dir .*r1/);
    const dataDir = join(folder, 'r1');
    const known = await readIdentity(dataDir);
    assert.ok(known !== null);
    const { identity } = known;
    assert.equal(identity.clusterId, clusterId);
    assert.notEqual(identity.nodeId, nodeId);
    assert.notEqual(identity.raftId, 5);
    const storage = await LevelStorage.open(join(dataDir, 'raft'));
    const { snapshot } = await storage.load();
    assert.ok(snapshot !== null);
    assert.deepEqual(snapshot.config.voters, [identity.raftId]);
    const state = await readSnapshotState(storage, snapshot.index, snapshot.term);
    await storage.close();
    const machine = new StoreStateMachine(silentLogger);
    machine.restore(state as Uint8Array, snapshot.index);
    const nodes = [...machine.store.all('node')];
    assert.deepEqual(
      nodes.map(({ id, spec, status, manager }) => [id, spec.role, status.state, manager?.raftId]),
      [
        [nodeId, 'worker', 'down', undefined],
        [identity.nodeId, 'manager', 'unknown', identity.raftId],
      ],
    );
    const before = decodeCheckpoint(cli.api.state);
    assert.ok(before.ok);
    assert.deepEqual([...machine.store.all('secret')], before.value.tables.secret);
    assert.deepEqual([...machine.store.all('cluster')], before.value.tables.cluster);
    const again = await cli.run('snapshot', 'restore', 'a.snap', ...flags);
    assert.match(again.stderr, /belongs to node .* already/);
    assert.equal((await readIdentity(dataDir))?.identity.nodeId, identity.nodeId, 'it is left as it was');
  });

  it('leave no member behind when they fail', async () => {
    const flags = ['--data-dir', 'r2', '--listen-addr', '203.0.113.1:1'];
    assert.equal((await cli.run('snapshot', 'restore', 'a.snap', ...flags)).exitCode, 1);
    assert.equal(await readIdentity(join(folder, 'r2')), null);
  });

  it('are read back from the file as they were given', async () => {
    const { header: read } = await readSnapshotFile(join(folder, 'a.snap'));
    assert.equal(read.members[0]?.address, '10.0.0.1:2377');
    assert.equal(read.version, '0.0.0-test');
  });
});

describe('the log inspector', () => {
  let folder: string;
  let dataDir: string;
  const nodeId = newId<NodeId>(random);
  const config = (index: number, kind: 'add-voter' | 'add-learner', id: number): Entry => ({
    index,
    term: 1,
    kind: 'config',
    data: encodeConfigChange({
      transition: 'auto',
      steps: [{ kind, id }],
      context: encodeContacts([{ id, nodeId: `n${id}`, address: `host${id}:1` }]),
    }),
  });
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'swarmd-log-'));
    dataDir = join(folder, 'd');
    const lock = await lockFolder(dataDir);
    const storage = await LevelStorage.open(join(dataDir, 'raft'));
    await storage.load();
    const actions = await actionsOf(newId<ClusterId>(random), nodeId);
    const entries: Entry[] = [
      config(1, 'add-voter', 5),
      { index: 2, term: 2, kind: 'normal', data: new Uint8Array() },
      { index: 3, term: 2, kind: 'normal', data: encodeBatch({ at: 0, actions }) },
      { ...config(4, 'add-learner', 6), term: 2 },
      {
        index: 5,
        term: 2,
        kind: 'normal',
        data: encodeBatch({
          at: 0,
          actions: [{ kind: 'delete', table: 'service', id: 'gone', expect: null }],
        }),
      },
      { index: 6, term: 2, kind: 'normal', data: Uint8Array.of(0xc1) },
    ];
    await storage.initialise(5, { hardState: { term: 2, vote: 5, commit: 5 }, entries });
    await storage.close();
    await lock.release();
  });
  after(() => rm(folder, { recursive: true, force: true }));

  it('tells members, hard state, kinds and what entries did, never a secret', async () => {
    const cli = new TestCli();
    cli.cwd = folder;
    const { stdout, exitCode, stderr } = await cli.run(
      'log',
      'inspect',
      '--data-dir',
      'd',
      '--entries',
      '1..9',
    );
    assert.equal(exitCode, 0, stderr);
    assert.match(stdout, /Hard state: +term 2, vote 5, commit 5/);
    assert.match(stdout, /Entries: +1 to 6: 3 normal, 2 config, 1 empty, 0 damaged/);
    assert.match(stdout, /Members: +5 voter n5 at host5:1, 6 learner n6 at host6:1/);
    assert.match(
      stdout,
      /3 +2 +normal +\d+ +ok +1970\S+ create cluster \w+; create node \w+ \(old-host\);.*create secret db-password/,
    );
    assert.match(stdout, /delete service gone/);
    assert.match(stdout, /add-learner 6 \(host6:1\)/);
    assert.match(stdout, /6 +2 +normal +1 +ok +not readable/);
    assert.ok(!stdout.includes(SECRET));
    assert.ok(!stdout.includes('BEGIN'));
    const json = await cli.run('log', 'inspect', '--data-dir', 'd', '--entries', '5', '--format', 'json');
    assert.deepEqual(
      (JSON.parse(json.stdout) as { entries: { index: number }[] }).entries.map(({ index }) => index),
      [5],
    );
    assert.equal((await cli.run('log', 'inspect', '--data-dir', 'd', '--entries', '9..1')).exitCode, 125);
    assert.equal((await cli.run('log', 'inspect', '--data-dir', 'nothing')).exitCode, 1);
  });

  it('refuses while a daemon has the folder', async () => {
    const lock = await lockFolder(dataDir);
    try {
      await assert.rejects(inspectFolder(dataDir, null), { code: 'LOCKED' });
    } finally {
      await lock.release();
    }
    assert.deepEqual((await inspectFolder(dataDir, null)).damage, []);
  });

  it('goes on after damage and names all of it', async () => {
    const db = new Level<Uint8Array, Uint8Array>(join(dataDir, 'raft'), {
      keyEncoding: 'view',
      valueEncoding: 'view',
    });
    await db.open();
    const bytes = (await db.get(entryKey(3))) as Uint8Array;
    bytes[20] = (bytes[20] as number) ^ 1;
    await db.put(entryKey(3), bytes);
    await db.del(entryKey(5));
    await db.close();
    const report = await inspectFolder(dataDir, { from: 1, to: 10 });
    assert.deepEqual(report.damage, ['entry 3 fails its checksum', 'entries 5 to 5 are missing']);
    assert.equal(report.entries.find(({ index }) => index === 3)?.crcOk, false);
    assert.equal(report.counts.damaged, 1);
    const cli = new TestCli();
    cli.cwd = folder;
    const { stdout, exitCode } = await cli.run('log', 'inspect', '--data-dir', 'd');
    assert.equal(exitCode, 1);
    assert.match(stdout, /2 FAILED\n {2}entry 3 fails its checksum/);
  });
});
