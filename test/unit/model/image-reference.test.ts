import assert from 'node:assert/strict';
import test from 'node:test';
import { imageReferenceProblem } from '../../../src/model/image-reference.ts';
import { readVectors } from '../../support/planner-fixtures.ts';

const hex = 'a'.repeat(64);

test('image references', () => {
  for (const text of [
    'nginx',
    'nginx:1',
    'a/b/c:T.1-x',
    'localhost:5000/a',
    '[::1]:5000/a',
    `a@sha256:${hex}`,
    'EXAMPLE.com/x',
  ]) {
    assert.equal(imageReferenceProblem(text), null, text);
  }
  for (const text of [
    '',
    ' ',
    'NGINX',
    'nginx:',
    ':1',
    'a//b',
    '-a',
    'a..b',
    'a___b',
    hex,
    'a@sha256:abc',
    'http://a/b',
    `${'a'.repeat(256)}`,
    'busybox###',
  ]) {
    assert.notEqual(imageReferenceProblem(text), null, text);
  }
});

const vectors = readVectors<{ in: string; error?: string }>('image-reference');

test('image reference vectors', { skip: vectors === null ? 'vectors are not here' : false }, () => {
  for (const { in: text, error } of vectors ?? []) {
    assert.equal(imageReferenceProblem(text) === null, error === undefined, `${text}: ${error ?? 'ok'}`);
  }
});
