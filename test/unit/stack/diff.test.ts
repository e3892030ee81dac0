import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { planPrerequisites, planServices, sameValue, servicesToPrune } from '../../../src/stack/diff.ts';
import { resolveSpec, type IdsByName } from '../../../src/stack/resolve.ts';
import { idsOf } from '../../../src/cli/lookup.ts';
import { FakeApi } from '../../support/fake-api.ts';
import { load } from '../../support/stack-files.ts';

const TEXT =
  'services: {web: {image: nginx}, db: {image: redis, configs: [c]}}\nconfigs: {c: {content: one}}';

/** A cluster on which `text` is deployed. */
function deployed(text: string): FakeApi {
  const api = new FakeApi();
  const plan = load(text);
  for (const spec of plan.networks)
    api.networks.push({ id: api.id(), meta: api.meta(), spec, subnet: '10.0.1.0/24', vni: 1 });
  for (const spec of plan.configs) api.configs.push({ id: api.id(), meta: api.meta(), spec });
  for (const spec of plan.services) {
    const resolved = resolveSpec(spec, ids(api));
    assert.ok(resolved.ok);
    api.addService(resolved.value);
  }
  return api;
}

function ids(api: FakeApi): IdsByName {
  return idsOf(api.networks, api.secrets, api.configs);
}

function kinds(api: FakeApi, text: string): Record<string, string> {
  const { changes } = planServices(load(text), api.services, ids(api));
  return Object.fromEntries(changes.map((change) => [change.spec.name, change.kind]));
}

describe('planning a deploy', () => {
  it('creates what is not there', () => {
    const api = new FakeApi();
    const needed = planPrerequisites(load(TEXT), api);
    assert.deepEqual(
      needed.networks.map((spec) => spec.name),
      ['stack_default'],
    );
    assert.deepEqual(
      needed.configs.map((spec) => spec.name),
      ['stack_c'],
    );
    assert.deepEqual(needed.problems, []);
  });

  it('leaves what is as the file says, in whatever order the file says it', () => {
    const api = deployed(TEXT);
    const turned =
      'configs: {c: {content: one}}\nservices: {db: {configs: [c], image: redis}, web: {image: nginx}}';
    assert.deepEqual(kinds(api, turned), { stack_db: 'unchanged', stack_web: 'unchanged' });
    assert.deepEqual(planPrerequisites(load(turned), api).networks, []);
  });

  it('updates what differs, and only that', () => {
    assert.deepEqual(kinds(deployed(TEXT), TEXT.replace('nginx', 'nginx:2')), {
      stack_db: 'unchanged',
      stack_web: 'update',
    });
  });

  it('keeps the force counter', () => {
    const api = deployed(TEXT);
    const web = api.service('stack_web');
    api.put({ ...web, spec: { ...web.spec, task: { ...web.spec.task, forceUpdate: 3 } } });
    assert.equal(kinds(api, TEXT)['stack_web'], 'unchanged');
  });

  it('prunes services of the stack that the file no longer has', () => {
    const api = deployed(TEXT);
    const gone = servicesToPrune(load('services: {web: {image: nginx}}'), api.services);
    assert.deepEqual(
      gone.map((service) => service.spec.name),
      ['stack_db'],
    );
    assert.deepEqual(
      servicesToPrune(load('services: {web: {image: nginx}}', { stack: 'other' }), api.services),
      [],
    );
  });

  it('refuses a changed config, a foreign network or service, and missing external objects', () => {
    const api = deployed(TEXT);
    assert.match(
      planPrerequisites(load(TEXT.replace('one', 'two')), api).problems[0] ?? '',
      /stack_c exists with other content/,
    );
    const plain = (name: string): void => {
      const spec = { ...(api.networks[0] as (typeof api.networks)[number]).spec, name, labels: {} };
      api.networks.push({ id: api.id(), meta: api.meta(), spec, subnet: '', vni: 0 });
    };
    plain('stack_front');
    const front = 'services: {web: {image: nginx, networks: [front]}}\nnetworks: {front: {}}';
    assert.match(planPrerequisites(load(front), api).problems[0] ?? '', /declare it `external: true`/);
    const external = 'services: {web: {image: nginx, networks: [x]}}\nnetworks: {x: {external: true}}';
    assert.match(planPrerequisites(load(external), api).problems[0] ?? '', /swarmd network create x/);
  });

  it('refuses a spec whose names have no ids', () => {
    const result = resolveSpec(load(TEXT).services[0] as never, {
      networks: new Map(),
      secrets: new Map(),
      configs: new Map(),
    });
    assert.equal(result.ok, false);
  });
});

describe('sameValue', () => {
  it('ignores the order of keys and members that are undefined', () => {
    assert.ok(sameValue({ a: 1, b: [{ c: 2, d: undefined }] }, { b: [{ c: 2 }], a: 1 }));
  });
  it('sees the order of lists, and lists that are no mappings', () => {
    assert.ok(!sameValue([1, 2], [2, 1]));
    assert.ok(!sameValue([], {}));
    assert.ok(!sameValue({ a: 1 }, { b: 1 }));
    assert.ok(!sameValue({ a: null }, { a: 0 }));
  });
});
