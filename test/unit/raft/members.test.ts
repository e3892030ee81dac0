/** Where members are, and who is none any more. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { ConfigChange } from '../../../src/raft/core/membership.ts';
import { EMPTY_CONFIG } from '../../../src/raft/core/types.ts';
import { type Contact, encodeContacts, MemberTable } from '../../../src/raft/members.ts';

const row = (id: number, address = `host${id}:1`): Contact => ({ id, nodeId: `node${id}`, address });
const config = { ...EMPTY_CONFIG, voters: [1, 2, 3] };
const change = (...contacts: readonly Contact[]): ConfigChange => ({
  transition: 'auto',
  steps: [],
  context: encodeContacts(contacts),
});

it('a member that says where it is is reached there, until the log says where', () => {
  const table = new MemberTable(config, [row(1), row(2), row(3)]);
  table.moved(2, 'new:1');
  assert.equal(table.contact(2)?.address, 'new:1');
  assert.equal(table.get(2)?.address, 'host2:1', 'the log is not overruled in what is written');
  table.apply(change(row(3, 'other:1')), config, 4);
  assert.equal(table.contact(2)?.address, 'new:1');
  table.apply(change(row(2, 'newer:1')), config, 5);
  assert.deepEqual([table.contact(2)?.address, table.get(2)?.address], ['newer:1', 'newer:1']);
  table.moved(9, 'nobody:1');
  assert.equal(table.contact(9), null);
});

it('who was expelled is remembered over snapshots, and learnt from no hearsay', () => {
  const table = new MemberTable(config, [row(1), row(2), row(3)]);
  table.apply(change({ ...row(2), expelled: true }), { ...EMPTY_CONFIG, voters: [1, 3] }, 4);
  assert.deepEqual([table.isExpelled(2), table.isExpelled(3)], [true, false]);
  assert.equal(table.contact(2), null);
  table.learn([row(2), { ...row(3), expelled: true }], 9);
  assert.equal(table.contact(2), null);
  assert.deepEqual(table.expelled, [2]);
  const restored = new MemberTable(EMPTY_CONFIG, []);
  restored.restore({ ...EMPTY_CONFIG, voters: [1, 3] }, table.encode(), 4);
  assert.deepEqual(restored.expelled, [2]);
  assert.deepEqual(restored.list, table.list);
});

it('a log that is further says where members are, until the own log is as far', () => {
  const table = new MemberTable(config, [row(1), row(2), row(3)]);
  table.learn([row(1, 'moved:1'), row(4)], 20);
  assert.deepEqual([table.contact(1)?.address, table.contact(4)?.address], ['moved:1', 'host4:1']);
  // Entries of the past come in, which know the old addresses only.
  table.apply(change(row(1)), config, 10);
  assert.deepEqual([table.contact(1)?.address, table.get(1)?.address], ['moved:1', 'host1:1']);
  table.learn([row(1, 'stale:1')], 15);
  assert.equal(table.contact(1)?.address, 'moved:1', 'an older list counts for nothing');
  table.apply(change(row(1, 'moved:1')), config, 20);
  table.learn([row(1, 'late:1')], 20);
  assert.deepEqual([table.contact(1)?.address, table.index], ['moved:1', 20]);
});
