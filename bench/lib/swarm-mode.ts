/**
 * Docker's own Swarm mode on an engine of a test bed: the other side of the comparisons, through the engine's API.
 */
import type { Engine } from '../../test/e2e/lib/engine.ts';
import { waitFor } from '../../test/support/wait.ts';

/** What the benchmarks create in Swarm mode. */
export interface SwarmServiceOptions {
  readonly name: string;
  readonly image: string;
  readonly replicas: number;
  /** Name or id of an overlay network. */
  readonly network?: string;
}

/** Swarm mode's bridge to the outside, with room for more tasks than the test bed's small address pools give it. */
async function ensureGatewayBridge(engine: Engine): Promise<void> {
  const name = 'docker_gwbridge';
  const networks = await engine.callJson<{ Name: string }[]>({ method: 'GET', path: '/networks' });
  if (networks.some((network) => network.Name === name)) return;
  const option = (key: string): string => `com.docker.network.bridge.${key}`;
  await engine.call({
    method: 'POST',
    path: '/networks/create',
    json: {
      Name: name,
      Driver: 'bridge',
      IPAM: { Config: [{ Subnet: '172.22.0.0/16' }] },
      Options: {
        [option('name')]: name,
        [option('enable_icc')]: 'false',
        [option('enable_ip_masquerade')]: 'true',
      },
    },
  });
}

/** Makes a swarm of one and waits until its node is ready. */
export async function initSwarm(engine: Engine): Promise<void> {
  await ensureGatewayBridge(engine);
  await engine.callJson<string>({
    method: 'POST',
    path: '/swarm/init',
    json: { ListenAddr: '0.0.0.0:2377', AdvertiseAddr: engine.host.address },
  });
  await waitForReadyNode(engine);
}

/** Waits until the engine, as a manager, calls its node ready. */
export async function waitForReadyNode(engine: Engine): Promise<void> {
  await waitFor(
    'the node of Swarm mode',
    async () => {
      const nodes = await engine.callJson<{ Status: { State: string } }[]>({ method: 'GET', path: '/nodes' });
      return nodes[0]?.Status.State === 'ready';
    },
    { timeoutMs: 60_000, everyMs: 20 },
  );
}

/** Ends the swarm of one, with everything in it. */
export async function leaveSwarm(engine: Engine): Promise<void> {
  await engine.call({ method: 'POST', path: '/swarm/leave?force=1' });
}

/** Makes an overlay network; returns its id. */
export async function createSwarmNetwork(engine: Engine, name: string): Promise<string> {
  const json = { Name: name, Driver: 'overlay', CheckDuplicate: true };
  const { Id: id } = await engine.callJson<{ Id: string }>({
    method: 'POST',
    path: '/networks/create',
    json,
  });
  return id;
}

/** Creates a replicated service; returns its id. The answer comes before its tasks run. */
export async function createSwarmService(engine: Engine, options: SwarmServiceOptions): Promise<string> {
  const networks = options.network === undefined ? {} : { Networks: [{ Target: options.network }] };
  const { ID: id } = await engine.callJson<{ ID: string }>({
    method: 'POST',
    path: '/services/create',
    json: {
      Name: options.name,
      TaskTemplate: { ContainerSpec: { Image: options.image }, ...networks },
      Mode: { Replicated: { Replicas: options.replicas } },
    },
  });
  return id;
}

/** How many tasks of a service run, as the manager counts. */
export async function runningSwarmTasks(engine: Engine, id: string): Promise<number> {
  const filters = encodeURIComponent(JSON.stringify({ id: [id] }));
  const [service] = await engine.callJson<{ ServiceStatus?: { RunningTasks?: number } }[]>({
    method: 'GET',
    path: `/services?status=true&filters=${filters}`,
  });
  return service?.ServiceStatus?.RunningTasks ?? 0;
}

/** Removes a service. The answer comes before its containers are gone. */
export async function removeSwarmService(engine: Engine, id: string): Promise<void> {
  await engine.call({ method: 'DELETE', path: `/services/${id}` });
}
