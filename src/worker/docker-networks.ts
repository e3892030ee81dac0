/**
 * The container engine's networks as src/network needs them.
 *
 * Owns nothing: every call is one request to the engine. Invariant: only bridge networks with swarmd's label are
 * listed, so that nothing else can be removed.
 */
import Docker from 'dockerode';
import { errorMessage, SwarmdError, systemErrorCode } from '../base/errors.ts';
import type { EngineNetwork, EngineNetworks, EngineNetworkSpec } from '../network/engine-networks.ts';

/** Labels on every engine network swarmd makes: the cluster's id of the network, and the node that owns it. */
const NETWORK_LABEL = 'swarmd.network';
const NODE_LABEL = 'swarmd.node';
const BRIDGE_OPTION = 'com.docker.network.bridge.name';
const MTU_OPTION = 'com.docker.network.driver.mtu';
/** Longest wait for the engine to answer one request. */
const REQUEST_TIMEOUT_MS = 30_000;

/** The networks of the engine that `options` lead to (`{ socketPath }` or `{ host, port }`). */
export function dockerEngineNetworks(options: Docker.DockerOptions): EngineNetworks {
  const docker = new Docker({ timeout: REQUEST_TIMEOUT_MS, ...options });
  return {
    async create(spec, signal) {
      try {
        await docker.createNetwork({ ...creation(spec), abortSignal: signal });
      } catch (error) {
        throw engineError(
          `the engine network ${spec.name} (${spec.subnet}) could not be made`,
          error,
          signal,
        );
      }
    },
    async list(signal) {
      try {
        const found = await docker.listNetworks({
          filters: { label: [NETWORK_LABEL] },
          abortSignal: signal,
        } as Docker.NetworkListOptions);
        return found.flatMap(parseNetwork);
      } catch (error) {
        throw engineError('the networks of the engine could not be listed', error, signal);
      }
    },
    async remove(engineId, signal) {
      try {
        await docker.getNetwork(engineId).remove({ abortSignal: signal });
        return 'removed';
      } catch (error) {
        const status = statusOf(error);
        if (status === 404) return 'removed';
        if (status === 403 || status === 409) return 'in-use';
        throw engineError(`the engine network ${engineId} could not be removed`, error, signal);
      }
    },
  };
}

function creation(spec: EngineNetworkSpec): Docker.NetworkCreateOptions {
  return {
    Name: spec.name,
    Driver: 'bridge',
    CheckDuplicate: true,
    Internal: spec.internal,
    Attachable: false,
    EnableIPv6: false,
    IPAM: { Driver: 'default', Config: [{ Subnet: spec.subnet, Gateway: spec.gateway }] },
    Options: { [BRIDGE_OPTION]: spec.bridge, [MTU_OPTION]: String(spec.mtu) },
    Labels: { [NETWORK_LABEL]: spec.networkId, [NODE_LABEL]: spec.nodeId },
  };
}

function parseNetwork(info: Docker.NetworkInspectInfo): EngineNetwork[] {
  const config = info.IPAM?.Config?.[0];
  const networkId = info.Labels?.[NETWORK_LABEL];
  if (info.Driver !== 'bridge' || networkId === undefined) return [];
  return [
    {
      engineId: info.Id,
      name: info.Name,
      networkId,
      nodeId: info.Labels?.[NODE_LABEL] ?? '',
      bridge: info.Options?.[BRIDGE_OPTION] ?? '',
      subnet: config?.Subnet ?? '',
      gateway: config?.Gateway ?? '',
      mtu: Number(info.Options?.[MTU_OPTION] ?? 0),
      internal: info.Internal,
    },
  ];
}

function statusOf(error: unknown): number | undefined {
  if (typeof error === 'object' && error !== null && 'statusCode' in error) {
    return typeof error.statusCode === 'number' ? error.statusCode : undefined;
  }
  return undefined;
}

function engineError(what: string, cause: unknown, signal: AbortSignal): SwarmdError {
  if (signal.aborted) return new SwarmdError('CANCELLED', `${what}: cancelled`, { cause });
  const status = statusOf(cause);
  if (status === undefined) {
    const reason = systemErrorCode(cause) ?? errorMessage(cause);
    return new SwarmdError('UNAVAILABLE', `${what}: the engine does not answer (${reason})`, { cause });
  }
  return new SwarmdError('RUNTIME', `${what}: ${errorMessage(cause)}`, { cause, details: { status } });
}
