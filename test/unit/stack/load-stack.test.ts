import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SwarmdError } from '../../../src/base/errors.ts';
import { defaultRestartPolicy, defaultUpdateConfig } from '../../../src/model/defaults.ts';
import type { ServiceSpec } from '../../../src/model/spec.ts';
import { FOLDER, load, type LoadOptions } from '../../support/stack-files.ts';

/** The only service of a stack that has just `body` under `services.web`. */
function web(body: string, options: LoadOptions & { readonly top?: string } = {}): ServiceSpec {
  const indented = body.replaceAll(/^/gm, '    ');
  const plan = load(`services:\n  web:\n    image: nginx:1\n${indented}\n${options.top ?? ''}`, options);
  return plan.services[0] as ServiceSpec;
}

function refusal(texts: string | readonly string[], options: LoadOptions = {}): string {
  try {
    load(texts, options);
  } catch (error) {
    assert.ok(error instanceof SwarmdError && error.code === 'COMPOSE', String(error));
    return error.message;
  }
  throw new Error('nothing was refused');
}

describe('a stack', () => {
  it('names its objects after itself and labels them', () => {
    const plan = load(
      'services: {web: {image: nginx}, db: {image: redis, networks: [back]}}\nnetworks: {back: {}}',
    );
    assert.deepEqual(
      plan.services.map((service) => service.name),
      ['stack_db', 'stack_web'],
    );
    assert.deepEqual(
      plan.networks.map((network) => network.name),
      ['stack_back', 'stack_default'],
    );
    for (const { labels } of [...plan.services, ...plan.networks]) {
      assert.equal(labels['com.docker.stack.namespace'], 'stack');
    }
    assert.deepEqual(plan.services[1]?.task.networks, [{ target: 'stack_default', aliases: ['web'] }]);
  });

  it('takes its name from the file when none is given', () => {
    assert.equal(load('name: shop\nservices: {web: {image: nginx}}', { stack: null }).name, 'shop');
    assert.equal(load('name: shop\nservices: {web: {image: nginx}}').name, 'stack');
  });

  it('reads what a service asks of rebalancing', () => {
    const plan = load(
      'services: {a: {image: x, deploy: {x-rebalance: {}}}, b: {image: x, deploy: {x-rebalance: {max_moves: 3, margin: 4, cooldown: 5m}}}, c: {image: x}}',
    );
    assert.deepEqual(
      plan.services.map((service) => service.rebalance),
      [
        { maxMoves: 1, margin: 2, cooldownMs: 60_000 },
        { maxMoves: 3, margin: 4, cooldownMs: 300_000 },
        undefined,
      ],
    );
  });

  it('refuses a missing or malformed name', () => {
    assert.throws(() => load('services: {web: {image: nginx}}', { stack: null }), /the stack has no name/);
    assert.throws(
      () => load('services: {web: {image: nginx}}', { stack: 'a b' }),
      /"a b" is not a stack name/,
    );
  });

  it('makes no network that no service uses, and none for processes', () => {
    const plan = load('services: {web: {runtime: process, command: sleep 1}}\nnetworks: {unused: {}}');
    assert.deepEqual(plan.networks, []);
    assert.deepEqual(plan.services[0]?.task.networks, []);
  });

  it('lists external objects instead of making them', () => {
    const plan = load(
      `services: {web: {image: nginx, networks: [proxy], secrets: [key]}}
networks: {proxy: {external: true, name: public}}
secrets: {key: {external: true}}`,
    );
    assert.deepEqual(plan.external, { networks: ['public'], secrets: ['key'], configs: [] });
    assert.deepEqual(plan.networks, []);
    assert.equal(plan.services[0]?.task.container.secrets[0]?.name, 'key');
  });

  it('reads secrets and configs from files, variables and text', () => {
    const plan = load(
      `services: {web: {image: nginx}}
secrets: {a: {file: ./a.txt}, b: {environment: TOKEN}}
configs: {c: {content: "x=$\${Y}"}}`,
      { files: { [`${FOLDER}/a.txt`]: 'alpha' }, env: { TOKEN: 'beta' } },
    );
    const texts = [...plan.secrets, ...plan.configs].map(({ data }) =>
      Buffer.from(data, 'base64').toString(),
    );
    assert.deepEqual(texts, ['alpha', 'beta', 'x=${Y}']);
  });
});

describe('a service', () => {
  it('has every default', () => {
    const spec = web('');
    assert.deepEqual(spec.mode, { kind: 'replicated', replicas: 1 });
    assert.deepEqual(spec.update, defaultUpdateConfig);
    assert.deepEqual(spec.task.restart, defaultRestartPolicy);
    assert.equal(spec.endpoint.mode, 'vip');
  });

  it('runs a process: command, working folder on the host, no image', () => {
    const plan = load('services: {web: {runtime: process, command: [node, -e, "1"], working_dir: app}}');
    const { task } = plan.services[0] as ServiceSpec;
    assert.equal(task.runtime, 'process');
    assert.deepEqual(task.container.args, ['node', '-e', '1']);
    assert.equal(task.container.dir, `${FOLDER}/app`);
    assert.equal(task.container.image, '');
  });

  it('warns of what a process cannot have', () => {
    const plan = load(
      'services:\n  web:\n    runtime: process\n    command: x\n    image: nginx\n    networks: [a]\nnetworks: {a: {}}',
    );
    assert.deepEqual(
      plan.warnings.map(({ key, line }) => `${key}:${line}`),
      ['services.web.image:5', 'services.web.networks:6'],
    );
  });

  it('fills the environment from files, then its own, then the caller’s', () => {
    const spec = web('env_file: [a.env]\nenvironment: {B: 2, C: null, D: null}', {
      files: { [`${FOLDER}/a.env`]: 'A=1\nB=file\n' },
      env: { C: 'outer' },
    });
    assert.deepEqual(spec.task.container.env, ['A=1', 'B=2', 'C=outer', 'D']);
  });

  it('keeps the cluster-wide name of a volume and its options', () => {
    const spec = web('volumes: ["data:/var/lib", "./x:/y:ro"]', {
      top: 'volumes: {data: {driver: local, driver_opts: {type: nfs}}}',
    });
    assert.deepEqual(spec.task.container.mounts, [
      {
        type: 'volume',
        target: '/var/lib',
        readOnly: false,
        source: 'stack_data',
        volume: {
          labels: { 'com.docker.stack.namespace': 'stack' },
          driver: 'local',
          driverOptions: { type: 'nfs' },
        },
      },
      { type: 'bind', source: `${FOLDER}/x`, target: '/y', readOnly: true },
    ]);
  });

  it('takes limits from the older keys where deploy has none', () => {
    const spec = web('mem_limit: 64m\ncpus: 0.5\ndeploy: {resources: {limits: {memory: 128M}}}');
    assert.deepEqual(spec.task.resources, {
      limits: { nanoCpus: 500_000_000, memoryBytes: 128 * 1024 * 1024 },
    });
  });

  it('takes `restart` where deploy has no policy', () => {
    assert.equal(web('restart: always').task.restart.condition, 'any');
    assert.equal(web('restart: no').task.restart.condition, 'none');
    assert.deepEqual(web('restart: on-failure:3').task.restart, {
      ...defaultRestartPolicy,
      condition: 'on-failure',
      maxAttempts: 3,
    });
    assert.equal(
      web('restart: no\ndeploy: {restart_policy: {condition: any}}').task.restart.condition,
      'any',
    );
  });
});

describe('what people write that other loaders refuse', () => {
  for (const [title, text] of [
    [
      'depends_on as a mapping',
      'services: {a: {image: x, depends_on: {b: {condition: service_started}}}, b: {image: x}}',
    ],
    ['a top-level name', 'name: x\nservices: {a: {image: x}}'],
    ['unquoted cpus', 'services: {a: {image: x, deploy: {resources: {limits: {cpus: 0.1}}}}}'],
    ['an alternative value', 'services: {a: {image: "x${TAG+:1}"}}'],
    ['an unquoted version', 'version: 3.8\nservices: {a: {image: x}}'],
    [
      'two merge keys',
      'x-a: &a {tty: true}\nx-b: &b {init: true}\nservices:\n  a:\n    <<: *a\n    <<: *b\n    image: x',
    ],
  ] as const) {
    it(title, () => {
      assert.equal(load(text).services.length >= 1, true);
    });
  }

  it('merges both merge keys, the first winning', () => {
    const plan = load(
      'x-a: &a {user: one, tty: true}\nx-b: &b {user: two, init: true}\nservices:\n  a:\n    <<: *a\n    <<: *b\n    image: x',
    );
    const { user, tty, init } = plan.services[0]?.task.container ?? {};
    assert.deepEqual([user, tty, init], ['one', true, true]);
  });
});

describe('errors name file, line and key', () => {
  for (const [title, text, message] of [
    ['broken YAML', 'services:\n  web: [\n', /^compose\.yml:\d+: not valid YAML/],
    ['a tab', 'services:\n\tweb: 1', /^compose\.yml:2: not valid YAML/],
    [
      'a key given twice',
      'services:\n  a: {image: x}\n  a: {image: y}',
      /^compose\.yml:3: the key "a" is given twice; it is already on line 2$/,
    ],
    [
      'an unknown key',
      'services:\n  web:\n    image: x\n    replicas: 2\n',
      /^compose\.yml:4: unknown key "services\.web\.replicas"/,
    ],
    [
      'a mistyped key',
      'services:\n  web:\n    imge: x',
      /^compose\.yml:3: unknown key "services\.web\.imge"\. Did you mean "image"\?$/,
    ],
    [
      'a mistyped deploy key',
      'services: {web: {image: x, deploy: {replica: 2}}}',
      /deploy\.replica"\. Did you mean "replicas"\?/,
    ],
    [
      'a wrong type',
      'services:\n  web:\n    image: x\n    ports: 80',
      /^compose\.yml:4: services\.web\.ports must be a list, but is "80"$/,
    ],
    [
      'a bad number',
      'services:\n  web:\n    image: x\n    deploy:\n      replicas: many',
      /^compose\.yml:5: services\.web\.deploy\.replicas must be a number/,
    ],
    [
      'an undeclared network',
      'services:\n  web: {image: x, networks: [frnt]}\nnetworks: {front: {}}',
      /"frnt" is not declared .* Did you mean "front"\?$/,
    ],
    [
      'an undeclared volume',
      'services:\n  web:\n    image: x\n    volumes: ["dat:/x"]\nvolumes: {data: {}}',
      /^compose\.yml:4: .*"dat" is not declared .* Did you mean "data"\?$/,
    ],
    [
      'a constraint no node can meet',
      'services: {web: {image: x, deploy: {placement: {constraints: [node.rol==manager]}}}}',
      /constraints\[0\]/,
    ],
    [
      'dnsrr with an ingress port',
      'services: {web: {image: x, ports: ["80:80"], deploy: {endpoint_mode: dnsrr}}}',
      /mode: host/,
    ],
    [
      'a required variable',
      'services:\n  web:\n    image: "x:${TAG?tell the tag}"',
      /^compose\.yml:3: services\.web\.image: .*TAG.*tell the tag$/,
    ],
    ['no image', 'services:\n  web: {build: .}', /^compose\.yml:2: services\.web has no `image`/],
    ['a bad image', 'services: {web: {image: "Nginx:1"}}', /must be lower case/],
    ['extends', 'services: {web: {image: x, extends: {service: y}}}', /extends is not supported/],
    ['an alias bomb', bomb(), /aliases expand to more than/],
    [
      'a missing file',
      'services: {web: {image: x}}\nconfigs: {c: {file: ./none}}',
      /^compose\.yml:2: configs\.c\.file: there is no file \/cwd\/none$/,
    ],
  ] as const) {
    it(title, () => {
      assert.match(refusal(text), message);
    });
  }

  it('names the second file when the mistake is there', () => {
    assert.match(
      refusal(['services: {web: {image: x}}', '\n\nservices: {web: {tyt: true}}']),
      /^compose-2\.yml:3: .*Did you mean "tty"/,
    );
  });
});

/** Ten levels of ten aliases: a few lines that stand for ten thousand million values. */
function bomb(): string {
  const lines = ['x-0: &a0 [1,1,1,1,1,1,1,1,1,1]'];
  for (let i = 1; i < 10; i++)
    lines.push(`x-${i}: &a${i} [${Array.from({ length: 10 }, () => `*a${i - 1}`).join(',')}]`);
  return lines.join('\n');
}

describe('warnings', () => {
  it('tell each key that a cluster cannot honour, with its line', () => {
    const plan = load(
      'services:\n  web:\n    image: x\n    build: .\n    profiles: [dev]\n    privileged: false\n',
    );
    assert.deepEqual(
      plan.warnings.map(({ line, key }) => [line, key]),
      [
        [4, 'services.web.build'],
        [5, 'services.web.profiles'],
      ],
    );
  });

  it('tell of an unset variable once', () => {
    const plan = load('services: {web: {image: x, environment: {A: "$NO", B: "${NO}"}}}');
    assert.deepEqual(
      plan.warnings.map(({ message }) => message),
      ['the variable NO is not set; an empty text takes its place'],
    );
  });

  it('tell of an address a port cannot be bound to', () => {
    const [warning] = load('services: {web: {image: x, ports: ["127.0.0.1:80:80"]}}').warnings;
    assert.match(warning?.message ?? '', /127\.0\.0\.1 is ignored/);
  });
});

describe('several files', () => {
  const base =
    'services: {web: {image: one, command: [a, b], environment: [A=1, B=2], ports: ["80:80"], deploy: {replicas: 2}}}';

  it('merge: mappings by key, lists appended, commands replaced', () => {
    const plan = load([
      base,
      'services: {web: {image: two, command: c, environment: {B: 3}, ports: ["81:81"]}}',
    ]);
    const { task, endpoint, mode } = plan.services[0] as ServiceSpec;
    assert.equal(task.container.image, 'two');
    assert.deepEqual(task.container.args, ['c']);
    assert.deepEqual(task.container.env, ['A=1', 'B=3']);
    assert.deepEqual(
      endpoint.ports.map((port) => port.publishedPort),
      [80, 81],
    );
    assert.deepEqual(mode, { kind: 'replicated', replicas: 2 });
  });

  it('drop with !reset and replace with !override', () => {
    const plan = load([base, 'services: {web: {deploy: !reset null, ports: !override ["90:90"]}}']);
    const { endpoint, mode } = plan.services[0] as ServiceSpec;
    assert.deepEqual(
      endpoint.ports.map((port) => port.publishedPort),
      [90],
    );
    assert.deepEqual(mode, { kind: 'replicated', replicas: 1 });
  });
});
