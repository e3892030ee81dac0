import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ConfigId, NodeId, SecretId } from '../../../src/model/ids.ts';
import type { Task } from '../../../src/model/objects.ts';
import type { ContainerSpec } from '../../../src/model/spec.ts';
import { containerCreateOptions, containerName } from '../../../src/worker/docker-container-options.ts';
import type { TaskNetworking } from '../../../src/worker/types.ts';
import { makeTask, plainSetup } from '../../support/worker-fixtures.ts';

const identity = { nodeId: 'node1', clusterId: 'cluster1' };

function plan(parts: Parameters<typeof makeTask>[0] = {}, networking: Partial<TaskNetworking> = {}) {
  const task = makeTask({ spec: { runtime: 'docker', ...parts?.spec }, ...parts });
  const setup = { ...plainSetup, networking: { ...plainSetup.networking, ...networking } };
  return { task, ...containerCreateOptions(task, setup, identity) };
}

const host = (container: Partial<ContainerSpec>) => plan({ container }).body.HostConfig;

test('the name is service.slot.task, with the node for global tasks', () => {
  const task = makeTask({ slot: 3 });
  assert.equal(containerName(task), `web.3.${task.id}`);
  const global: Task = { ...task, slot: 0, nodeId: 'abc' as NodeId };
  assert.equal(containerName(global), `web.abc.${task.id}`);
});

test('labels: the user’s, the stack, and those that tools look for', () => {
  const { task, body, name } = plan({
    serviceAnnotations: { name: 'web', labels: { 'com.docker.stack.namespace': 'shop' } },
    container: { labels: { tier: 'front', 'swarmd.task': 'forged' } },
  });
  assert.deepEqual(body.Labels, {
    tier: 'front',
    'com.docker.stack.namespace': 'shop',
    'com.docker.swarm.node.id': 'node1',
    'com.docker.swarm.service.id': task.serviceId,
    'com.docker.swarm.service.name': 'web',
    'com.docker.swarm.task': '',
    'com.docker.swarm.task.id': task.id,
    'com.docker.swarm.task.name': name,
    'swarmd.task': task.id,
    'swarmd.cluster': 'cluster1',
  });
});

test('the command, its surroundings and its end', () => {
  const { body } = plan({
    container: {
      image: 'nginx:1',
      command: ['/entry'],
      args: ['-v'],
      env: ['A=1', 'B'],
      hostname: 'h',
      user: '33:33',
      dir: '/srv',
      tty: true,
      openStdin: true,
      stopSignal: 'SIGQUIT',
      stopGraceMs: 1_500,
    },
    genericResources: { gpu: 2 },
  });
  assert.equal(body.Image, 'nginx:1');
  assert.deepEqual([body.Entrypoint, body.Cmd], [['/entry'], ['-v']]);
  assert.deepEqual(body.Env, ['A=1', 'B', 'DOCKER_RESOURCE_GPU=2']);
  assert.deepEqual([body.Hostname, body.User, body.WorkingDir], ['h', '33:33', '/srv']);
  assert.deepEqual([body.Tty, body.OpenStdin], [true, true]);
  assert.deepEqual([body.StopSignal, (body as { StopTimeout?: number }).StopTimeout], ['SIGQUIT', 2]);
});

test('what the spec leaves out is left to the image', () => {
  const { body } = plan({ container: { image: 'nginx' } });
  for (const key of [
    'Entrypoint',
    'Cmd',
    'Hostname',
    'User',
    'WorkingDir',
    'Tty',
    'StopSignal',
    'Healthcheck',
  ]) {
    assert.equal(Object.hasOwn(body, key), false, key);
  }
  assert.equal(Object.hasOwn(body.HostConfig ?? {}, 'Init'), false);
});

test('the engine never restarts a task', () => {
  assert.deepEqual(host({})?.RestartPolicy, { Name: 'no' });
});

test('durations of a health check are nanoseconds', () => {
  const healthCheck = {
    test: ['CMD', 'true'],
    intervalMs: 1_500,
    timeoutMs: 2,
    startPeriodMs: 0.5,
    retries: 4,
  };
  assert.deepEqual(plan({ container: { healthCheck } }).body.Healthcheck, {
    Test: ['CMD', 'true'],
    Interval: 1_500_000_000,
    Timeout: 2_000_000,
    StartPeriod: 500_000,
    Retries: 4,
  });
});

test('mounts of each type', () => {
  const mounts = host({
    mounts: [
      { type: 'bind', source: '/a', target: '/b', readOnly: true, bindPropagation: 'rslave' },
      {
        type: 'volume',
        source: 'data',
        target: '/d',
        readOnly: false,
        volume: { noCopy: true, labels: { l: '1' }, driver: 'nfs', driverOptions: { o: 'x' } },
      },
      { type: 'volume', target: '/anonymous', readOnly: false },
      { type: 'tmpfs', target: '/t', readOnly: false, tmpfs: { sizeBytes: 4_096, mode: 0o700 } },
    ],
  })?.Mounts as unknown[];
  assert.deepEqual(mounts, [
    { Type: 'bind', Source: '/a', Target: '/b', ReadOnly: true, BindOptions: { Propagation: 'rslave' } },
    {
      Type: 'volume',
      Source: 'data',
      Target: '/d',
      ReadOnly: false,
      VolumeOptions: { NoCopy: true, Labels: { l: '1' }, DriverConfig: { Name: 'nfs', Options: { o: 'x' } } },
    },
    { Type: 'volume', Source: '', Target: '/anonymous', ReadOnly: false },
    {
      Type: 'tmpfs',
      Source: '',
      Target: '/t',
      ReadOnly: false,
      TmpfsOptions: { SizeBytes: 4_096, Mode: 0o700 },
    },
  ]);
});

test('limits, reservations, and what a container may do', () => {
  const { body } = plan({
    spec: {
      resources: {
        limits: { nanoCpus: 5e8, memoryBytes: 64e6, pids: 50 },
        reservations: { memoryBytes: 32e6, nanoCpus: 1e8 },
      },
      logDriver: { name: 'json-file', options: { 'max-size': '1m' } },
    },
    container: {
      readOnly: true,
      init: true,
      groups: ['audio'],
      capabilityAdd: ['NET_ADMIN'],
      capabilityDrop: ['ALL'],
      sysctls: { 'net.core.somaxconn': '1024' },
      ulimits: [{ name: 'nofile', soft: 1, hard: 2 }],
      hosts: ['10.0.0.1 db cache', '::1 six'],
    },
  });
  const { HostConfig } = body;
  assert.deepEqual(
    [HostConfig?.NanoCpus, HostConfig?.Memory, HostConfig?.PidsLimit, HostConfig?.MemoryReservation],
    [5e8, 64e6, 50, 32e6],
  );
  assert.deepEqual(
    [HostConfig?.ReadonlyRootfs, HostConfig?.Init, HostConfig?.GroupAdd],
    [true, true, ['audio']],
  );
  assert.deepEqual([HostConfig?.CapAdd, HostConfig?.CapDrop], [['NET_ADMIN'], ['ALL']]);
  assert.deepEqual(HostConfig?.Sysctls, { 'net.core.somaxconn': '1024' });
  assert.deepEqual(HostConfig?.Ulimits, [{ Name: 'nofile', Soft: 1, Hard: 2 }]);
  assert.deepEqual(HostConfig?.ExtraHosts, ['db:10.0.0.1', 'cache:10.0.0.1', 'six:::1']);
  assert.deepEqual(HostConfig?.LogConfig, { Type: 'json-file', Config: { 'max-size': '1m' } });
});

test('networks: the first at create with the highest gateway priority, the others connected later', () => {
  const { body, furtherNetworks } = plan(
    {},
    {
      attachments: [
        { engineNetwork: '0sw-ingress', address: '10.0.0.5', mac: '02:42:0a:00:00:05', aliases: [] },
        { engineNetwork: 'app', address: '10.0.1.5', aliases: ['web'] },
      ],
      dnsServers: ['10.0.1.1'],
    },
  );
  assert.equal(body.HostConfig?.NetworkMode, '0sw-ingress');
  assert.deepEqual(body.NetworkingConfig?.EndpointsConfig, {
    '0sw-ingress': {
      IPAMConfig: { IPv4Address: '10.0.0.5' },
      MacAddress: '02:42:0a:00:00:05',
      GwPriority: 1,
    },
  });
  assert.deepEqual(furtherNetworks, [
    { network: 'app', endpoint: { IPAMConfig: { IPv4Address: '10.0.1.5' }, Aliases: ['web'] } },
  ]);
  assert.deepEqual(body.HostConfig?.Dns, ['10.0.1.1']);
});

test('the host’s own network has no addresses to give', () => {
  const { body } = plan({}, { attachments: [{ engineNetwork: 'host', address: '', aliases: [] }] });
  assert.equal(body.HostConfig?.NetworkMode, 'host');
  assert.equal(body.NetworkingConfig, undefined);
});

test('the user’s resolvers come after the node’s', () => {
  const dns = { nameservers: ['9.9.9.9'], search: ['lan'], options: ['ndots:2'] };
  const { HostConfig } = plan({ container: { dns } }, { dnsServers: ['10.0.1.1'] }).body;
  assert.deepEqual(
    [HostConfig?.Dns, HostConfig?.DnsSearch, HostConfig?.DnsOptions],
    [['10.0.1.1', '9.9.9.9'], ['lan'], ['ndots:2']],
  );
});

test('ports: host mode always, ingress ports only on the host-ports rung', () => {
  const endpointPorts: Task['endpointPorts'] = [
    { protocol: 'tcp', targetPort: 80, publishedPort: 30_000, publishMode: 'ingress' },
    { protocol: 'udp', targetPort: 53, publishedPort: 5_353, publishMode: 'host' },
    { protocol: 'tcp', targetPort: 53, publishedPort: 0, publishMode: 'host' },
  ];
  const overlay = plan({ endpointPorts }).body;
  assert.deepEqual(overlay.HostConfig?.PortBindings, {
    '53/udp': [{ HostPort: '5353' }],
    '53/tcp': [{ HostPort: '' }],
  });
  assert.deepEqual(overlay.ExposedPorts, { '53/udp': {}, '53/tcp': {} });
  const rung = plan({ endpointPorts }, { publishOnNode: true }).body;
  assert.deepEqual((rung.HostConfig?.PortBindings as Record<string, unknown> | undefined)?.['80/tcp'], [
    { HostPort: '' },
  ]);
});

test('secrets and configs become files with owner and mode', () => {
  const [secret, config] = ['s'.repeat(25) as SecretId, 'c'.repeat(25) as ConfigId];
  const task = makeTask({
    container: {
      secrets: [{ id: secret, name: 'key', file: { name: 'key', uid: '33', gid: '34', mode: 0o400 } }],
      configs: [{ id: config, name: 'conf', file: { name: 'conf', uid: '0', gid: '0', mode: 0o444 } }],
    },
  });
  const setup = {
    ...plainSetup,
    secrets: new Map([[secret as string, new Uint8Array([1])]]),
    configs: new Map([[config as string, new Uint8Array([2])]]),
  };
  assert.deepEqual(containerCreateOptions(task, setup, identity).files, [
    { path: '/run/secrets/key', uid: 33, gid: 34, mode: 0o400, content: new Uint8Array([1]) },
    { path: '/conf', uid: 0, gid: 0, mode: 0o444, content: new Uint8Array([2]) },
  ]);
});

test('a read-only root gets volumes for its files, but none in its root folder', () => {
  const id = 'c'.repeat(25) as ConfigId;
  const reference = (name: string) => [{ id, name: 'conf', file: { name, uid: '0', gid: '0', mode: 0o444 } }];
  assert.deepEqual(host({ readOnly: true, configs: reference('/etc/app/conf') })?.Mounts, [
    { Type: 'volume', Target: '/etc/app', Source: '', ReadOnly: false },
  ]);
  assert.throws(() => host({ readOnly: true, configs: reference('conf') }), { code: 'INVALID_ARGUMENT' });
});
