/** What an engine can do when it is asked directly: the least anything that runs containers on it can take. */
import { Agent, request } from 'node:http';
import type { Engine } from '../../test/e2e/lib/engine.ts';
import { BUSYBOX_IMAGE } from '../../test/e2e/lib/images.ts';

/** No network; the engine's own bridge; a bridge network of one's own, as swarmd makes for an overlay. */
export type ContainerNetwork = 'none' | 'bridge' | 'user bridge';

const USER_BRIDGE = 'bench-raw';

/** Calls an engine over connections that are kept, so that connecting is not what is measured. */
class EngineCalls {
  readonly #socketPath: string;
  readonly #agent: Agent;

  constructor(engine: Engine, atOnce: number) {
    this.#socketPath = engine.socketPath;
    this.#agent = new Agent({ keepAlive: true, maxSockets: atOnce });
  }

  /** Resolves with the body; rejects on a status of 400 and above other than `allowed`. */
  async call(method: string, path: string, json?: unknown, allowed: readonly number[] = []): Promise<string> {
    return await new Promise((resolve, reject) => {
      const body = json === undefined ? '' : JSON.stringify(json);
      const headers = {
        Host: 'engine',
        'Content-Type': 'application/json',
        'Content-Length': Buffer.byteLength(body),
      };
      const options = {
        socketPath: this.#socketPath,
        agent: this.#agent,
        method,
        path: `/v1.41${path}`,
        headers,
      };
      const outgoing = request(options, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        response.on('end', () => {
          const status = response.statusCode ?? 0;
          if (status < 400 || allowed.includes(status)) resolve(text);
          else reject(new Error(`${method} ${path}: ${status} ${text}`));
        });
      });
      outgoing.on('error', reject);
      outgoing.end(body);
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}

async function forEachAtOnce<T>(
  items: readonly T[],
  atOnce: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (;;) {
      const item = items[next++];
      if (item === undefined) return;
      await work(item);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

async function ensureUserBridge(calls: EngineCalls): Promise<void> {
  const networks = JSON.parse(await calls.call('GET', '/networks')) as { Name: string }[];
  if (networks.some((network) => network.Name === USER_BRIDGE)) return;
  const config = { Name: USER_BRIDGE, Driver: 'bridge', IPAM: { Config: [{ Subnet: '10.250.0.0/24' }] } };
  await calls.call('POST', '/networks/create', config);
}

/** Creates and starts `count` containers, `atOnce` at a time; returns their ids. */
export async function createContainers(
  engine: Engine,
  options: { readonly count: number; readonly atOnce: number; readonly network: ContainerNetwork },
): Promise<string[]> {
  const calls = new EngineCalls(engine, options.atOnce);
  try {
    if (options.network === 'user bridge') await ensureUserBridge(calls);
    const mode = options.network === 'user bridge' ? USER_BRIDGE : options.network;
    const ids: string[] = [];
    const slots = Array.from({ length: options.count }, (_, i) => i);
    await forEachAtOnce(slots, options.atOnce, async (slot) => {
      const config = { Image: BUSYBOX_IMAGE, HostConfig: { NetworkMode: mode } };
      const answer = await calls.call('POST', `/containers/create?name=raw-${slot}`, config);
      const { Id: id } = JSON.parse(answer) as { Id: string };
      ids.push(id);
      await calls.call('POST', `/containers/${id}/start`);
    });
    return ids;
  } finally {
    calls.close();
  }
}

/** Stops (SIGTERM, as orchestrators do) and removes containers, `atOnce` at a time. */
export async function removeContainers(
  engine: Engine,
  ids: readonly string[],
  atOnce: number,
): Promise<void> {
  const calls = new EngineCalls(engine, atOnce);
  try {
    await forEachAtOnce(ids, atOnce, async (id) => {
      await calls.call('POST', `/containers/${id}/stop?t=10`, undefined, [304]);
      await calls.call('DELETE', `/containers/${id}?force=1&v=1`);
    });
  } finally {
    calls.close();
  }
}
