import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { seededRandom } from '../../../src/base/random.ts';
import {
  isLeaderMethod,
  type LeaderMethod,
  leaderMethodNames,
  runMethod,
} from '../../../src/manager/api/methods.ts';
import { nearest } from '../../../src/manager/api/lookup.ts';
import type { NodeApiContext } from '../../../src/manager/api/nodes.ts';
import { BATCH_BYTES_MAX } from '../../../src/manager/state/actions.ts';
import type { ApiParams, ApiResult } from '../../../src/model/api.ts';
import type { NetworkId, NodeId } from '../../../src/model/ids.ts';
import { STACK_LABEL } from '../../../src/model/objects.ts';
import { createCertificateAuthority, nodeCertificateLifeMs } from '../../../src/pki/certificate-authority.ts';
import { parseJoinToken } from '../../../src/pki/join-token.ts';
import type { RaftMember } from '../../../src/raft/types.ts';
import { aCluster, aNode, aServiceSpec, aTask, aTaskSpec } from '../../support/builders.ts';
import { apiContext, MemoryLog } from '../../support/manager-fixtures.ts';

const soon = AbortSignal.timeout(30_000);

function setUp(members: RaftMember[] = [], log = new MemoryLog()) {
  const context = apiContext(log, members);
  const call = <M extends LeaderMethod>(method: M, params: ApiParams<M>): Promise<ApiResult<M>> =>
    runMethod(context, method, params, soon) as Promise<ApiResult<M>>;
  return { log, context, call };
}

type Api = ReturnType<typeof setUp>;

/** A second leader on the same log, as a caller that is not in the first one's turn. */
function another({ log }: Api): Api {
  return setUp([], log);
}

/** Runs a method with parameters of any shape. */
function raw({ context }: { context: NodeApiContext }, method: string, params: unknown): Promise<unknown> {
  return runMethod(context, method as Parameters<typeof runMethod>[1], params, soon);
}

const base64 = (text: string): string => Buffer.from(text).toString('base64');

/** One object of each kind, with the call that makes it. */
const makers = {
  service: (api: Api, name: string) => api.call('service.create', { spec: aServiceSpec(name) }),
  network: (api: Api, name: string) =>
    api.call('network.create', {
      spec: {
        name,
        labels: {},
        driver: 'overlay',
        internal: false,
        attachable: false,
        ingress: false,
        driverOptions: {},
      },
    }),
  secret: (api: Api, name: string) =>
    api.call('secret.create', { spec: { name, labels: {}, data: base64('hidden') } }),
  config: (api: Api, name: string) =>
    api.call('config.create', { spec: { name, labels: {}, data: base64('open') } }),
};

for (const kind of ['service', 'network', 'secret', 'config'] as const) {
  describe(`API: ${kind}`, () => {
    it('is made, listed, found by id, prefix and name, and removed', async () => {
      const api = setUp();
      const made = await makers[kind](api, 'one');
      await makers[kind](api, 'two');
      assert.equal(made.spec.name, 'one');
      assert.ok(made.meta.version > 0);
      const listed = (await raw(api, `${kind}.list`, {})) as { id: string }[];
      assert.equal(listed.length, 2);
      for (const ref of [made.id, made.id.slice(0, 12), 'one']) {
        const found = (await raw(api, `${kind}.inspect`, { ref })) as { id: string };
        assert.equal(found.id, made.id);
      }
      assert.equal(await raw(api, `${kind}.remove`, { ref: 'one' }), null);
      await assert.rejects(raw(api, `${kind}.inspect`, { ref: made.id }), { code: 'NOT_FOUND' });
    });

    it('is not found with the nearest name, and a prefix of several is ambiguous', async () => {
      const api = setUp();
      const made = await makers[kind](api, 'frontend');
      for (const verb of ['inspect', 'remove']) {
        await assert.rejects(raw(api, `${kind}.${verb}`, { ref: 'frontned' }), {
          code: 'NOT_FOUND',
          message: `${kind} frontned not found; did you mean frontend?`,
        });
        await assert.rejects(raw(api, `${kind}.${verb}`, { ref: 'zzzzzzzzzz' }), {
          message: `${kind} zzzzzzzzzz not found`,
        });
        await assert.rejects(raw(api, `${kind}.${verb}`, { ref: '' }), { code: 'INVALID_ARGUMENT' });
      }
      // Another id with the same beginning.
      const { context, log } = api;
      const twin = { ...(context.view.get(kind, made.id) as object), id: `${made.id.slice(0, 24)}!` };
      const object = { ...twin, spec: { ...made.spec, name: 'other' } };
      log.apply([{ kind: 'create', table: kind, object } as never]);
      await assert.rejects(raw(api, `${kind}.inspect`, { ref: made.id.slice(0, 10) }), {
        code: 'AMBIGUOUS',
        message: /is ambiguous \(2 matches found\); give more of the id/,
      });
    });

    it('is refused a name that is taken, also when another caller was first', async () => {
      const api = setUp();
      await makers[kind](api, 'one');
      await assert.rejects(makers[kind](api, 'one'), { code: 'ALREADY_EXISTS', message: /choose another/ });
      api.log.before = async () => {
        api.log.before = () => Promise.resolve();
        await makers[kind](another(api), 'two');
      };
      await assert.rejects(makers[kind](api, 'two'), { code: 'ALREADY_EXISTS', message: /named two exists/ });
    });

    it('is listed by stack', async () => {
      const api = setUp();
      await makers[kind](api, 'one');
      const { spec } = await makers[kind](api, 'two');
      const staged = { ...spec, name: 'three', labels: { [STACK_LABEL]: 'app' }, data: base64('x') };
      if (kind !== 'secret' && kind !== 'config') Reflect.deleteProperty(staged, 'data');
      await raw(api, `${kind}.create`, { spec: staged });
      const listed = (await raw(api, `${kind}.list`, { stack: 'app' })) as { spec: { name: string } }[];
      assert.deepEqual(
        listed.map((one) => one.spec.name),
        ['three'],
      );
    });
  });
}

describe('API: service updates', () => {
  it('takes an update of the version that was read, and refuses a stale one', async () => {
    const api = setUp();
    const made = await makers.service(api, 'web');
    const spec = { ...made.spec, labels: { tier: 'front' } };
    const updated = await api.call('service.update', { ref: 'web', version: made.meta.version, spec });
    assert.ok(updated.meta.version > made.meta.version);
    assert.equal(updated.spec.labels['tier'], 'front');
    await assert.rejects(api.call('service.update', { ref: 'web', version: made.meta.version, spec }), {
      code: 'CONFLICT',
      message: /^update out of sequence: service web is at version \d+, .*read it again/,
      details: { expected: made.meta.version, actual: updated.meta.version },
    });
  });

  it('refuses an update that lost a race in the log', async () => {
    const api = setUp();
    const made = await makers.service(api, 'web');
    api.log.before = async () => {
      api.log.before = () => Promise.resolve();
      const params = { ref: 'web', version: made.meta.version, spec: made.spec };
      await another(api).call('service.update', params);
    };
    const spec = { ...made.spec, labels: { late: 'yes' } };
    await assert.rejects(api.call('service.update', { ref: 'web', version: made.meta.version, spec }), {
      code: 'CONFLICT',
      message: /update out of sequence/,
    });
  });

  it('refuses another name or mode', async () => {
    const api = setUp();
    const made = await makers.service(api, 'web');
    const { version } = made.meta;
    await assert.rejects(
      api.call('service.update', { ref: made.id, version, spec: { ...made.spec, name: 'www' } }),
      {
        code: 'FAILED_PRECONDITION',
        message: 'service web cannot be renamed; create another one',
      },
    );
    const global = { ...made.spec, mode: { kind: 'global' } as const };
    await assert.rejects(api.call('service.update', { ref: 'web', version, spec: global }), {
      code: 'FAILED_PRECONDITION',
      message: /cannot change from replicated to global; remove the service and create it again/,
    });
  });

  it('rolls back to the previous spec, and refuses where there is none', async () => {
    const api = setUp();
    const made = await makers.service(api, 'web');
    await assert.rejects(api.call('service.rollback', { ref: 'web', version: made.meta.version }), {
      code: 'FAILED_PRECONDITION',
    });
    const task = aTaskSpec({ container: { ...made.spec.task.container, image: 'web:2' } });
    const updated = await api.call('service.update', {
      ref: 'web',
      version: made.meta.version,
      spec: { ...made.spec, task },
    });
    await assert.rejects(api.call('service.rollback', { ref: 'web', version: made.meta.version }), {
      code: 'CONFLICT',
    });
    const back = await api.call('service.rollback', { ref: 'web', version: updated.meta.version });
    assert.equal(back.spec.task.container.image, 'web:1');
  });

  it('names the service that has the port', async () => {
    const api = setUp();
    const ports = [{ protocol: 'tcp', targetPort: 80, publishedPort: 8080, publishMode: 'ingress' } as const];
    const first = aServiceSpec('first', { endpoint: { mode: 'vip', ports } });
    await api.call('service.create', { spec: first });
    await assert.rejects(
      api.call('service.create', { spec: aServiceSpec('second', { endpoint: first.endpoint }) }),
      {
        code: 'FAILED_PRECONDITION',
        message: /port 8080\/tcp is already in use by service first \(id .*publish another one/,
      },
    );
    const [host] = ports.map((port) => ({ ...port, publishMode: 'host' as const }));
    const other = aServiceSpec('third', {
      endpoint: { mode: 'vip', ports: [host as NonNullable<typeof host>] },
    });
    const third = await api.call('service.create', { spec: other });
    const spec = { ...third.spec, endpoint: first.endpoint };
    await assert.rejects(
      api.call('service.update', { ref: 'third', version: third.meta.version, spec }),
      /in use by service first/,
    );
  });

  it('gives a port to one of two that ask for it at the same time, and keeps a network that is being used', async () => {
    const api = setUp();
    await makers.network(api, 'back');
    const ports = [{ protocol: 'tcp', targetPort: 80, publishedPort: 8080, publishMode: 'ingress' } as const];
    const spec = (name: string) =>
      aServiceSpec(name, {
        endpoint: { mode: 'vip', ports },
        task: aTaskSpec({ networks: [{ target: 'back' as NetworkId, aliases: [] }] }),
      });
    const results = await Promise.allSettled([
      api.call('service.create', { spec: spec('one') }),
      api.call('service.create', { spec: spec('two') }),
      api.call('network.remove', { ref: 'back' }),
    ]);
    assert.deepEqual(
      results.map((result) => result.status),
      ['fulfilled', 'rejected', 'rejected'],
    );
    assert.equal(api.log.store.count('network'), 1);
  });

  it('resolves networks, secrets and configs by name, and names what is missing', async () => {
    const api = setUp();
    const network = await makers.network(api, 'back');
    const secret = await makers.secret(api, 'key');
    const config = await makers.config(api, 'site');
    const file = (name: string) => ({
      id: '' as never,
      name,
      file: { name: `/run/${name}`, uid: '0', gid: '0', mode: 0o444 },
    });
    const task = aTaskSpec({ networks: [{ target: 'back' as NetworkId, aliases: [] }] });
    const container = { ...task.container, secrets: [file('key')], configs: [file('site')] };
    const spec = aServiceSpec('web', { task: { ...task, container } });
    const made = await api.call('service.create', { spec });
    assert.equal(made.spec.task.networks[0]?.target, network.id);
    assert.equal(made.spec.task.container.secrets[0]?.id, secret.id);
    assert.equal(made.spec.task.container.configs[0]?.id, config.id);
    for (const [kind, name] of [
      ['network', 'back'],
      ['secret', 'key'],
      ['config', 'site'],
    ] as const) {
      await assert.rejects(api.call(`${kind}.remove`, { ref: name }), {
        code: 'FAILED_PRECONDITION',
        message: `${kind} ${name} is in use by the following service: web; remove or update it first`,
        details: { services: ['web'] },
      });
    }
    await api.call('service.remove', { ref: 'web' });
    for (const [kind, ref] of [
      ['network', 'back'],
      ['secret', 'key'],
      ['config', 'site'],
    ] as const) {
      assert.equal(await api.call(`${kind}.remove`, { ref }), null);
    }
    await assert.rejects(api.call('service.create', { spec: { ...spec, name: 'again' } }), {
      code: 'NOT_FOUND',
      message: /network back not found; create it first/,
    });
  });

  it('gives up its name and port when it is removed, and counts its tasks', async () => {
    const api = setUp();
    const made = await makers.service(api, 'web');
    const own = { serviceId: made.id, serviceAnnotations: { name: 'web', labels: {} } };
    api.log.apply([
      { kind: 'create', table: 'task', object: aTask('t1', 'x', 'running', own) },
      { kind: 'create', table: 'task', object: aTask('t2', 'x', 'failed', { ...own, slot: 2 }) },
    ]);
    assert.deepEqual((await api.call('service.inspect', { ref: 'web' })).taskCounts, {
      running: 1,
      desired: 1,
      completed: 0,
    });
    await api.call('service.remove', { ref: 'web' });
    assert.deepEqual(await api.call('service.list', { stack: null }), []);
    const again = await makers.service(api, 'web');
    assert.notEqual(again.id, made.id);
  });

  it('refuses a change over the limit of the log, saying the limit', async () => {
    const api = setUp();
    api.log.answers.push({ kind: 'too-large', bytes: 3_000_000 });
    await assert.rejects(makers.service(api, 'web'), {
      code: 'RESOURCE_EXHAUSTED',
      details: { bytes: 3_000_000, limit: BATCH_BYTES_MAX },
    });
  });

  for (const [answer, code] of [
    [{ kind: 'not-leader' }, 'NO_LEADER'],
    [{ kind: 'unavailable', reason: 'busy' }, 'UNAVAILABLE'],
    [{ kind: 'unknown', reason: 'lost' }, 'OUTCOME_UNKNOWN'],
  ] as const) {
    it(`says ${code} when the log says ${answer.kind}`, async () => {
      const api = setUp();
      api.log.answers.push(answer);
      await assert.rejects(makers.service(api, 'web'), { code });
    });
  }
});

describe('API: tasks', () => {
  it('lists by service, node and stack, and finds by id, prefix and name', async () => {
    const api = setUp();
    const web = await makers.service(api, 'web');
    const own = { serviceId: web.id, serviceAnnotations: { name: 'web', labels: { [STACK_LABEL]: 'app' } } };
    api.log.apply([
      { kind: 'create', table: 'node', object: aNode('n1') },
      {
        kind: 'create',
        table: 'task',
        object: aTask('task-one', 'x', 'running', { ...own, nodeId: 'n1' as NodeId }),
      },
      { kind: 'create', table: 'task', object: aTask('task-two', 'x', 'running', { ...own, slot: 2 }) },
      { kind: 'create', table: 'task', object: aTask('other', 'y', 'running', { nodeId: 'n1' as NodeId }) },
    ]);
    const ids = async (params: Partial<ApiParams<'task.list'>>): Promise<string[]> =>
      (await api.call('task.list', { service: null, node: null, stack: null, ...params })).map(
        (task) => task.id,
      );
    assert.deepEqual(await ids({}), ['task-one', 'task-two', 'other']);
    assert.deepEqual(await ids({ service: 'web' }), ['task-one', 'task-two']);
    assert.deepEqual(await ids({ node: 'n1' }), ['task-one', 'other']);
    assert.deepEqual(await ids({ service: 'web', node: 'n1' }), ['task-one']);
    assert.deepEqual(await ids({ stack: 'app' }), ['task-one', 'task-two']);
    assert.equal((await api.call('task.inspect', { ref: 'web.2' })).id, 'task-two');
    assert.equal((await api.call('task.inspect', { ref: 'task-t' })).id, 'task-two');
    await assert.rejects(api.call('task.inspect', { ref: 'task-' }), { code: 'AMBIGUOUS' });
    await assert.rejects(api.call('task.inspect', { ref: 'web.3' }), { code: 'NOT_FOUND' });
    await assert.rejects(ids({ node: 'n2' }), { code: 'NOT_FOUND', message: /did you mean n1/ });
  });
});

describe('API: secrets', () => {
  it('never returns a payload', async () => {
    const api = setUp();
    const data = base64('the very secret');
    const made = await api.call('secret.create', { spec: { name: 'key', labels: {}, data } });
    const answers = [
      made,
      await api.call('secret.list', { stack: null }),
      await api.call('secret.inspect', { ref: 'key' }),
    ];
    assert.ok(!JSON.stringify(answers).includes(data));
    assert.equal(api.context.view.get('secret', made.id)?.spec.data, data, 'the state has it');
    const config = await makers.config(api, 'open');
    assert.equal(config.spec.data, base64('open'));
  });

  it('keeps the ingress network', async () => {
    const api = setUp();
    const spec = {
      name: 'ingress',
      labels: {},
      driver: 'overlay',
      internal: false,
      attachable: false,
      ingress: true,
      driverOptions: {},
    } as const;
    api.log.apply([
      {
        kind: 'create',
        table: 'network',
        object: {
          id: 'net' as never,
          meta: { version: 0, createdAt: 0, updatedAt: 0 },
          spec,
          subnet: '',
          vni: 0,
        },
      },
    ]);
    await assert.rejects(api.call('network.remove', { ref: 'ingress' }), { code: 'FAILED_PRECONDITION' });
  });
});

describe('API: nodes', () => {
  const manager = (id: string, raftId: number, state: 'ready' | 'down' = 'ready') =>
    aNode(id, {
      spec: { role: 'manager' },
      manager: { raftId, address: `${id}:2377` },
      status: { state, message: '', address: id },
    });
  const member = (id: string, raftId: number): RaftMember => ({
    id: raftId,
    nodeId: id,
    address: `${id}:2377`,
    voter: true,
  });

  function cluster(): Api {
    const members = [member('m1', 1), member('m2', 2), member('m3', 3)];
    const api = setUp(members);
    api.log.apply([
      { kind: 'create', table: 'cluster', object: aCluster() },
      { kind: 'create', table: 'node', object: manager('m1', 1) },
      { kind: 'create', table: 'node', object: manager('m2', 2) },
      { kind: 'create', table: 'node', object: manager('m3', 3, 'down') },
      { kind: 'create', table: 'node', object: aNode('w1') },
      {
        kind: 'create',
        table: 'node',
        object: aNode('w2', { status: { state: 'down', message: '', address: '' } }),
      },
    ]);
    return api;
  }

  it('lists managers with who leads and who is reachable', async () => {
    const nodes = await cluster().call('node.list', {});
    const status = new Map(nodes.map((node) => [node.id as string, node.managerStatus]));
    assert.deepEqual(status.get('m1'), { leader: true, reachable: true, address: 'm1:2377' });
    assert.deepEqual(status.get('m3'), { leader: false, reachable: false, address: 'm3:2377' });
    assert.equal(status.get('w1'), undefined);
  });

  it('updates labels and availability, and refuses a stale version', async () => {
    const api = cluster();
    const node = await api.call('node.inspect', { ref: 'w1' });
    const spec = { ...node.spec, availability: 'drain' } as const;
    const updated = await api.call('node.update', { ref: 'w1', version: node.meta.version, spec });
    assert.equal(updated.spec.availability, 'drain');
    await assert.rejects(api.call('node.update', { ref: 'w1', version: node.meta.version, spec }), {
      code: 'CONFLICT',
      message: /update out of sequence: node w1/,
    });
    await assert.rejects(api.call('node.inspect', { ref: 'w9' }), { code: 'NOT_FOUND' });
  });

  it('removes a node that is down, and refuses its certificate until that ends', async () => {
    const api = cluster();
    await assert.rejects(api.call('node.remove', { ref: 'w1', force: false }), {
      code: 'FAILED_PRECONDITION',
      message: /--force/,
    });
    await api.call('node.remove', { ref: 'w2', force: false });
    await api.call('node.remove', { ref: 'w1', force: true });
    const until = api.log.nowMs + nodeCertificateLifeMs;
    const blocked = [...api.log.store.all('cluster')][0]?.blockedNodes;
    assert.deepEqual(blocked, [
      { id: 'w2', until },
      { id: 'w1', until },
    ]);
    // A later removal forgets the certificates that have ended.
    api.log.nowMs = until + 1;
    await api.call('node.remove', { ref: 'm3', force: true });
    assert.deepEqual(
      [...api.log.store.all('cluster')][0]?.blockedNodes.map((one) => one.id),
      ['m3'],
    );
  });

  it('takes a manager out of the group before the state, held so that nobody brings it back', async () => {
    const api = cluster();
    const order: string[] = [];
    const context: NodeApiContext = {
      ...api.context,
      removeMember: (raftId) => {
        order.push(`member ${raftId}, leaving ${[...context.leaving].join()}`);
        return Promise.resolve();
      },
    };
    api.log.before = () => {
      order.push(`state, leaving ${[...context.leaving].join()}`);
      return Promise.resolve();
    };
    api.log.answers.push({ kind: 'not-leader' });
    await assert.rejects(runMethod(context, 'node.remove', { ref: 'm3', force: true }, soon), {
      code: 'NO_LEADER',
    });
    assert.equal(context.leaving.size, 0);
    order.length = 0;
    await runMethod(context, 'node.remove', { ref: 'm3', force: true }, soon);
    assert.deepEqual(order, ['member 3, leaving 3', 'state, leaving 3']);
    assert.equal(context.leaving.size, 0, 'nothing is held after a failure');
  });

  it('refuses to remove a manager that the rest needs, with the numbers', async () => {
    const api = cluster();
    await assert.rejects(api.call('node.remove', { ref: 'm2', force: true }), {
      code: 'FAILED_PRECONDITION',
      message:
        /removing node m2 would lose the quorum: 2 managers would remain and 2 of them must be up, but only 1 is/,
    });
    await api.call('node.remove', { ref: 'm3', force: true });
    await api.call('node.remove', { ref: 'm2', force: true });
  });

  it('refuses to remove a manager without force, the leader, and the last manager', async () => {
    const api = cluster();
    await assert.rejects(api.call('node.remove', { ref: 'm3', force: false }), {
      code: 'FAILED_PRECONDITION',
      message: /changes the quorum \(3 voters now\)/,
    });
    await assert.rejects(
      api.call('node.remove', { ref: 'm1', force: true }),
      /leader does not remove itself/,
    );
    const alone = setUp([member('m1', 1)]);
    alone.log.apply([
      { kind: 'create', table: 'cluster', object: aCluster() },
      { kind: 'create', table: 'node', object: manager('m1', 1) },
    ]);
    await assert.rejects(alone.call('node.remove', { ref: 'm1', force: true }), /is the last manager/);
  });

  it('shows the cluster without its keys, and rotates one join token at a time', async () => {
    const api = setUp();
    await assert.rejects(api.call('cluster.inspect', {}), { code: 'FAILED_PRECONDITION' });
    const authority = await createCertificateAuthority({ clusterId: 'cluster', nowMs: Date.now() });
    api.log.apply([
      {
        kind: 'create',
        table: 'cluster',
        object: {
          ...aCluster(),
          rootCertificatePem: authority.certificatePem,
          rootKeyPem: authority.privateKeyPem,
          joinSecrets: { manager: 'm'.repeat(25), worker: 'w'.repeat(25) },
        },
      },
    ]);
    const shown = await api.call('cluster.inspect', {});
    assert.deepEqual([shown.nodes, shown.managers], [0, 0]);
    assert.ok(!JSON.stringify(shown).includes('PRIVATE KEY'));
    const before = await api.call('cluster.tokens', { rotate: null });
    // Another change of the cluster in between is no reason to fail.
    api.log.before = async () => {
      api.log.before = () => Promise.resolve();
      await api.call('cluster.tokens', { rotate: 'manager' });
    };
    const after = await api.call('cluster.tokens', { rotate: 'worker' });
    assert.notEqual(after.worker, before.worker);
    assert.notEqual(after.manager, before.manager);
    assert.equal(parseJoinToken(after.worker).ok, true);
    const last = await api.call('cluster.tokens', { rotate: 'worker' });
    assert.equal(last.manager, after.manager);
    await assert.rejects(raw(api, 'cluster.tokens', { rotate: 'both' }), {
      code: 'INVALID_ARGUMENT',
      message: /parameter rotate of cluster.tokens is "both"/,
    });
  });
});

describe('API: parameters', () => {
  it('names the parameter that is missing, of a wrong type, or unknown', async () => {
    const api = setUp();
    const cases: readonly (readonly [string, unknown, RegExp])[] = [
      ['service.list', null, /parameters of service.list are not an object/],
      ['service.list', [], /not an object/],
      ['service.list', 'x', /not an object/],
      [
        'service.list',
        { stack: 7 },
        /parameter stack of service.list is of type number; give string or null/,
      ],
      ['service.list', { ref: 'x' }, /service.list has no parameter ref; it takes stack/],
      ['service.inspect', {}, /service.inspect needs the parameter ref/],
      ['service.inspect', { ref: ['x'] }, /parameter ref .* is of type array/],
      ['service.update', { ref: 'x', spec: {} }, /needs the parameter version/],
      [
        'service.update',
        { ref: 'x', version: '1', spec: {} },
        /parameter version .* type string; give number/,
      ],
      ['service.update', { ref: 'x', version: 1 }, /needs the parameter spec/],
      ['service.rollback', { ref: 'x' }, /needs the parameter version/],
      ['service.create', { spec: null }, /needs the parameter spec/],
      ['node.list', { ref: 'x' }, /node.list has no parameter ref; it takes none/],
      ['node.remove', { ref: 'x', force: 'yes' }, /parameter force .* give boolean/],
      ['secret.remove', { ref: 'x', force: true }, /no parameter force/],
      ['cluster.inspect', JSON.parse('{"__proto__": 1}'), /no parameter __proto__/],
      ['cluster.inspect', { constructor: 1 }, /no parameter constructor/],
    ];
    for (const [method, params, message] of cases) {
      await assert.rejects(raw(api, method, params), { code: 'INVALID_ARGUMENT', message });
    }
  });

  it('refuses every method an unknown parameter, and survives any value of a known one', async () => {
    const api = setUp();
    const values = [undefined, null, 0, -1, Number.NaN, '', 'x', true, [], {}, { name: 'x' }, [[]]];
    for (const method of leaderMethodNames) {
      await assert.rejects(raw(api, method, { surprise: 1 }), { code: 'INVALID_ARGUMENT' });
      for (const value of values) {
        const params = { ref: value, version: value, spec: value, force: value, stack: value };
        const known = Object.entries(params).filter(([key]) => key in params);
        for (const [key] of known) {
          await raw(api, method, { ref: 'x', [key]: value }).catch((error: unknown) => {
            const { code } = error as { code?: string };
            assert.ok(
              ['INVALID_ARGUMENT', 'NOT_FOUND', 'FAILED_PRECONDITION'].includes(code ?? ''),
              `${method} ${key}=${JSON.stringify(value)}: ${String(error)}`,
            );
          });
        }
      }
    }
  });

  it('knows its methods by own name only', () => {
    assert.ok(isLeaderMethod('service.list'));
    for (const name of ['toString', '__proto__', 'info', 'service', '']) assert.ok(!isLeaderMethod(name));
  });
});

describe('API: nearest name', () => {
  it('finds a slip, and nothing that is far off', () => {
    assert.equal(nearest('wbe', ['api', 'web']), null);
    assert.equal(nearest('webb', ['api', 'web']), 'web');
    assert.equal(nearest('frontedn', ['backend', 'frontend']), 'frontend');
    assert.equal(nearest('x', []), null);
    const random = seededRandom(3);
    const names = Array.from({ length: 50 }, () => `svc-${random.uint32()}`);
    for (const name of names) assert.equal(nearest(`${name}0`, names), name);
  });
});
