/**
 * The worker half of a node, put together: runtimes, task networks, DNS, ingress and the agent that feeds them.
 *
 * Data owned: one of each. Invariants: started and stopped in dependency order; routing reaches networks before DNS
 * and ingress, which need their addresses; stopping leaves tasks and their networks up.
 */
import type { Clock } from '../base/clock.ts';
import { errorMessage } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Random } from '../base/random.ts';
import type { ManagerPeer } from '../model/wire.ts';
import { DnsServer } from '../dns/server.ts';
import { IngressProxy } from '../ingress/proxy.ts';
import { systemCommands } from '../network/commands.ts';
import { OverlayNetworks } from '../network/driver.ts';
import { detectRung, type NetworkRung } from '../network/rung.ts';
import { formatAddress } from '../rpc/address.ts';
import type { RpcConnection, RpcHandlers } from '../rpc/types.ts';
import { Agent } from '../worker/agent.ts';
import { engineAddress } from '../worker/docker-engine.ts';
import { dockerEngineNetworks } from '../worker/docker-networks.ts';
import { DockerRuntime } from '../worker/docker-runtime.ts';
import { ProcessRuntime } from '../worker/process-runtime.ts';
import type { RoutingState, Runtime } from '../worker/types.ts';
import { nodeDescriber } from './describe.ts';
import type { Identity } from './identity.ts';
import type { NodeOptions } from './types.ts';

export interface WorkerSideDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  connect(address: string, handlers: RpcHandlers, signal: AbortSignal): Promise<RpcConnection>;
  onManagers(peers: readonly ManagerPeer[]): void;
  onRole(role: 'manager' | 'worker', raftId: number): void;
}

const VXLAN_PORT = 4790;
/** Time tasks get to stop when the node leaves, milliseconds. */
const LEAVE_TIMEOUT_MS = 60_000;

/** Runtimes, networks, names and ports of one node. */
export class WorkerSide {
  readonly #dependencies: WorkerSideDependencies;
  readonly #identity: Identity;
  readonly #runtimes: readonly Runtime[];
  readonly #networks: OverlayNetworks;
  readonly #dns: DnsServer;
  readonly #ingress: IngressProxy;
  readonly #agent: Agent;
  /** Where the host's own DNS listener is; '' when there is none. */
  #dnsAddress = '';

  /** Makes the parts and finds the network rung; starts nothing yet. */
  static async create(
    options: NodeOptions,
    identity: Identity,
    dependencies: WorkerSideDependencies,
    environment: { readonly path: string; readonly hostname: string },
  ): Promise<WorkerSide> {
    const commands = systemCommands();
    const hasEngine = options.engineHost !== null && options.runtimes.includes('docker');
    const facts = { isRoot: process.getuid?.() === 0, hasEngine, vxlanPort: VXLAN_PORT };
    const rung = await detectRung(facts, commands, AbortSignal.timeout(20_000));
    if (rung.rung !== 'overlay' && hasEngine) {
      dependencies.log.warn('task networks stay on this node: published ports lead through its address', {
        reason: rung.reason,
      });
    }
    return new WorkerSide(options, identity, dependencies, environment, rung);
  }

  private constructor(
    options: NodeOptions,
    identity: Identity,
    dependencies: WorkerSideDependencies,
    environment: { readonly path: string; readonly hostname: string },
    rung: NetworkRung,
  ) {
    const { clock, random, log } = dependencies;
    const { nodeId } = identity;
    this.#identity = identity;
    this.#dependencies = dependencies;
    const engineHost = options.runtimes.includes('docker') ? options.engineHost : null;
    this.#runtimes = [
      ...(engineHost === null
        ? []
        : [new DockerRuntime({ nodeId, clusterId: identity.clusterId, engineHost }, { clock, log })]),
      ...(options.runtimes.includes('process')
        ? [
            new ProcessRuntime(
              { dataDir: options.dataDir, nodeId, path: environment.path },
              { clock, random, log },
            ),
          ]
        : []),
    ];
    const overlay = engineHost !== null && rung.rung === 'overlay';
    this.#networks = new OverlayNetworks(
      { nodeId, address: identity.dataPathAddress, rung, vxlanPort: VXLAN_PORT },
      {
        engine: engineHost === null ? null : dockerEngineNetworks(engineAddress(engineHost)),
        commands: systemCommands(),
        clock,
        logger: log.child({ part: 'network' }),
        // A new gateway address is one more to answer on.
        onChange: () => this.#dns.retry(),
      },
    );
    this.#dns = new DnsServer(
      { host: options.dns, gateways: overlay },
      {
        clock,
        random,
        logger: log.child({ part: 'dns' }),
        networksOf: (address) => this.#networks.networksOf(address),
      },
    );
    this.#ingress = new IngressProxy({ nodeId, overlay }, { clock, logger: log.child({ part: 'ingress' }) });
    this.#agent = new Agent(
      {
        nodeId,
        dataDir: options.dataDir,
        nodeAddress: identity.dataPathAddress,
        rpcAddress: formatAddress(identity.advertise.host, identity.advertise.port),
        hostname: environment.hostname,
        initialManagers: identity.managers,
      },
      {
        runtimes: this.#runtimes,
        networks: this.#networks,
        connect: (address, handlers, signal) => dependencies.connect(address, handlers, signal),
        clock,
        random,
        log,
        describe: nodeDescriber(this.#runtimes, rung, clock, () => this.#warnings()),
        onRouting: (routing) => this.#route(routing),
        onManagers: (peers) => dependencies.onManagers(peers),
        onRole: (role, raftId) => dependencies.onRole(role, raftId),
      },
    );
  }

  get dnsAddress(): string {
    return this.#dnsAddress;
  }

  /** What managers may ask of this worker. */
  get handlers(): RpcHandlers {
    return this.#agent.handlers;
  }

  async start(): Promise<void> {
    await this.#dns.start();
    const listener = this.#dns.status().find((status) => status.networkId === null);
    if (listener !== undefined) this.#dnsAddress = `${listener.host}:${listener.port}`;
    await this.#agent.start();
  }

  /** Ends the worker; tasks keep running unless `stopTasks`. */
  async stop(stopTasks: boolean): Promise<void> {
    if (stopTasks) await this.#stopTasks();
    else await this.#agent.stop();
    await this.#close();
  }

  /** Stops and removes every task and network of this node. */
  async leave(): Promise<void> {
    await this.#stopTasks();
    try {
      const left = await this.#networks.removeAll(AbortSignal.timeout(LEAVE_TIMEOUT_MS));
      if (left.length > 0)
        this.#dependencies.log.warn('networks are still in use and stay', { networks: left });
    } catch (error) {
      this.#dependencies.log.warn('networks could not be removed', { error: errorMessage(error) });
    }
    await this.#close();
  }

  async #stopTasks(): Promise<void> {
    const left = await this.#agent.leave(AbortSignal.timeout(LEAVE_TIMEOUT_MS));
    if (left.length === 0) return;
    this.#dependencies.log.warn('tasks could not be stopped', { node: this.#identity.nodeId, tasks: left });
  }

  /** What the parts of this node could not do; managers and users see it in the node's description. */
  #warnings(): string[] {
    const failed = [
      ...this.#ingress.status().map(({ state, error }) => (state === 'failed' ? error : '')),
      ...this.#dns.status().map(({ state, error }) => (state === 'failed' ? error : '')),
      ...this.#networks.status().map(({ error }) => error),
    ];
    return failed.filter((error) => error !== '').sort((a, b) => (a < b ? -1 : 1));
  }

  #route(routing: RoutingState): void {
    this.#networks.update(routing);
    this.#dns.update(routing);
    this.#ingress.update(routing);
  }

  async #close(): Promise<void> {
    await this.#ingress.close();
    await this.#dns.close();
    await this.#networks.close();
    for (const runtime of this.#runtimes) await runtime.close();
  }
}
