/**
 * The one door to `@peculiar/x509`, set up to use Node's WebCrypto.
 *
 * Invariant: the `Reflect` functions it needs exist before it is evaluated (imports run in order).
 */
import './reflect-metadata.ts';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

x509.cryptoProvider.set(webcrypto as Crypto);

/** The X.509 library, ready for use. */
export { x509 };
