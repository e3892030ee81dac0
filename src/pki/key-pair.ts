/**
 * ECDSA P-256 key pairs as PEM text.
 *
 * Invariant: private keys leave this folder only as PKCS#8 PEM in a return value; callers write them
 * with mode 0600 and never log them.
 */
import { createPrivateKey, createPublicKey, generateKeyPair as generate, webcrypto } from 'node:crypto';
import { promisify } from 'node:util';
import { SwarmdError } from '../base/errors.ts';

/** The algorithm of every key and signature of the cluster. */
export const signatureAlgorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** A key pair as WebCrypto takes it. */
export interface KeyPair {
  readonly privateKey: webcrypto.CryptoKey;
  readonly publicKey: webcrypto.CryptoKey;
}

const generateAsync = promisify(generate);

/** Makes a P-256 key pair and returns its private key, a secret, as PKCS#8 PEM. */
export async function generatePrivateKey(): Promise<string> {
  const { privateKey } = await generateAsync('ec', { namedCurve: 'prime256v1' });
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

/** The WebCrypto pair of a private key in PEM. Throws INVALID_ARGUMENT when it is not a P-256 key. */
export async function importKeyPair(privateKeyPem: string): Promise<KeyPair> {
  try {
    const privateKey = createPrivateKey(privateKeyPem);
    const pkcs8 = privateKey.export({ type: 'pkcs8', format: 'der' });
    const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'der' });
    return {
      privateKey: await webcrypto.subtle.importKey('pkcs8', pkcs8, signatureAlgorithm, true, ['sign']),
      publicKey: await webcrypto.subtle.importKey('spki', spki, signatureAlgorithm, true, ['verify']),
    };
  } catch (cause) {
    throw new SwarmdError(
      'INVALID_ARGUMENT',
      'the private key is not an ECDSA P-256 key in PEM; give the key that was made with the certificate',
      { cause },
    );
  }
}
