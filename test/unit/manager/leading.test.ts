/** Finding the leader, and what the leader does for the group of managers and for joiners. */
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import { ManualClock } from '../../../src/base/clock.ts';
import { SwarmdError } from '../../../src/base/errors.ts';
import { silentLogger } from '../../../src/base/log.ts';
import { seededRandom } from '../../../src/base/random.ts';
import { noLeaderError } from '../../../src/manager/group-refusals.ts';
import { admitNode, parseJoinRequest } from '../../../src/manager/joining.ts';
import { LEADER_WAIT_MS, LeaderCalls, Turns } from '../../../src/manager/leader-calls.ts';
import { Leadership } from '../../../src/manager/leadership.ts';
import { newRaftId } from '../../../src/manager/raft-id.ts';
import { encodeBatch } from '../../../src/manager/state/codec.ts';
import { StoreStateMachine } from '../../../src/manager/state-machine.ts';
import { createCertificateAuthority } from '../../../src/pki/certificate-authority.ts';
import { createJoinSecret, formatJoinToken, rootDigest } from '../../../src/pki/join-token.ts';
import { generatePrivateKey } from '../../../src/pki/key-pair.ts';
import { parseNodeCertificate } from '../../../src/pki/node-certificate.ts';
import { createSigningRequest } from '../../../src/pki/signing-request.ts';
import type { RaftMember } from '../../../src/raft/types.ts';
import type { RpcConnection } from '../../../src/rpc/types.ts';
import { aCluster, aNode } from '../../support/builders.ts';
import {
  aConnection,
  apiContext,
  aRaftStatus,
  type LogLine,
  MemoryLog,
  peerOf,
  recordingLogger,
} from '../../support/manager-fixtures.ts';
import { waitFor } from '../../support/wait.ts';

const quick = { timeoutMs: 2_000, everyMs: 1 };
const soon = (): AbortSignal => AbortSignal.timeout(10_000);
const member = (id: number): RaftMember => ({ id, nodeId: `m${id}`, address: `m${id}:1`, voter: true });

async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
}

describe('calls at the leader', () => {
  function setUp() {
    const clock = new ManualClock();
    const state: {
      leader: RaftMember | 'self' | null;
      connect: (member: RaftMember) => Promise<RpcConnection>;
    } = { leader: null, connect: ({ nodeId }) => Promise.resolve(aConnection(peerOf(nodeId, 'manager'))) };
    const calls = new LeaderCalls({
      clock,
      leader: () => state.leader,
      noLeader: () => noLeaderError(aRaftStatus([member(1), member(2), member(3)])),
      connect: (one) => state.connect(one),
    });
    const asked: string[] = [];
    const ask = (signal = soon()): Promise<string> =>
      calls.atLeader(signal, {
        here: () => {
          asked.push('here');
          return Promise.resolve('here');
        },
        there: (connection) => {
          asked.push(connection.peer?.nodeId ?? '');
          return Promise.resolve(connection.peer?.nodeId ?? '');
        },
      });
    return { clock, state, calls, ask, asked };
  }

  it('goes where the leader is, and waits for one to be elected', async () => {
    const it = setUp();
    it.state.leader = 'self';
    assert.equal(await it.ask(), 'here');
    it.state.leader = member(2);
    assert.equal(await it.ask(), 'm2');
    it.state.leader = null;
    const waiting = it.ask();
    await settle();
    it.calls.notify();
    await settle();
    it.state.leader = member(3);
    it.calls.notify();
    assert.equal(await waiting, 'm3');
    assert.equal(it.calls.waiting, 0);
  });

  it('gives up in its time with the counts, and leaves nothing behind', async () => {
    const it = setUp();
    const calls = Array.from({ length: 20 }, () => it.ask());
    await settle();
    assert.equal(it.calls.waiting, 20);
    it.clock.advance(LEADER_WAIT_MS);
    for (const call of calls) {
      await assert.rejects(call, {
        code: 'NO_LEADER',
        message: /2 of 3 managers must be up/,
        details: { voters: 3, needed: 2 },
      });
    }
    assert.equal(it.calls.waiting, 0);
  });

  it('ends when the caller gives up, and when the manager stops', async () => {
    const it = setUp();
    const giveUp = new AbortController();
    const call = it.ask(giveUp.signal);
    await settle();
    giveUp.abort();
    await assert.rejects(call, { code: 'CANCELLED' });
    const other = it.ask();
    await settle();
    it.calls.stop();
    await assert.rejects(other, { code: 'UNAVAILABLE', message: /stopping; ask another manager/ });
    await assert.rejects(it.ask(), { code: 'UNAVAILABLE' });
    assert.equal(it.calls.waiting, 0);
  });

  it('asks again where nothing was done: a leader that is none any more, or cannot be reached', async () => {
    const it = setUp();
    it.state.leader = member(2);
    let attempts = 0;
    it.state.connect = ({ nodeId }) => {
      attempts += 1;
      if (attempts === 1) return Promise.reject(new SwarmdError('UNAVAILABLE', 'refused'));
      return Promise.resolve(aConnection(peerOf(nodeId, 'manager')));
    };
    let served = 0;
    const call = it.calls.atLeader(soon(), {
      here: () => Promise.resolve('here'),
      there: () => {
        served += 1;
        if (served === 1) return Promise.reject(new SwarmdError('NO_LEADER', 'not any more'));
        return Promise.resolve('there');
      },
    });
    for (let i = 0; i < 3; i++) {
      await settle();
      it.clock.advance(100);
    }
    assert.equal(await call, 'there');
    assert.deepEqual([attempts, served], [3, 2]);
  });

  it('never asks again where something may have been done', async () => {
    const it = setUp();
    it.state.leader = 'self';
    for (const code of ['OUTCOME_UNKNOWN', 'UNAVAILABLE', 'CONFLICT'] as const) {
      let served = 0;
      const call = it.calls.atLeader(soon(), {
        here: () => {
          served += 1;
          return Promise.reject(new SwarmdError(code, 'no'));
        },
        there: () => Promise.resolve(),
      });
      await assert.rejects(call, { code });
      assert.equal(served, 1);
    }
  });

  it('names a leader that could not be reached in time', async () => {
    const it = setUp();
    it.state.leader = member(2);
    it.state.connect = () => Promise.reject(new SwarmdError('UNAVAILABLE', 'refused'));
    const call = it.ask();
    const refused = assert.rejects(call, {
      code: 'UNAVAILABLE',
      message: /the leader \(node m2 at m2:1\) cannot be reached .* check that it runs/,
    });
    for (let i = 0; i < LEADER_WAIT_MS / 100 + 2; i++) {
      await settle();
      it.clock.advance(100);
    }
    await refused;
  });

  it('a manager that is no member says so instead of counting', () => {
    const error = noLeaderError(aRaftStatus([], { memberId: 9 }));
    assert.match(error.message, /not part of the group of managers yet/);
  });

  it('takes turns, also after one that failed', async () => {
    const turns = new Turns();
    const order: number[] = [];
    const { promise: held, resolve: release } = Promise.withResolvers<void>();
    const first = turns.run(async () => {
      await held;
      order.push(1);
      throw new Error('first');
    });
    const second = turns.run(() => Promise.resolve(order.push(2)));
    await settle();
    assert.deepEqual(order, []);
    release();
    await assert.rejects(first, /first/);
    await second;
    assert.deepEqual(order, [1, 2]);
  });
});

describe('leadership: the group of managers', () => {
  function setUp(leaving: ReadonlySet<number> = new Set()) {
    const clock = new ManualClock();
    const stateMachine = new StoreStateMachine(silentLogger);
    const log = new MemoryLog();
    const lines: LogLine[] = [];
    const members: RaftMember[] = [member(1)];
    const added: number[] = [];
    const hangs = new Set<number>();
    const transfers = { count: 0, fails: false };
    let index = 0;
    const addNode = (raftId: number, role: 'manager' | 'worker' = 'manager'): void => {
      const manager = { raftId, address: `m${raftId}:1` };
      const object = aNode(`m${raftId}`, { manager, spec: { role } });
      stateMachine.apply(
        ++index,
        encodeBatch({ at: 1, actions: [{ kind: 'create', table: 'node', object }] }),
      );
    };
    const start = () =>
      new Leadership(3, {
        stateMachine,
        proposer: log,
        isLeaving: (id) => leaving.has(id),
        group: {
          status: () => aRaftStatus(members),
          removeMember: () => Promise.resolve(),
          transferLeadership: () => {
            transfers.count += 1;
            return transfers.fails
              ? Promise.reject(new SwarmdError('TIMEOUT', 'nobody took over'))
              : Promise.resolve();
          },
          addMember: (one, signal) => {
            added.push(one.id);
            if (!hangs.has(one.id)) {
              members.push(one);
              return Promise.resolve();
            }
            return new Promise((_resolve, reject) => {
              signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
            });
          },
        },
        clock,
        random: seededRandom(1),
        log: recordingLogger(lines),
      });
    return { clock, addNode, members, added, hangs, lines, start, transfers };
  }

  it('hands over when its own demotion was left half done, and tries again when nobody took over', async () => {
    const it = setUp();
    it.addNode(1, 'worker');
    it.transfers.fails = true;
    const alone = it.start();
    await settle();
    assert.equal(it.transfers.count, 0);
    it.addNode(2);
    await waitFor('the first try', () => it.transfers.count === 1, quick);
    await settle();
    it.clock.advance(1_000);
    await waitFor('the second try', () => it.transfers.count === 2, quick);
    await alone.stop();
  });

  it('adds what the state knows, at the start and later, and nobody twice', async () => {
    const it = setUp();
    it.addNode(1);
    it.addNode(2);
    const leadership = it.start();
    await waitFor('the second', () => it.members.length === 2, quick);
    it.addNode(3);
    await waitFor('the third', () => it.members.length === 3, quick);
    await settle();
    assert.deepEqual(it.added, [2, 3]);
    assert.equal(leadership.ended.aborted, false);
    await leadership.stop();
    assert.equal(leadership.ended.aborted, true);
  });

  it('one that never comes up does not keep the others out', async () => {
    const it = setUp();
    it.addNode(1);
    it.addNode(2);
    it.addNode(3);
    it.hangs.add(2);
    const leadership = it.start();
    await settle();
    assert.deepEqual(it.added, [2]);
    it.clock.advance(10_000);
    await waitFor('the third', () => it.members.some((one) => one.id === 3), quick);
    await settle();
    it.hangs.clear();
    it.clock.advance(1_000);
    await waitFor('the second', () => it.members.some((one) => one.id === 2), quick);
    await leadership.stop();
  });

  it('does not bring back one that is being removed', async () => {
    const it = setUp(new Set([2]));
    it.addNode(1);
    it.addNode(2);
    const leadership = it.start();
    it.addNode(3);
    await waitFor('the third', () => it.members.some((one) => one.id === 3), quick);
    await settle();
    assert.deepEqual(it.added, [3]);
    await leadership.stop();
  });

  it('stops in the middle of adding, and does nothing afterwards', async () => {
    const it = setUp();
    it.addNode(1);
    it.addNode(2);
    it.hangs.add(2);
    const leadership = it.start();
    await settle();
    await leadership.stop();
    it.hangs.clear();
    it.addNode(3);
    it.clock.advance(3_600_000);
    await settle();
    assert.deepEqual(it.added, [2]);
    assert.ok(it.lines.every((line) => line.level === 'info'));
  });
});

describe('joining', () => {
  const random = seededRandom(5);
  const secrets = { manager: createJoinSecret(random), worker: createJoinSecret(random) };
  let log: MemoryLog;
  let rootPem: string;
  let csrPem: string;

  beforeEach(async () => {
    const authority = await createCertificateAuthority({ clusterId: 'cluster', nowMs: Date.now() });
    rootPem = authority.certificatePem;
    csrPem = await createSigningRequest(await generatePrivateKey());
    log = new MemoryLog();
    log.nowMs = Date.now();
    const object = {
      ...aCluster(),
      rootCertificatePem: rootPem,
      rootKeyPem: authority.privateKeyPem,
      joinSecrets: secrets,
    };
    log.apply([{ kind: 'create', table: 'cluster', object }]);
  });

  const ask = (secret: string, over: object = {}, digest = rootDigest(rootPem)) => {
    const token = formatJoinToken({ digest, secret });
    const request = parseJoinRequest({ token, csrPem, address: '', port: 2377, hostname: 'new', ...over });
    return admitNode(apiContext(log), request, '192.0.2.8', soon());
  };

  for (const role of ['worker', 'manager'] as const) {
    it(`gives the role of the ${role} token, and a certificate that says so`, async () => {
      const answer = await ask(secrets[role]);
      assert.equal(answer.role, role);
      const certificate = parseNodeCertificate(answer.certificatePem);
      assert.ok(certificate.ok);
      assert.equal(certificate.value.identity.role, role);
      assert.equal(certificate.value.identity.nodeId, answer.nodeId);
      const node = log.store.get('node', answer.nodeId);
      assert.equal(node?.spec.role, role);
      assert.equal(node?.status.address, '192.0.2.8');
      assert.equal(node?.manager?.address, role === 'manager' ? '192.0.2.8:2377' : undefined);
      assert.equal(answer.raftId > 0, role === 'manager');
      assert.ok(!JSON.stringify(answer).includes('PRIVATE'));
    });
  }

  it('takes the address given, also of version 6', async () => {
    const answer = await ask(secrets.manager, { address: '2001:db8::1' });
    assert.equal(log.store.get('node', answer.nodeId)?.manager?.address, '[2001:db8::1]:2377');
  });

  it('refuses a token that is wrong, was rotated, or is of another cluster', async () => {
    await assert.rejects(ask(createJoinSecret(random)), {
      code: 'UNAUTHENTICATED',
      message: /it may have been rotated.*swarmd join-token worker/,
    });
    const other = await createCertificateAuthority({ clusterId: 'other', nowMs: Date.now() });
    await assert.rejects(ask(secrets.worker, {}, rootDigest(other.certificatePem)), {
      code: 'UNAUTHENTICATED',
      message: /belongs to another cluster/,
    });
    await assert.rejects(ask(secrets.worker, { token: 'SWMTKN-1-x' }), { code: 'UNAUTHENTICATED' });
    assert.equal(log.store.count('node'), 0, 'nothing of a refused join is left');
  });

  it('refuses what a stranger may send, naming the field', async () => {
    const good = { token: 't', csrPem: 'c', address: '', port: 1, hostname: 'h' };
    const bad: readonly (readonly [unknown, string])[] = [
      [null, 'token'],
      ['x', 'token'],
      [{ ...good, token: 7 }, 'token'],
      [{ ...good, csrPem: null }, 'csrPem'],
      [{ ...good, address: 'a b' }, 'address'],
      [{ ...good, address: 'x'.repeat(300) }, 'address'],
      [{ ...good, port: 70_000 }, 'port'],
      [{ ...good, port: '1' }, 'port'],
      [{ ...good, hostname: undefined }, 'hostname'],
    ];
    for (const [params, field] of bad) {
      assert.throws(() => parseJoinRequest(params), {
        code: 'INVALID_ARGUMENT',
        message: `the join request has no valid ${field}`,
      });
    }
    await assert.rejects(ask(secrets.worker, { csrPem: 'no request' }), {
      code: 'INVALID_ARGUMENT',
      message: /the join request is refused/,
    });
  });

  it('draws member ids that the log accepts', () => {
    for (let i = 0; i < 1_000; i++) {
      const id = newRaftId(random);
      assert.ok(Number.isSafeInteger(id) && id > 0 && id < 2 ** 48);
    }
  });
});
