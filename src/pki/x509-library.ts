/**
 * The one door to `@peculiar/x509`, set up to use Node's WebCrypto.
 *
 * It is loaded when the first certificate or request is made, not at start: it takes over 100 ms to
 * evaluate, and most runs of the command and most starts of the daemon make none.
 * Invariant: the `Reflect` functions it needs exist before it is evaluated.
 */
import './reflect-metadata.ts';
import { webcrypto } from 'node:crypto';
import type * as x509Types from '@peculiar/x509';

/** The X.509 library. */
export type X509 = typeof x509Types;

let loading: Promise<X509> | null = null;

/** The X.509 library, loaded once and ready for use. */
export function loadX509(): Promise<X509> {
  loading ??= load();
  return loading;
}

async function load(): Promise<X509> {
  const x509 = await import('@peculiar/x509');
  x509.cryptoProvider.set(webcrypto as Crypto);
  return x509;
}
