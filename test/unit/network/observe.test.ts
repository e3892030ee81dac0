import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  parseBridges,
  parseDevices,
  parseForward,
  parseForwardingEntries,
  parseRoutes,
  parseSysctls,
} from '../../../src/network/observe.ts';

const LINKS = JSON.stringify([
  {
    ifname: 'vx5',
    flags: ['BROADCAST', 'MULTICAST', 'UP', 'LOWER_UP'],
    mtu: 1450,
    master: 'sw5',
    linkinfo: { info_kind: 'vxlan', info_data: { id: 5, local: '10.9.9.9', port: 4790, learning: false } },
    ifalias: 'swarmd:abc',
  },
  // What `ip` prints for links of other types when a type is asked for.
  {},
  { ifname: 'vx6', flags: [], mtu: 1450, linkinfo: { info_data: { id: 6, port: 4790 } } },
]);
const ENTRIES = JSON.stringify([
  { mac: '33:33:00:00:00:01', ifname: 'sw5', flags: ['self'], state: 'permanent' },
  { mac: '82:a7:85:fe:2e:99', ifname: 'vx5', flags: [], master: 'sw5', state: 'permanent' },
  { mac: '02:42:0a:00:00:01', ifname: 'vx5', dst: '10.9.9.1', flags: ['self'], state: 'static' },
  { mac: '00:00:00:00:00:00', ifname: 'vx5', dst: '10.9.9.1', flags: ['self'], state: 'permanent' },
]);

test('devices with their forwarding entries', () => {
  const [five, six, ...rest] = parseDevices(LINKS, parseForwardingEntries(ENTRIES));
  assert.deepEqual(rest, []);
  assert.deepEqual(five, {
    name: 'vx5',
    vni: 5,
    local: '10.9.9.9',
    port: 4790,
    mtu: 1450,
    master: 'sw5',
    up: true,
    alias: 'swarmd:abc',
    forwarding: [
      { mac: '02:42:0a:00:00:01', peer: '10.9.9.1' },
      { mac: '00:00:00:00:00:00', peer: '10.9.9.1' },
    ],
  });
  assert.deepEqual([six?.name, six?.master, six?.local, six?.up, six?.alias], ['vx6', '', '', false, '']);
});

test('output that makes no sense reads as nothing', () => {
  for (const text of ['', 'Device does not exist', '{}', '[1, null, "x"]', '[{"ifname": 7}]']) {
    assert.deepEqual(parseDevices(text, new Map()), []);
    assert.equal(parseForwardingEntries(text).size, 0);
  }
});

test('bridges and sysctls', () => {
  assert.equal(
    parseBridges('[{"ifname":"sw5","address":"02:5d:0a:00:00:01"},{}]').get('sw5'),
    '02:5d:0a:00:00:01',
  );
  const values = parseSysctls('net.ipv4.conf.all.send_redirects = 0\nnet.ipv4.conf.sw5.send_redirects = 1\n');
  assert.equal(values.get('net.ipv4.conf.all.send_redirects'), '0');
  assert.equal(values.get('net.ipv4.conf.sw5.send_redirects'), '1');
});

test('where our jump stands among the forwarding rules', () => {
  const forward = '-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n-A FORWARD -j SWARMD-FORWARD\n';
  const chain =
    '-N SWARMD-FORWARD\n-A SWARMD-FORWARD -i sw5 -o sw5 -j ACCEPT\n-A SWARMD-FORWARD -i sw5 -o sw6 -j ACCEPT\n';
  assert.deepEqual(parseForward(forward, chain), { chainExists: true, jumps: [1], bridges: ['sw5'] });
  assert.deepEqual(parseForward('-P FORWARD ACCEPT\n', ''), { chainExists: false, jumps: [], bridges: [] });
});

test('routes: default, networks and single hosts', () => {
  const output = JSON.stringify([
    { dst: 'default', gateway: '10.77.0.254', dev: 'eth0', flags: [] },
    { dst: '10.77.0.0/24', dev: 'eth0', protocol: 'kernel', scope: 'link', prefsrc: '10.77.0.1', flags: [] },
    { dst: '192.0.2.9', gateway: '10.77.0.1', dev: 'eth0', flags: [] },
    { type: 'unreachable' },
  ]);
  assert.deepEqual(parseRoutes(output), [
    { prefix: '', device: 'eth0', gateway: '10.77.0.254' },
    { prefix: '10.77.0.0/24', device: 'eth0', gateway: '' },
    { prefix: '192.0.2.9/32', device: 'eth0', gateway: '10.77.0.1' },
  ]);
});
