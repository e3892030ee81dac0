import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  blocksOverlap,
  formatBlock,
  formatIpv4,
  lastAddress,
  lowestFreeBlock,
  parseBlock,
  parseIpv4,
  type Ipv4Block,
} from '../../../src/manager/allocator/ipv4.ts';

function block(text: string): Ipv4Block {
  const parsed = parseBlock(text);
  assert.ok(parsed.ok, text);
  return parsed.value;
}

test('addresses round-trip through text', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }), (value) => {
      assert.equal(parseIpv4(formatIpv4(value)), value);
    }),
  );
});

test('malformed subnets are refused with the text in the message', () => {
  for (const text of [
    '',
    '10.0.0.0',
    '10.0.0.0/33',
    '10.0.0/24',
    '10.0.0.256/24',
    'a/24',
    '10.0.0.0/',
    '2001:db8::/32',
  ]) {
    const parsed = parseBlock(text);
    assert.equal(parsed.ok, false, text);
    if (!parsed.ok) assert.match(parsed.reason, /subnet/);
  }
  const hostBits = parseBlock('10.0.0.5/24');
  assert.ok(!hostBits.ok && hostBits.reason.includes('10.0.0.0/24'));
});

test('blocks at the ends of the address space are handled', () => {
  assert.equal(lastAddress(block('0.0.0.0/0')), 2 ** 32 - 1);
  assert.equal(formatIpv4(lastAddress(block('255.255.255.0/24'))), '255.255.255.255');
  assert.equal(lowestFreeBlock(block('255.255.255.0/24'), 24, [block('255.255.255.0/24')]), null);
});

test('the lowest free block skips what is used', () => {
  const pool = block('10.0.0.0/8');
  assert.equal(formatBlock(lowestFreeBlock(pool, 24, []) as Ipv4Block), '10.0.0.0/24');
  const used = [block('10.0.0.0/24'), block('10.0.1.128/25'), block('10.0.2.0/23')];
  assert.equal(formatBlock(lowestFreeBlock(pool, 24, used) as Ipv4Block), '10.0.4.0/24');
  assert.equal(formatBlock(lowestFreeBlock(pool, 25, used) as Ipv4Block), '10.0.1.0/25');
});

test('blocks cut from a pool never overlap and fill it', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 26, max: 30 }), { maxLength: 40 }), (lengths) => {
      const pool = block('10.1.0.0/24');
      const used: Ipv4Block[] = [];
      for (const length of lengths) {
        const free = lowestFreeBlock(pool, length, used);
        if (free === null) continue;
        assert.ok(used.every((other) => !blocksOverlap(other, free)));
        assert.ok(free.first >= pool.first && lastAddress(free) <= lastAddress(pool));
        assert.equal(free.first % 2 ** (32 - length), 0);
        used.push(free);
      }
    }),
  );
});
