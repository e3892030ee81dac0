/** A member that returns with other addresses. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { Identity } from '../../../src/node/identity.ts';
import { movedIdentity } from '../../../src/node/move.ts';

const identity: Identity = {
  format: 1,
  nodeId: 'n',
  clusterId: 'c',
  role: 'manager',
  raftId: 5,
  listen: { host: '0.0.0.0', port: 2377 },
  advertise: { host: '10.0.0.1', port: 2377 },
  dataPathAddress: '10.0.0.1',
  managers: [],
};

it('nothing given, or the same again, changes nothing', () => {
  assert.equal(movedIdentity(identity, {}), identity);
  const same = { listen: { host: '0.0.0.0', port: 0 }, advertise: { host: '10.0.0.1', port: 0 } };
  assert.equal(movedIdentity(identity, same), identity);
});

it('a new advertised host takes the address of the data path along, a port that is given stays', () => {
  const moved = movedIdentity(identity, { advertise: { host: '10.0.0.9', port: 0 } });
  assert.deepEqual(moved, {
    ...identity,
    advertise: { host: '10.0.0.9', port: 2377 },
    dataPathAddress: '10.0.0.9',
  });
  const nat = movedIdentity(identity, { advertise: { host: '10.0.0.9', port: 4000 } });
  assert.equal(nat.advertise.port, 4000);
  assert.equal(movedIdentity(nat, { listen: { host: '0.0.0.0', port: 2400 } }).advertise.port, 4000);
});

it('a new listen port takes the advertised one along, where that followed it', () => {
  const moved = movedIdentity(identity, { listen: { host: '0.0.0.0', port: 2400 } });
  assert.deepEqual([moved.listen.port, moved.advertise], [2400, { host: '10.0.0.1', port: 2400 }]);
});

it('a listen address that was advertised as it is still is', () => {
  const fixed = { ...identity, listen: { host: '10.0.0.1', port: 2377 } };
  const moved = movedIdentity(fixed, { listen: { host: '10.0.0.2', port: 2377 } });
  assert.deepEqual(moved.advertise, { host: '10.0.0.2', port: 2377 });
  assert.equal(movedIdentity(fixed, { listen: { host: '0.0.0.0', port: 2377 } }).advertise.host, '10.0.0.1');
});

it('the data path has the address that is given for it', () => {
  const moved = movedIdentity(identity, {
    advertise: { host: '10.0.0.9', port: 0 },
    dataPathAddress: '192.168.0.1',
  });
  assert.equal(moved.dataPathAddress, '192.168.0.1');
  const apart = { ...identity, dataPathAddress: '192.168.0.1' };
  assert.equal(
    movedIdentity(apart, { advertise: { host: '10.0.0.9', port: 0 } }).dataPathAddress,
    '192.168.0.1',
  );
});
