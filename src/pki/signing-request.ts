/**
 * Certificate signing requests (PKCS#10): a node proves that it holds a key, the manager names the node.
 *
 * Invariant: the subject of a request is never believed; only its public key is used, and only after the
 * request's own signature has been checked.
 */
import { errorMessage } from '../base/errors.ts';
import { ok, type Result, refuse } from '../base/result.ts';
import { importKeyPair, signatureAlgorithm } from './key-pair.ts';
import { loadX509, type X509 } from './x509-library.ts';

/** The public key in a request, as the library takes it. */
export type RequestedKey = InstanceType<X509['PublicKey']>;

/** Characters of PEM text a request may have; a P-256 request has about 400. */
export const signingRequestCharactersMax = 8192;

/** Makes a request in PEM for the key; `privateKeyPem` is PKCS#8 and stays with the caller. */
export async function createSigningRequest(privateKeyPem: string): Promise<string> {
  const x509 = await loadX509();
  const keys = await importKeyPair(privateKeyPem);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: ['swarmd node'] }],
    keys,
    signingAlgorithm: signatureAlgorithm,
  });
  return request.toString('pem');
}

/** The P-256 public key in a request from a peer, or what is wrong with the request. */
export async function readSigningRequest(csrPem: string): Promise<Result<RequestedKey>> {
  if (csrPem.length > signingRequestCharactersMax) {
    return refuse(`the certificate request is longer than ${signingRequestCharactersMax} characters`);
  }
  const x509 = await loadX509();
  try {
    const request = new x509.Pkcs10CertificateRequest(csrPem);
    const { name, namedCurve } = request.publicKey.algorithm as { name?: string; namedCurve?: string };
    if (name !== signatureAlgorithm.name || namedCurve !== signatureAlgorithm.namedCurve) {
      return refuse('the certificate request is not for an ECDSA P-256 key');
    }
    if (!(await request.verify())) {
      return refuse('the certificate request is not signed by its own key');
    }
    return ok(request.publicKey);
  } catch (error) {
    return refuse(`the certificate request cannot be read (${errorMessage(error)})`);
  }
}
