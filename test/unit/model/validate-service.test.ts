import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { defaultServiceSpec, defaultTaskSpec } from '../../../src/model/defaults.ts';
import { parseServiceSpec, validateServiceSpec } from '../../../src/model/validate-service.ts';

type Json = Record<string, unknown>;

const withTask = (task: Json): Json => ({ name: 'web', task: { container: { image: 'nginx' }, ...task } });
const withContainer = (container: Json): Json => withTask({ container: { image: 'nginx', ...container } });

function reasonOf(value: unknown): string {
  const parsed = parseServiceSpec(value);
  assert.equal(parsed.ok, false, JSON.stringify(value));
  return parsed.ok ? '' : parsed.reason;
}

test('a name and an image are enough; the rest are defaults', () => {
  const parsed = parseServiceSpec(withTask({}));
  assert.ok(parsed.ok);
  assert.deepEqual(parsed.value, {
    ...defaultServiceSpec,
    name: 'web',
    task: { ...defaultTaskSpec, container: { ...defaultTaskSpec.container, image: 'nginx' } },
  });
  assert.deepEqual(
    parseServiceSpec(JSON.parse(JSON.stringify(parsed.value))),
    parsed,
    'a spec read back is unchanged',
  );
});

test('members that are undefined count as absent', () => {
  const parsed = parseServiceSpec({ ...withTask({ resources: undefined }), labels: undefined });
  assert.ok(parsed.ok);
  assert.deepEqual(parsed.value.labels, {});
  assert.ok(!Object.hasOwn(parsed.value.task.container, 'hostname'));
});

test('every refusal names the field and what to do', () => {
  const refusals: [unknown, RegExp][] = [
    [null, /expected an object, not null/],
    [[], /expected an object, not a list/],
    [{ task: {} }, /name: is missing/],
    [{ name: 'web' }, /task: is missing/],
    [{ ...withTask({}), replica: 3 }, /replica: unknown field; the fields are name, labels, task, mode/],
    [withTask({ contianer: {} }), /task\.contianer: unknown field/],
    [{ ...withTask({}), name: 'a.b' }, /name: 'a\.b' cannot be a DNS name/],
    [{ ...withTask({}), name: 'x'.repeat(64) }, /64 characters; use 63 or fewer/],
    [{ ...withTask({}), mode: { kind: 'replicate' } }, /mode\.kind: expected replicated, global/],
    [
      { ...withTask({}), mode: { kind: 'replicated', replicas: -1 } },
      /mode\.replicas: expected a whole number from 0/,
    ],
    [{ ...withTask({}), mode: { kind: 'replicated', replicas: 1.5 } }, /mode\.replicas/],
    [{ ...withTask({}), mode: { kind: 'global', replicas: 2 } }, /mode\.replicas: unknown field/],
    [
      { ...withTask({}), mode: { kind: 'global-job' }, update: { parallelism: 2 } },
      /update: a job is not updated/,
    ],
    [
      { ...withTask({}), update: { maxFailureRatio: 1.1 } },
      /update\.maxFailureRatio: expected a number from 0 to 1/,
    ],
    [{ ...withTask({}), rollback: { maxFailureRatio: -0.1 } }, /rollback\.maxFailureRatio/],
    [{ ...withTask({}), rollback: { monitorMs: -1 } }, /rollback\.monitorMs/],
    [{ ...withTask({}), rollback: { failureAction: 'rollback' } }, /rollback is never rolled back/],
    [{ ...withTask({}), update: { delayMs: Number.NaN } }, /update\.delayMs/],
    [withContainer({ image: '' }), /image: an image must be given/],
    [withContainer({ image: 'Nginx' }), /'Nginx' is no image reference: .*lower case/],
    [withTask({ runtime: 'process' }), /process runtime needs a command.*process runtime takes no image/],
    [withTask({ runtime: 'podman' }), /task\.runtime: expected docker, process/],
    [withContainer({ env: ['=x'] }), /env\[0\]: '=x' has no name/],
    [withContainer({ env: ['A={{.Nod.ID}}'] }), /env\[0\]: '\.Nod\.ID' is no placeholder/],
    [withContainer({ env: ['A=\0'] }), /NUL/],
    [withContainer({ hostname: '{{.Task.Slot' }), /no closing/],
    [withContainer({ dir: 'srv' }), /dir: 'srv' must be an absolute path/],
    [withContainer({ stopSignal: 'sig term' }), /stopSignal/],
    [withContainer({ healthCheck: { test: ['true'] } }), /first item is NONE, CMD or CMD-SHELL/],
    [withContainer({ healthCheck: { test: ['CMD'] } }), /CMD needs a command/],
    [withContainer({ healthCheck: { intervalMs: 0.5 } }), /intervalMs: 0\.5 is below 1 ms/],
    [withContainer({ hosts: ['db 10.0.0.1'] }), /hosts\[0\]/],
    [withContainer({ dns: { nameservers: ['one.one'] } }), /nameservers\[0\]: 'one\.one' is no IP address/],
    [
      withContainer({ mounts: [{ type: 'bind', source: 'x', target: '/x' }] }),
      /bind mount needs an absolute path/,
    ],
    [withContainer({ mounts: [{ type: 'volume', source: '/x', target: '/x' }] }), /for a path use type bind/],
    [withContainer({ mounts: [{ type: 'volume', target: 'x' }] }), /target: 'x' must be an absolute path/],
    [withContainer({ mounts: [{ type: 'volume', target: '/' }] }), /root folder/],
    [withContainer({ mounts: [{ type: 'tmpfs', source: 'a', target: '/x' }] }), /tmpfs mount has no source/],
    [
      withContainer({ mounts: [{ type: 'tmpfs', target: '/x', volume: {} }] }),
      /volume: only for type volume/,
    ],
    [
      withContainer({
        mounts: [
          { type: 'tmpfs', target: '/x' },
          { type: 'tmpfs', target: '/x/' },
        ],
      }),
      /duplicate mount point/,
    ],
    [withContainer({ secrets: [{ id: 'a', name: 'a' }] }), /secrets\[0\]\.file: is missing/],
    [
      withContainer({
        configs: [
          { name: 'a', file: { name: 'f' } },
          { name: 'b', file: { name: 'f' } },
        ],
      }),
      /'a' and 'b' have a conflicting target: 'f'/,
    ],
    [withContainer({ ulimits: [{ name: 'nofile', soft: 10, hard: 5 }] }), /soft limit of nofile is above/],
    [withTask({ resources: { limits: { memoryBytes: 1 } } }), /limits\.memoryBytes: 1 is below .*4 MiB/],
    [withTask({ resources: { reservations: { nanoCpus: 42 } } }), /reservations\.nanoCpus: 42 is below/],
    [withTask({ resources: { limits: { generic: { gpu: 1 } } } }), /reserved, not limited/],
    [
      withTask({ resources: { reservations: { generic: { gpu: 0 } } } }),
      /generic\.gpu: expected a whole number of 1/,
    ],
    [withTask({ restart: { delayMs: -1 } }), /restart\.delayMs/],
    [withTask({ restart: { condition: 'always' } }), /condition: expected none, on-failure, any/],
    [
      withTask({ placement: { constraints: ['node.rol==manager'] } }),
      /unknown key 'node\.rol'; valid keys are node\.id/,
    ],
    [
      withTask({ placement: { preferences: [{ spread: 'node.role' }] } }),
      /spread.*'node\.role' cannot be spread/,
    ],
    [
      { ...withTask({ placement: { maxReplicasPerNode: 1 } }), mode: { kind: 'global' } },
      /maxReplicasPerNode: a global service/,
    ],
    [withTask({ networks: [{ target: 'a' }, { target: 'a' }] }), /network a is listed twice/],
    [withTask({ networks: [{ target: '' }] }), /networks\[0\]\.target: must not be empty/],
    [
      { ...withTask({}), endpoint: { ports: [{ targetPort: 0 }] } },
      /targetPort: expected a whole number from 1 to 65535/,
    ],
    [{ ...withTask({}), endpoint: { ports: [{}] } }, /targetPort: is missing/],
    [
      { ...withTask({}), endpoint: { mode: 'dnsrr', ports: [{ targetPort: 80 }] } },
      /dnsrr.*use publishMode host/,
    ],
    [
      {
        ...withTask({}),
        endpoint: {
          ports: [
            { targetPort: 1, publishedPort: 80 },
            { targetPort: 2, publishedPort: 80 },
          ],
        },
      },
      /duplicate published port tcp\/80/,
    ],
  ];
  for (const [value, reason] of refusals) assert.match(reasonOf(value), reason);
});

test('what is unusual but right is accepted', () => {
  const accepted: unknown[] = [
    withTask({ runtime: 'process', container: { command: ['node'], args: ['a.js'] } }),
    withTask({ runtime: 'process', container: { args: ['true'] } }),
    withContainer({
      hostname: '{{.Service.Name}}-{{.Task.Slot}}',
      env: ['N={{index .Service.Labels "a.b"}}', 'UNSET'],
    }),
    withContainer({ mounts: [{ type: 'volume', source: 'data-{{.Task.Slot}}', target: '/d' }] }),
    withContainer({ ulimits: [{ name: 'memlock', soft: -1, hard: -1 }] }),
    withTask({ networks: [{ target: 'a', aliases: ['db', 'db.internal'] }] }),
    { ...withTask({}), mode: { kind: 'replicated-job', maxConcurrent: 2, totalCompletions: 9 } },
    { ...withTask({}), endpoint: { mode: 'dnsrr', ports: [{ targetPort: 80, publishMode: 'host' }] } },
    {
      ...withTask({}),
      endpoint: {
        ports: [
          { targetPort: 53, publishedPort: 53 },
          { targetPort: 53, publishedPort: 53, protocol: 'udp' },
        ],
      },
    },
  ];
  for (const value of accepted) {
    const parsed = parseServiceSpec(value);
    assert.ok(parsed.ok, parsed.ok ? '' : parsed.reason);
  }
});

test('many problems are listed together, and bounded', () => {
  const reason = reasonOf(withContainer({ env: Array.from({ length: 9 }, () => '=') }));
  assert.match(reason, /env\[0\].*env\[4\].*and 4 more/);
});

test('any JSON is read without a throw, and what is accepted passes again', () => {
  const field = fc.constantFrom(
    'name',
    'task',
    'container',
    'image',
    'mode',
    'kind',
    'endpoint',
    'ports',
    'env',
    '__proto__',
  );
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 5 },
      fc.constantFrom<unknown>(null, 'web', 'nginx', 0, -1, 1.5, true, 'replicated'),
      fc.array(tie('value'), { maxLength: 3 }),
      fc.dictionary(field, tie('value'), { maxKeys: 4 }),
    ),
  }));
  fc.assert(
    fc.property(value, value, (container, endpoint) => {
      parseServiceSpec(container);
      const parsed = parseServiceSpec({
        name: 'web',
        task: { container: { image: 'nginx' } },
        endpoint,
        mode: container,
      });
      if (parsed.ok) assert.ok(validateServiceSpec(parsed.value).ok);
    }),
  );
});
