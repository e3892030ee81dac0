/**
 * Command lines as docker's own client understood them: the requests it sent (recorded) against the specs that
 * `swarmd service …` sends for the same words. Differences that are meant are listed here, each with why.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import type { ConfigId, NetworkId, SecretId } from '../../src/model/ids.ts';
import type { ServiceSpec } from '../../src/model/spec.ts';
import { TestCli } from '../support/cli.ts';
import { completeImage, serviceOfRequest, type Json } from '../support/docker-requests.ts';
import { readVectorFile } from '../support/stack-files.ts';

interface ArgvCase {
  readonly argv: readonly string[];
  readonly exit: number;
  readonly requests: readonly { readonly body: Json }[];
}
interface ArgvFile {
  readonly services: Readonly<Record<string, Json>>;
  readonly files: Readonly<Record<string, string>>;
  readonly cases: readonly ArgvCase[];
}

const NOT_YET = 'known, and refused by name until it is supported';
const CHECKED_HERE = 'docker leaves the refusal to the engine; here the flag is named';

/** By a part of the command line: why swarmd exits otherwise. */
const otherExit: Readonly<Record<string, string>> = {
  '--credential-spec': NOT_YET,
  '--isolation': NOT_YET,
  '--oom-score-adj': NOT_YET,
  '--health-start-interval': NOT_YET,
  'driver-opt=k=v': NOT_YET,
  'volume-subpath=s': NOT_YET,
  'type=cluster': NOT_YET,
  'type=tmpfs,source=x': CHECKED_HERE,
  'type=bogus': CHECKED_HERE,
  '--restart-condition bogus': CHECKED_HERE,
  '--update-failure-action bogus': CHECKED_HERE,
  'REPO/Upper': CHECKED_HERE,
  'Bad/UPPER': CHECKED_HERE,
  '--max-concurrent 2 web': CHECKED_HERE,
  '--replicas 9 job': 'the completions of a job may be changed',
  '--mode bogus': 'a bad value of a flag exits with 125',
  'gpu=a': 'a bad value of a flag exits with 125',
};

/** By a part of the command line: why the spec differs. */
const otherSpec: Readonly<Record<string, string>> = {
  'service create --detach bb:1': 'names are made up, digests are not looked up',
  '--name  bb:1': 'names are made up',
  '--log-opt a=b bb:1': 'options without a driver are for the engine’s own driver',
  '--log-opt a=b min': 'options without a driver are for the engine’s own driver',
  '--log-opt z=y web': 'options given are taken',
};

function listedIn(list: Readonly<Record<string, string>>, line: string): boolean {
  return Object.keys(list).some((part) => line.includes(part));
}

/** A spec in which order and empty lists make no difference. */
function comparable(spec: ServiceSpec): unknown {
  const { container } = spec.task;
  const sorted = (value: unknown): unknown => {
    if (Array.isArray(value)) {
      return value.map(sorted).sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
    }
    if (typeof value !== 'object' || value === null) return value;
    const members = Object.entries(value).map(([key, member]) => [key, sorted(member)] as const);
    return Object.fromEntries(
      members.filter(([, member]) => !isEmpty(member)).toSorted(([a], [b]) => (a < b ? -1 : 1)),
    );
  };
  const withoutIds = <T extends { readonly id: string }>(uses: readonly T[]): T[] =>
    uses.map((use) => ({ ...use, id: '' }));
  return sorted({
    ...spec,
    words: { command: container.command?.join('\0'), args: container.args?.join('\0') },
    task: {
      ...spec.task,
      container: {
        ...container,
        command: [],
        args: [],
        image: completeImage(container.image),
        secrets: withoutIds(container.secrets),
        configs: withoutIds(container.configs),
      },
    },
  });
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === false || value === 0 || value === '') return true;
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0;
}

/** A cluster with the recorded services, and every network, secret and config the command lines name. */
function preparedCli(file: ArgvFile, cwd: string): TestCli {
  const cli = new TestCli();
  const { api } = cli;
  cli.cwd = cwd;
  cli.env['C'] = 'c-from-shell';
  api.settle = () => {};
  for (const name of ['n1', 'n2', 'n3', 'n4', 'host']) {
    const spec = {
      name,
      labels: {},
      driver: 'overlay',
      internal: false,
      attachable: false,
      ingress: false,
      driverOptions: {},
    } as const;
    api.networks.push({ id: name as NetworkId, meta: api.meta(), spec, subnet: '', vni: 0 });
  }
  for (const name of ['s', 's1', 's2', 's3']) {
    api.secrets.push({ id: name as SecretId, meta: api.meta(), spec: { name, labels: {}, data: '' } });
  }
  for (const name of ['c', 'c1', 'c2', 'c3']) {
    api.configs.push({ id: name as ConfigId, meta: api.meta(), spec: { name, labels: {}, data: '' } });
  }
  for (const service of new Set(Object.values(file.services))) {
    if (api.services.some((other) => other.spec.name === service.Spec.Name)) continue;
    const made = api.addService(serviceOfRequest(service.Spec));
    if (service.PreviousSpec !== undefined)
      api.put({ ...made, previousSpec: serviceOfRequest(service.PreviousSpec) });
  }
  return cli;
}

const file = readVectorFile<ArgvFile>('cli-argv-to-api');

test('service commands send what docker sends', {
  skip: file === null ? 'vectors are not here' : false,
}, async (t) => {
  const cwd = mkdtempSync(join(tmpdir(), 'swarmd-argv-'));
  t.after(() => rmSync(cwd, { recursive: true }));
  for (const [name, text] of Object.entries(file?.files ?? {})) writeFileSync(join(cwd, name), text);
  let compared = 0;
  for (const { argv, exit, requests } of file?.cases ?? []) {
    if (argv[0] !== 'service' || file === null) continue;
    const line = argv.join(' ');
    const cli = preparedCli(file, cwd);
    const { exitCode, stderr } = await cli.run(...argv);
    if (exitCode !== exit) {
      assert.ok(listedIn(otherExit, line), `${line}: exit ${exitCode} instead of ${exit}: ${stderr}`);
      continue;
    }
    if (exit !== 0 || listedIn(otherSpec, line)) continue;
    const sent = cli.api.calls.filter(({ method }) => /^service\.(create|update)$/.test(method));
    // A rollback is one call without a spec.
    if (cli.api.calls.some(({ method }) => method === 'service.rollback')) continue;
    assert.equal(sent.length, requests.length, line);
    for (const [i, { params }] of sent.entries()) {
      const { spec } = params as { spec: ServiceSpec };
      assert.deepEqual(comparable(spec), comparable(serviceOfRequest(requests[i]?.body)), line);
      compared++;
    }
  }
  assert.ok(compared > 90, `only ${compared} requests were compared`);
});
