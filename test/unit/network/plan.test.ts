import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { EngineNetwork } from '../../../src/network/engine-networks.ts';
import {
  desiredNetworks,
  engineNetworkName,
  planForwarding,
  planNetworks,
} from '../../../src/network/plan.ts';
import type {
  DesiredNetworks,
  ForwardingEntry,
  NetworkStep,
  ObservedNetworks,
  OverlaySettings,
} from '../../../src/network/plan-state.ts';
import { endpoint, network } from '../../support/routing.ts';

const settings: OverlaySettings = {
  nodeId: 'node-a',
  address: '192.0.2.1',
  pathMtu: 1500,
  vxlanPort: 4790,
  overlay: true,
};
const app = network('app', 4097, {
  peerList: [
    ['192.0.2.2', '10.16.1.3/24'],
    ['192.0.2.3', '10.16.1.4/24'],
  ],
});
const remote = endpoint('web', 2, { nodeId: 'node-b', nodeAddress: '192.0.2.2', on: [[app, '10.16.1.20']] });
const nothing: ObservedNetworks = {
  networks: [],
  devices: [],
  bridges: new Map(),
  routes: [],
  sysctls: new Map(),
  forward: { chainExists: false, jumps: [], bridges: [] },
};

/** A line a step, as it would be typed. */
function golden(steps: readonly NetworkStep[]): string[] {
  return steps.flatMap((step) => {
    switch (step.kind) {
      case 'create-network': {
        const { name, subnet, gateway, bridge, mtu, internal } = step.spec;
        return [
          `engine create ${name} ${subnet} ${gateway} ${bridge} mtu ${mtu}${internal ? ' internal' : ''}`,
        ];
      }
      case 'remove-network':
        return [`engine remove ${step.name}`, ...step.afterwards.map((argv) => `  then ${argv.join(' ')}`)];
      case 'run':
        return [
          step.argv.join(' '),
          ...(step.input ?? '')
            .split('\n')
            .filter(Boolean)
            .map((line) => `  ${line}`),
        ];
      case 'blocked':
        return [`blocked: ${step.message}`];
    }
  });
}

/** The state in which everything wanted is there. */
function observedFor(desired: DesiredNetworks): ObservedNetworks {
  return {
    networks: desired.networks.map(
      (spec): EngineNetwork => ({ ...spec, engineId: `engine-${spec.networkId}` }),
    ),
    devices: desired.devices.map((device) => ({
      name: device.name,
      vni: device.vni,
      local: device.local,
      port: device.port,
      mtu: device.mtu,
      master: device.bridge,
      up: true,
      alias: `swarmd:${desired.nodeId}`,
      forwarding: device.forwarding,
    })),
    routes: [],
    bridges: new Map(desired.devices.map((device) => [device.bridge, device.bridgeMac])),
    sysctls: new Map(desired.sysctls.map(({ key, value }) => [key, value])),
    forward: {
      chainExists: true,
      jumps: (desired.forwardBridges ?? []).length === 0 ? [] : [0],
      bridges: desired.forwardBridges ?? [],
    },
  };
}

test('from nothing: engine network, VXLAN, forwarding entries, sysctls, forwarding rules', () => {
  const steps = planNetworks(desiredNetworks([app], [remote], settings), nothing);
  assert.deepEqual(golden(steps), [
    'engine create sw-app-net-app 10.16.1.0/24 10.16.1.2 sw4097 mtu 1450',
    'ip link add vx4097 mtu 1450 type vxlan id 4097 local 192.0.2.1 dstport 4790 nolearning',
    'ip link set dev vx4097 alias swarmd:node-a',
    'ip link set dev vx4097 master sw4097 up',
    'ip link set dev sw4097 address 02:5d:0a:10:01:02',
    'bridge -force -batch -',
    '  fdb append 00:00:00:00:00:00 dev vx4097 dst 192.0.2.2 self permanent',
    '  fdb append 00:00:00:00:00:00 dev vx4097 dst 192.0.2.3 self permanent',
    '  fdb replace 02:42:0a:10:01:14 dev vx4097 dst 192.0.2.2 self static',
    '  fdb replace 02:5d:0a:10:01:03 dev vx4097 dst 192.0.2.2 self static',
    '  fdb replace 02:5d:0a:10:01:04 dev vx4097 dst 192.0.2.3 self static',
    'sysctl -qw net.ipv4.conf.all.send_redirects=0',
    'sysctl -qw net.ipv4.conf.sw4097.send_redirects=0',
    'iptables -w 5 -N SWARMD-FORWARD',
    'iptables -w 5 -A SWARMD-FORWARD -i sw4097 -o sw4097 -j ACCEPT',
    'iptables -w 5 -I FORWARD 1 -j SWARMD-FORWARD',
  ]);
});

test('a state that is as wanted needs no step', () => {
  const desired = desiredNetworks([app, network('ingress', 4096, { ingress: true })], [remote], settings);
  assert.deepEqual(planNetworks(desired, observedFor(desired)), []);
});

test('host-ports rung: plain bridges of the engine, nothing in the kernel', () => {
  const desired = desiredNetworks([app], [remote], { ...settings, overlay: false });
  assert.deepEqual(golden(planNetworks(desired, { ...nothing, forward: null })), [
    'engine create sw-app-net-app 10.16.1.0/24 10.16.1.2 sw4097 mtu 1450',
  ]);
});

test('tasks and peers that come and go change forwarding entries only', () => {
  const before = desiredNetworks([app], [remote], settings);
  const moved = endpoint('web', 2, { nodeId: 'node-c', nodeAddress: '192.0.2.3', on: [[app, '10.16.1.20']] });
  const fewer = network('app', 4097, { peerList: [['192.0.2.3', '10.16.1.4/24']] });
  const after = desiredNetworks([fewer], [moved], settings);
  const expected = [
    'bridge -force -batch -',
    '  fdb del 00:00:00:00:00:00 dev vx4097 dst 192.0.2.2 self',
    '  fdb del 02:5d:0a:10:01:03 dev vx4097 dst 192.0.2.2 self',
    '  fdb replace 02:42:0a:10:01:14 dev vx4097 dst 192.0.2.3 self static',
  ];
  assert.deepEqual(golden(planNetworks(after, observedFor(before))), expected);
  assert.deepEqual(golden(planForwarding(before, after) ?? []), expected);
  assert.deepEqual(planForwarding(before, before), []);
  assert.equal(planForwarding(before, desiredNetworks([], [], settings)), null);
});

test('a task on this node, or on a node that is no peer, has no forwarding entry', () => {
  const here = endpoint('web', 1, { nodeAddress: '192.0.2.1', on: [[app, '10.16.1.19']] });
  const far = endpoint('web', 3, { nodeId: 'node-z', nodeAddress: '192.0.2.99', on: [[app, '10.16.1.21']] });
  const [device] = desiredNetworks([app], [here, far], settings).devices;
  assert.deepEqual(
    device?.forwarding.filter(({ mac }) => mac.startsWith('02:42')),
    [],
  );
});

test('a network that is not wanted goes, with its device once the engine let go', () => {
  const before = desiredNetworks([app], [], settings);
  assert.deepEqual(golden(planNetworks(desiredNetworks([], [], settings), observedFor(before))), [
    'engine remove sw-app-net-app',
    '  then ip link del dev vx4097',
    'iptables -w 5 -D FORWARD -j SWARMD-FORWARD',
    'iptables -w 5 -F SWARMD-FORWARD',
    'iptables -w 5 -X SWARMD-FORWARD',
  ]);
});

test('networks of another node are left alone unless they stand in the way', () => {
  const other = observedFor(desiredNetworks([app], [], { ...settings, nodeId: 'node-old' }));
  const elsewhere = network('else', 5000);
  const apart = golden(planNetworks(desiredNetworks([elsewhere], [], settings), other));
  assert.equal(apart.filter((line) => line.startsWith('engine remove')).length, 0);
  const same = golden(planNetworks(desiredNetworks([app], [], settings), other));
  assert.deepEqual(same.slice(0, 5), [
    'engine remove sw-app-net-app',
    '  then ip link del dev vx4097',
    'engine create sw-app-net-app 10.16.1.0/24 10.16.1.2 sw4097 mtu 1450',
    'ip link del dev vx4097',
    'ip link add vx4097 mtu 1450 type vxlan id 4097 local 192.0.2.1 dstport 4790 nolearning',
  ]);
});

test('a device that is not ours blocks its network and is not touched', () => {
  const desired = desiredNetworks([app], [], settings);
  const observed = observedFor(desired);
  const devices = observed.devices.map((device) => ({ ...device, alias: 'backbone' }));
  const steps = planNetworks(desired, { ...observed, devices });
  assert.deepEqual(golden(steps), [
    'blocked: the network device vx4097 exists and is not swarmd\'s; remove it with "ip link del vx4097"',
  ]);
});

test('a subnet that would cut the node off is refused; a wider route over it is not', () => {
  const blockedBy = (
    routes: ObservedNetworks['routes'],
    changes: Partial<OverlaySettings> = {},
  ): string[] => {
    const desired = desiredNetworks([app], [], { ...settings, ...changes });
    return golden(planNetworks(desired, { ...nothing, routes })).filter((line) => line.startsWith('blocked'));
  };
  const route = (prefix: string, device: string, gateway = ''): ObservedNetworks['routes'][number] => ({
    prefix,
    device,
    gateway,
  });
  assert.deepEqual(blockedBy([], { address: '10.16.1.77' }), [
    'blocked: the subnet 10.16.1.0/24 of network sw-app-net-app would hide the address 10.16.1.77 from this node; give the network another subnet, or the cluster another address pool',
  ]);
  assert.match(blockedBy([route('', 'eth0', '10.16.1.1')])[0] ?? '', /hide the address 10\.16\.1\.1 /);
  assert.match(
    blockedBy([route('10.16.1.0/24', 'eth0')])[0] ?? '',
    /hide the host's network 10\.16\.1\.0\/24 on eth0/,
  );
  assert.match(blockedBy([route('10.16.1.128/25', 'eth0')])[0] ?? '', /10\.16\.1\.128\/25/);
  assert.deepEqual(
    blockedBy([route('10.0.0.0/8', 'vpn0'), route('10.16.2.0/24', 'eth0'), route('', 'eth0')]),
    [],
  );
  assert.deepEqual(blockedBy([route('10.16.1.0/24', 'sw4097')]), []);
});

test('what an engine restart or a hand undid is put back', () => {
  const desired = desiredNetworks([app], [], settings);
  const whole = observedFor(desired);
  const [device] = whole.devices;
  assert.ok(device !== undefined);
  const cases: readonly [Partial<ObservedNetworks>, string[]][] = [
    [{ devices: [{ ...device, master: '' }] }, ['ip link set dev vx4097 master sw4097 up']],
    [{ devices: [{ ...device, up: false }] }, ['ip link set dev vx4097 master sw4097 up']],
    [
      { bridges: new Map([['sw4097', '02:42:aa:bb:cc:dd']]) },
      ['ip link set dev sw4097 address 02:5d:0a:10:01:02'],
    ],
    [
      { forward: { chainExists: true, jumps: [3], bridges: ['sw4097', 'sw9'] } },
      [
        'iptables -w 5 -D SWARMD-FORWARD -i sw9 -o sw9 -j ACCEPT',
        'iptables -w 5 -D FORWARD -j SWARMD-FORWARD',
        'iptables -w 5 -I FORWARD 1 -j SWARMD-FORWARD',
      ],
    ],
    [
      { sysctls: new Map([['net.ipv4.conf.all.send_redirects', '0']]) },
      ['sysctl -qw net.ipv4.conf.sw4097.send_redirects=0'],
    ],
  ];
  for (const [change, expected] of cases) {
    assert.deepEqual(golden(planNetworks(desired, { ...whole, ...change })), expected);
  }
});

test('another MTU makes the network and the device anew', () => {
  const before = desiredNetworks([app], [], settings);
  const after = desiredNetworks([app], [], { ...settings, pathMtu: 9000 });
  const lines = golden(planNetworks(after, observedFor(before)));
  assert.deepEqual(lines.slice(0, 5), [
    'engine remove sw-app-net-app',
    '  then ip link del dev vx4097',
    'engine create sw-app-net-app 10.16.1.0/24 10.16.1.2 sw4097 mtu 8950',
    'ip link del dev vx4097',
    'ip link add vx4097 mtu 8950 type vxlan id 4097 local 192.0.2.1 dstport 4790 nolearning',
  ]);
});

test('names on the engine: ingress first, odd characters replaced', () => {
  assert.equal(engineNetworkName(network('ingress', 4096, { ingress: true })), '0sw-ingress-net-ingr');
  assert.equal(engineNetworkName(network('a b/ü', 4097)), 'sw-a-b---net-a b/');
});

test('property: forwarding entries end as wanted, from any entries', () => {
  const entry: fc.Arbitrary<ForwardingEntry> = fc.record({
    mac: fc.constantFrom('00:00:00:00:00:00', '02:42:0a:10:01:14', '02:5d:0a:10:01:03', 'aa:bb:cc:dd:ee:ff'),
    peer: fc.constantFrom('192.0.2.2', '192.0.2.3', '192.0.2.4'),
  });
  const key = ({ mac, peer }: ForwardingEntry): string => `${mac} ${peer}`;
  fc.assert(
    fc.property(fc.uniqueArray(entry, { selector: key }), (entries) => {
      const desired = desiredNetworks([app], [remote], settings);
      const observed = observedFor(desired);
      // A hardware address other than the flood one has one entry.
      const current = entries.filter(
        (one, index) => one.mac.startsWith('00') || entries.findIndex(({ mac }) => mac === one.mac) === index,
      );
      const devices = observed.devices.map((device) => ({ ...device, forwarding: current }));
      const table = new Map<string, ForwardingEntry>(current.map((one) => [key(one), one]));
      for (const step of planNetworks(desired, { ...observed, devices })) {
        assert.ok(step.kind === 'run');
        for (const line of (step.input ?? '').split('\n').filter(Boolean)) {
          const [, verb, mac = '', , , , peer = ''] = line.split(' ');
          if (verb === 'del') assert.ok(table.delete(key({ mac, peer })));
          else {
            if (verb === 'replace') for (const [id, one] of table) if (one.mac === mac) table.delete(id);
            table.set(key({ mac, peer }), { mac, peer });
          }
        }
      }
      const wanted = desired.devices[0]?.forwarding.map(key).toSorted();
      assert.deepEqual([...table.keys()].toSorted(), wanted);
    }),
  );
});
