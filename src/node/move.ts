/** The identity of a node that returns with other addresses. */
import { resolveAdvertiseHost } from './addresses.ts';
import type { Identity } from './identity.ts';
import type { Move } from './types.ts';

const EVERYWHERE: readonly string[] = ['', '0.0.0.0', '::'];

/**
 * `identity` with the addresses that were given; the same object when nothing changes. A port that is 0 is the one
 * recorded. What followed another address (the advertised port that of the listener, the address of the data path the
 * advertised one) follows it again.
 */
export function movedIdentity(identity: Identity, move: Move): Identity {
  const listen =
    move.listen === undefined
      ? identity.listen
      : { host: move.listen.host, port: move.listen.port || identity.listen.port };
  const followsListener = identity.advertise.port === identity.listen.port;
  const advertise = {
    host: advertisedHost(identity, move, listen.host),
    port: (move.advertise?.port ?? 0) || (followsListener ? listen.port : identity.advertise.port),
  };
  const followsAdvertised = identity.dataPathAddress === identity.advertise.host;
  const dataPathAddress =
    move.dataPathAddress ?? (followsAdvertised ? advertise.host : identity.dataPathAddress);
  const isSame =
    sameEndpoint(listen, identity.listen) &&
    sameEndpoint(advertise, identity.advertise) &&
    dataPathAddress === identity.dataPathAddress;
  return isSame ? identity : { ...identity, listen, advertise, dataPathAddress };
}

function advertisedHost(identity: Identity, move: Move, listenHost: string): string {
  const given = move.advertise?.host ?? '';
  if (given !== '') return resolveAdvertiseHost(given, listenHost);
  const followsListener = identity.advertise.host === identity.listen.host;
  return followsListener && !EVERYWHERE.includes(listenHost) ? listenHost : identity.advertise.host;
}

function sameEndpoint(a: Identity['listen'], b: Identity['listen']): boolean {
  return a.host === b.host && a.port === b.port;
}
