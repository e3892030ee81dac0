/**
 * Requests that docker's own client sends for a stack, as swarmd's specs, so that the two can be compared.
 *
 * Members that docker leaves out get swarmd's defaults; members that swarmd has no place for are dropped.
 */
import {
  defaultContainerSpec,
  defaultEndpointSpec,
  defaultPlacement,
  defaultRestartPolicy,
  defaultServiceSpec,
  defaultTaskSpec,
  defaultUpdateConfig,
} from '../../src/model/defaults.ts';
import type {
  ContainerSpec,
  Mount,
  NetworkSpec,
  ResourceAmount,
  ServiceMode,
  ServiceSpec,
  UpdateConfig,
} from '../../src/model/spec.ts';
import { compact } from '../../src/stack/reader.ts';

/** Parsed JSON of a request, read with unchecked members: the vectors are known to be well formed. */
// oxlint-disable-next-line typescript/no-explicit-any
export type Json = any;

const ms = (ns: number | undefined): number | undefined => (ns === undefined ? undefined : ns / 1e6);

/** `nginx` as `nginx:latest`, `docker.io/library/nginx` as `nginx:latest`. */
export function completeImage(image: string): string {
  const familiar = image.replace(/^(index\.)?docker\.io\//, '').replace(/^library\//, '');
  const name = familiar.split('@')[0] ?? '';
  const tagged = name.slice(name.lastIndexOf('/') + 1).includes(':') || familiar.includes('@');
  return tagged ? familiar : `${familiar}:latest`;
}

function labels(map: Json): Record<string, string> {
  return { ...(map ?? {}) };
}

function amount(resources: Json): ResourceAmount | undefined {
  if (resources === undefined || resources === null) return undefined;
  const generic = (resources.GenericResources ?? []).map((entry: Json) => [
    entry.DiscreteResourceSpec.Kind,
    entry.DiscreteResourceSpec.Value,
  ]);
  const value = compact({
    nanoCpus: resources.NanoCPUs,
    memoryBytes: resources.MemoryBytes,
    pids: resources.Pids,
    generic: generic.length === 0 ? undefined : Object.fromEntries(generic),
  });
  return Object.keys(value).length === 0 ? undefined : value;
}

function mount(body: Json): Mount {
  const { BindOptions: bind, VolumeOptions: volume, TmpfsOptions: tmpfs } = body;
  const volumePart = compact({
    noCopy: volume?.NoCopy,
    labels: volume?.Labels,
    driver: volume?.DriverConfig?.Name,
    driverOptions: volume?.DriverConfig?.Options,
  });
  return compact({
    type: body.Type,
    source: body.Source,
    target: body.Target,
    readOnly: body.ReadOnly ?? false,
    bindPropagation: bind?.Propagation,
    volume: Object.keys(volumePart).length === 0 ? undefined : volumePart,
    tmpfs: tmpfs === undefined ? undefined : compact({ sizeBytes: tmpfs.SizeBytes, mode: tmpfs.Mode }),
  }) as Mount;
}

function references(list: Json, kind: 'Secret' | 'Config'): Json[] {
  return (list ?? []).map((use: Json) => ({
    id: '',
    name: use[`${kind}Name`],
    file: { name: use.File.Name, uid: use.File.UID, gid: use.File.GID, mode: use.File.Mode },
  }));
}

function container(body: Json): ContainerSpec {
  const health = body.Healthcheck;
  return {
    ...defaultContainerSpec,
    image: completeImage(body.Image),
    env: body.Env ?? [],
    labels: labels(body.Labels),
    mounts: (body.Mounts ?? []).map(mount),
    secrets: references(body.Secrets, 'Secret'),
    configs: references(body.Configs, 'Config'),
    ...compact({
      command: body.Command,
      args: body.Args,
      hostname: body.Hostname,
      user: body.User,
      groups: body.Groups,
      dir: body.Dir,
      tty: body.TTY,
      openStdin: body.OpenStdin,
      readOnly: body.ReadOnly,
      init: body.Init,
      stopSignal: body.StopSignal,
      stopGraceMs: ms(body.StopGracePeriod),
      hosts: body.Hosts,
      sysctls: body.Sysctls,
      capabilityAdd: body.CapabilityAdd,
      capabilityDrop: body.CapabilityDrop,
      healthCheck:
        health === undefined
          ? undefined
          : {
              test: health.Test ?? [],
              ...compact({
                intervalMs: ms(health.Interval),
                timeoutMs: ms(health.Timeout),
                startPeriodMs: ms(health.StartPeriod),
                retries: health.Retries,
              }),
            },
      dns:
        body.DNSConfig === undefined
          ? undefined
          : {
              nameservers: body.DNSConfig.Nameservers ?? [],
              search: body.DNSConfig.Search ?? [],
              options: body.DNSConfig.Options ?? [],
            },
      ulimits: body.Ulimits?.map((limit: Json) => ({ name: limit.Name, soft: limit.Soft, hard: limit.Hard })),
    }),
  };
}

function updateConfig(body: Json): UpdateConfig {
  if (body === undefined) return defaultUpdateConfig;
  return {
    ...defaultUpdateConfig,
    ...compact({
      parallelism: body.Parallelism,
      delayMs: ms(body.Delay),
      failureAction: body.FailureAction === '' ? undefined : body.FailureAction,
      monitorMs: ms(body.Monitor),
      maxFailureRatio: body.MaxFailureRatio,
      order: body.Order === '' ? undefined : body.Order,
    }),
  };
}

function mode(body: Json): ServiceMode {
  if (body.Global !== undefined) return { kind: 'global' };
  if (body.GlobalJob !== undefined) return { kind: 'global-job' };
  const job = body.ReplicatedJob;
  if (job !== undefined) {
    return {
      kind: 'replicated-job',
      maxConcurrent: job.MaxConcurrent ?? 1,
      totalCompletions: job.TotalCompletions ?? 1,
    };
  }
  return { kind: 'replicated', replicas: body.Replicated?.Replicas ?? 1 };
}

/** The spec of a `POST /services/create` body. */
export function serviceOfRequest(body: Json): ServiceSpec {
  const task = body.TaskTemplate;
  const restart = task.RestartPolicy;
  const limits = amount(task.Resources?.Limits);
  const reservations = amount(task.Resources?.Reservations);
  const driver = task.LogDriver;
  return {
    ...defaultServiceSpec,
    name: body.Name,
    labels: labels(body.Labels),
    mode: mode(body.Mode ?? {}),
    update: updateConfig(body.UpdateConfig),
    rollback: updateConfig(body.RollbackConfig),
    endpoint: {
      ...defaultEndpointSpec,
      mode: body.EndpointSpec?.Mode ?? 'vip',
      ports: (body.EndpointSpec?.Ports ?? []).map((port: Json) =>
        compact({
          name: port.Name,
          protocol: port.Protocol ?? 'tcp',
          targetPort: port.TargetPort,
          publishedPort: port.PublishedPort ?? 0,
          publishMode: port.PublishMode ?? 'ingress',
        }),
      ),
    },
    task: {
      ...defaultTaskSpec,
      container: container(task.ContainerSpec),
      resources: compact({ limits, reservations }),
      restart: {
        ...defaultRestartPolicy,
        ...compact({
          condition: restart?.Condition === '' ? undefined : restart?.Condition,
          delayMs: ms(restart?.Delay),
          maxAttempts: restart?.MaxAttempts,
          windowMs: ms(restart?.Window),
        }),
      },
      placement: {
        ...defaultPlacement,
        constraints: task.Placement?.Constraints ?? [],
        preferences: (task.Placement?.Preferences ?? []).map((preference: Json) => ({
          spread: preference.Spread.SpreadDescriptor,
        })),
        maxReplicasPerNode: task.Placement?.MaxReplicas ?? 0,
      },
      forceUpdate: task.ForceUpdate ?? 0,
      networks: (task.Networks ?? []).map((network: Json) => ({
        target: network.Target.replace(/^id-network-/, ''),
        aliases: network.Aliases ?? [],
      })),
      ...(driver === undefined
        ? {}
        : { logDriver: { name: driver.Name ?? '', options: driver.Options ?? {} } }),
    },
  };
}

/** The spec of a `POST /networks/create` body. */
export function networkOfRequest(body: Json): NetworkSpec {
  return compact({
    name: body.Name,
    labels: labels(body.Labels),
    driver: body.Driver === '' || body.Driver === 'default' ? 'overlay' : body.Driver,
    internal: body.Internal ?? false,
    attachable: body.Attachable ?? false,
    ingress: false,
    driverOptions: body.Options ?? {},
    subnet: body.IPAM?.Config?.[0]?.Subnet,
  }) as NetworkSpec;
}
