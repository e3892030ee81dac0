/** Workers become managers and managers workers, in place; what would lose the cluster is refused. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Daemon } from '../e2e/lib/daemon.ts';
import { waitFor } from '../support/wait.ts';
import { ANSWER, LocalCluster } from './lib/cluster.ts';

describe('promote and demote', () => {
  let cluster: LocalCluster;
  let first: Daemon;
  let others: Daemon[];

  before(async () => {
    cluster = new LocalCluster();
    first = await cluster.init('r1');
    others = [await cluster.join('r2', first, 'worker'), await cluster.join('r3', first, 'worker')];
  });
  after(() => cluster.remove());

  const id = async (daemon: Daemon): Promise<string> => (await daemon.call('info', {})).nodeId;

  /** All of `daemons` are managers with a vote, and agree on a leader. */
  async function voters(daemons: readonly Daemon[]): Promise<void> {
    await waitFor('every manager to have a vote', async () => {
      const nodes = await (daemons[0] as Daemon).call('node.list', {});
      const managers = nodes.filter((node) => node.managerStatus !== undefined);
      const infos = await Promise.all(daemons.map((daemon) => daemon.call('info', {})));
      return (
        managers.length === daemons.length &&
        infos.every(
          ({ raft }) =>
            raft?.members === daemons.length && raft.role !== 'learner' && raft.leaderNodeId !== null,
        )
      );
    });
  }

  test('the only manager is not demoted', async () => {
    await assert.rejects(first.run('node', 'demote', await id(first)), /last manager/);
  });

  test('two workers become managers; tasks are not touched', async () => {
    await first.run(
      'service',
      'create',
      '--runtime',
      'process',
      '--name',
      'kept',
      '--replicas',
      '3',
      '-d',
      ...ANSWER,
    );
    await first.waitForRunning('kept', 3);
    const before = others.map((daemon) => daemon.taskProcesses());
    const out = await first.run(
      'node',
      'promote',
      await id(others[0] as Daemon),
      await id(others[1] as Daemon),
    );
    assert.equal(out.match(/promoted to a manager/g)?.length, 2, out);
    await voters([first, ...others]);
    assert.deepEqual(
      others.map((daemon) => daemon.taskProcesses()),
      before,
    );
    assert.match(await (others[1] as Daemon).run('service', 'ls'), /kept/);
  });

  test('the leader is demoted: it hands over, goes on as a worker, and is one after a restart', async () => {
    const out = await (others[0] as Daemon).run('node', 'demote', await id(first));
    assert.match(out, /demoted in the swarm/);
    await waitFor(
      'the old leader to be a worker',
      async () => (await first.call('info', {})).role === 'worker',
    );
    await voters(others);
    await assert.rejects(first.run('service', 'ls'), /not a swarm manager/);
    await first.kill();
    await first.start('daemon');
    assert.equal((await first.call('info', {})).role, 'worker');
    await (others[0] as Daemon).waitForRunning('kept', 3);
  });

  test('a demotion that would lose the quorum is refused with the numbers', async () => {
    const [leader, other] = others as [Daemon, Daemon];
    await (others[0] as Daemon).run('node', 'promote', await id(first));
    await voters([...others, first]);
    await other.kill();
    await waitFor('the dead manager to be seen', async () => {
      const nodes = await leader.call('node.list', {});
      return nodes.some((node) => node.status.state === 'down');
    });
    await assert.rejects(
      leader.run('node', 'demote', await id(first)),
      /would lose the quorum: 2 managers would remain and 2 of them must be up, but only 1 is/,
    );
  });
});
