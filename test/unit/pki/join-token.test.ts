import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { seededRandom } from '../../../src/base/random.ts';
import { createCertificateAuthority } from '../../../src/pki/certificate-authority.ts';
import {
  createJoinSecret,
  describeJoinTokenRefusal,
  formatJoinToken,
  type JoinTokenRefusal,
  parseJoinToken,
  roleOfSecret,
  rootDigest,
  secretsEqual,
} from '../../../src/pki/join-token.ts';

const digit = fc.constantFrom(...'0123456789abcdefghijklmnopqrstuvwxyz');
const digits = (length: number) =>
  fc.array(digit, { minLength: length, maxLength: length }).map((all) => all.join(''));

function refusal(text: string): JoinTokenRefusal {
  const parsed = parseJoinToken(text);
  assert.ok(!parsed.ok);
  return parsed.reason;
}

describe('join tokens', () => {
  const digest = 'd'.repeat(50);
  const secret = 's'.repeat(25);

  it('carry the SHA-256 of the root in 50 base36 digits', async () => {
    const root = (await createCertificateAuthority({ clusterId: 'c', nowMs: Date.now() })).certificatePem;
    const text = rootDigest(root);
    assert.match(text, /^[0-9a-z]{50}$/);
    let value = 0n;
    for (const each of text) value = value * 36n + BigInt(Number.parseInt(each, 36));
    const der = new X509Certificate(root).raw;
    assert.equal(value.toString(16).padStart(64, '0'), createHash('sha256').update(der).digest('hex'));
    assert.equal(rootDigest(der), text, 'PEM and DER give the same digest');
  });

  it('are read as they were made, white space around them ignored', () => {
    fc.assert(
      fc.property(digits(50), digits(25), (someDigest, someSecret) => {
        const token = { digest: someDigest, secret: someSecret };
        assert.deepEqual(parseJoinToken(` ${formatJoinToken(token)}\n`), { ok: true, value: token });
      }),
    );
  });

  it('never make the parser throw, whatever the text', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const parsed = parseJoinToken(text);
        if (!parsed.ok) assert.match(describeJoinTokenRefusal(parsed.reason), /swarmd join-token/);
      }),
    );
  });

  it('are refused with what is wrong', () => {
    assert.deepEqual(refusal('  '), { kind: 'empty' });
    assert.deepEqual(refusal('hello'), { kind: 'not-a-token' });
    assert.deepEqual(refusal('SWMKEY-1-abc'), { kind: 'unlock-key' });
    assert.deepEqual(refusal(`SWMTKN-2-${digest}-${secret}`), { kind: 'unknown-version', version: '2' });
    assert.deepEqual(refusal('SWMTKN-1'), { kind: 'wrong-parts', parts: 2 });
    assert.deepEqual(refusal(`SWMTKN-1-${digest}-${secret}-x`), { kind: 'wrong-parts', parts: 5 });
    assert.deepEqual(refusal(`SWMTKN-1-${digest}-${secret.slice(1)}`), {
      kind: 'wrong-length',
      part: 'secret',
      length: 24,
      expected: 25,
    });
    assert.deepEqual(refusal(`SWMTKN-1-${'D'.repeat(50)}-${secret}`), {
      kind: 'bad-character',
      part: 'digest',
      position: 1,
    });
  });

  it('do not show the secret when refused', () => {
    const hidden = 'topsecrettopsecrettopsec';
    const reason = refusal(`SWMTKN-1-${digest}-${hidden}`);
    assert.ok(!JSON.stringify(reason).includes(hidden));
    assert.ok(!describeJoinTokenRefusal(reason).includes(hidden));
  });

  it('have secrets of 25 digits that say the role', () => {
    const random = seededRandom(7);
    const secrets = { manager: createJoinSecret(random), worker: createJoinSecret(random) };
    assert.match(secrets.manager, /^[0-9a-z]{25}$/);
    assert.equal(roleOfSecret(secrets.manager, secrets), 'manager');
    assert.equal(roleOfSecret(secrets.worker, secrets), 'worker');
    assert.equal(roleOfSecret(createJoinSecret(random), secrets), null);
    assert.equal(roleOfSecret('', secrets), null);
  });

  it('compare secrets of any length', () => {
    assert.equal(secretsEqual('abc', 'abc'), true);
    assert.equal(secretsEqual('abc', 'abd'), false);
    assert.equal(secretsEqual('abc', 'abcd'), false);
  });
});
