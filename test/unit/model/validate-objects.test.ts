import assert from 'node:assert/strict';
import test from 'node:test';
import { CONFIG_BYTES_MAX, SECRET_BYTES_MAX } from '../../../src/model/defaults.ts';
import {
  parseConfigSpec,
  parseNetworkSpec,
  parseNodeSpec,
  parseSecretSpec,
} from '../../../src/model/validate-objects.ts';
import type { Result } from '../../../src/base/result.ts';

function refused(result: Result<unknown>, reason: RegExp): void {
  assert.ok(!result.ok, 'accepted');
  assert.match(result.reason, reason);
}

test('nodes: defaults, and refusals', () => {
  assert.deepEqual(parseNodeSpec({}), {
    ok: true,
    value: { labels: {}, role: 'worker', availability: 'active' },
  });
  refused(parseNodeSpec({ availability: 'drained' }), /availability: expected active, pause, drain/);
  refused(parseNodeSpec({ role: 'boss' }), /role: expected worker, manager/);
  refused(parseNodeSpec({ labels: { '': 'x' } }), /a label needs a key/);
  refused(parseNodeSpec({ labels: { a: 1 } }), /labels\.a: expected a text/);
});

test('networks: defaults, and refusals', () => {
  const parsed = parseNetworkSpec({ name: 'stack_app' });
  assert.ok(parsed.ok);
  assert.equal(parsed.value.driver, 'overlay');
  assert.ok(!Object.hasOwn(parsed.value, 'subnet'));
  assert.ok(parseNetworkSpec({ name: 'a', subnet: '10.1.0.0/16' }).ok);
  refused(parseNetworkSpec({ name: 'a b' }), /cannot be a DNS name/);
  refused(parseNetworkSpec({ name: 'a', driver: 'macvlan' }), /driver: expected overlay, host, bridge/);
  refused(parseNetworkSpec({ name: 'a', subnet: '10.1.0.1/16' }), /first address/);
  refused(parseNetworkSpec({ name: 'a', subnet: '10.1.0.0/30' }), /use \/8 to \/29/);
  refused(parseNetworkSpec({ name: 'a', subnet: '2001:db8::/64' }), /no IPv4 subnet/);
  refused(parseNetworkSpec({ name: 'a', driver: 'host', subnet: '10.1.0.0/24' }), /no addresses of its own/);
  refused(
    parseNetworkSpec({ name: 'a', ingress: true, attachable: true }),
    /ingress network cannot be attachable/,
  );
});

test('secrets and configs: sizes, and payloads never quoted', () => {
  const data = (bytes: number): string => Buffer.alloc(bytes, 1).toString('base64');
  assert.ok(parseSecretSpec({ name: 'a.b', data: data(1) }).ok);
  assert.ok(parseSecretSpec({ name: 'a', data: data(SECRET_BYTES_MAX - 1) }).ok);
  refused(parseSecretSpec({ name: 'a', data: data(SECRET_BYTES_MAX) }), /512000 bytes; .* fewer than 512000/);
  assert.ok(parseConfigSpec({ name: 'a', data: data(CONFIG_BYTES_MAX - 1) }).ok);
  refused(parseConfigSpec({ name: 'a', data: data(CONFIG_BYTES_MAX) }), /fewer than 1024000/);
  refused(parseConfigSpec({ name: 'a', data: '' }), /more than 0/);
  refused(parseSecretSpec({ name: 'x'.repeat(65), data: data(1) }), /up to 64/);
  for (const payload of ['hunter2!', 42, ['hunter2']]) {
    const parsed = parseSecretSpec({ name: 'a', data: payload });
    assert.ok(!parsed.ok && !parsed.reason.includes('hunter') && !parsed.reason.includes('42'));
  }
});
