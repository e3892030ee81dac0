/**
 * From a task to what the engine is asked to create. Pure: no engine, no clock.
 *
 * Invariants: the engine never restarts a task by itself (a task is one-shot); what belongs to swarmd is known by
 * its labels; files and further networks are added after the container was made and before it is started.
 */
import type Dockerode from 'dockerode';
import { SwarmdError } from '../base/errors.ts';
import { STACK_LABEL, type Task } from '../model/objects.ts';
import type { HealthCheck, Mount, ResourceRequirements } from '../model/spec.ts';
import { type ArchiveFile, configPath, parentOf, secretPath } from './docker-files.ts';
import type { TaskNetworking, TaskSetup } from './types.ts';

/** Labels by which swarmd finds its containers again. */
export const TASK_LABEL = 'swarmd.task';
export const CLUSTER_LABEL = 'swarmd.cluster';
export const NODE_LABEL = 'com.docker.swarm.node.id';

export interface ContainerIdentity {
  readonly nodeId: string;
  readonly clusterId: string;
}

type Attachment = TaskNetworking['attachments'][number];

/** What to do to make a task's container. */
export interface ContainerPlan {
  readonly name: string;
  readonly body: Dockerode.ContainerCreateOptions;
  /** Networks to connect after the first, which is in `body`. */
  readonly furtherNetworks: readonly {
    readonly network: string;
    readonly endpoint: Dockerode.EndpointSettings;
  }[];
  readonly files: readonly ArchiveFile[];
}

/** `service.slot.taskID`, or `service.nodeID.taskID` for a task of a global service. */
export function containerName(task: Task): string {
  const place = task.slot === 0 ? task.nodeId : String(task.slot);
  return `${task.serviceAnnotations.name}.${place}.${task.id}`;
}

/** Plans the container of a task. INVALID_ARGUMENT for what the engine cannot do. */
export function containerCreateOptions(
  task: Task,
  setup: TaskSetup,
  identity: ContainerIdentity,
): ContainerPlan {
  const { container } = task.spec;
  const [first, ...further] = setup.networking.attachments;
  const files = taskFiles(task, setup);
  const ports = portBindings(task, setup.networking.publishOnNode);
  const networkMode = first?.engineNetwork;
  const endpoint = first === undefined ? undefined : endpointSettings(first, further.length);
  const body: Dockerode.ContainerCreateOptions = {
    Image: container.image,
    Env: [...container.env, ...genericResourceEnv(task)],
    Labels: containerLabels(task, identity),
    StopTimeout: Math.ceil(container.stopGraceMs / 1_000),
    ExposedPorts: Object.fromEntries(Object.keys(ports).map((port) => [port, {}])),
    ...(container.command === undefined ? {} : { Entrypoint: [...container.command] }),
    ...(container.args === undefined ? {} : { Cmd: [...container.args] }),
    ...(container.hostname === undefined ? {} : { Hostname: container.hostname }),
    ...(container.user === undefined ? {} : { User: container.user }),
    ...(container.dir === undefined ? {} : { WorkingDir: container.dir }),
    ...(container.tty === undefined ? {} : { Tty: container.tty }),
    ...(container.openStdin === undefined ? {} : { OpenStdin: container.openStdin }),
    ...(container.stopSignal === undefined ? {} : { StopSignal: container.stopSignal }),
    ...(container.healthCheck === undefined ? {} : { Healthcheck: healthConfig(container.healthCheck) }),
    HostConfig: {
      ...hostConfig(task, setup, files),
      PortBindings: ports,
      ...(networkMode === undefined ? {} : { NetworkMode: networkMode }),
    },
    ...(first === undefined || endpoint === undefined
      ? {}
      : { NetworkingConfig: { EndpointsConfig: { [first.engineNetwork]: endpoint } } }),
  };
  return {
    name: containerName(task),
    body,
    furtherNetworks: further.map((attachment, i) => ({
      network: attachment.engineNetwork,
      endpoint: endpointSettings(attachment, further.length - 1 - i) ?? {},
    })),
    files,
  };
}

function containerLabels(task: Task, identity: ContainerIdentity): Record<string, string> {
  const stack = task.serviceAnnotations.labels[STACK_LABEL];
  const name = containerName(task);
  return {
    ...task.spec.container.labels,
    ...(stack === undefined ? {} : { [STACK_LABEL]: stack }),
    [NODE_LABEL]: identity.nodeId,
    'com.docker.swarm.service.id': task.serviceId,
    'com.docker.swarm.service.name': task.serviceAnnotations.name,
    'com.docker.swarm.task': '',
    'com.docker.swarm.task.id': task.id,
    'com.docker.swarm.task.name': name,
    [TASK_LABEL]: task.id,
    [CLUSTER_LABEL]: identity.clusterId,
  };
}

function genericResourceEnv(task: Task): string[] {
  return Object.entries(task.genericResources ?? {}).map(
    ([kind, count]) => `DOCKER_RESOURCE_${kind.toUpperCase().replace(/[^A-Z0-9]/g, '_')}=${count}`,
  );
}

const nanoseconds = (ms: number): number => Math.round(ms * 1e6);

function healthConfig(check: HealthCheck): Dockerode.HealthConfig {
  return {
    Test: [...check.test],
    ...(check.intervalMs === undefined ? {} : { Interval: nanoseconds(check.intervalMs) }),
    ...(check.timeoutMs === undefined ? {} : { Timeout: nanoseconds(check.timeoutMs) }),
    ...(check.startPeriodMs === undefined ? {} : { StartPeriod: nanoseconds(check.startPeriodMs) }),
    ...(check.retries === undefined ? {} : { Retries: check.retries }),
  } as Dockerode.HealthConfig;
}

function hostConfig(task: Task, setup: TaskSetup, files: readonly ArchiveFile[]): Dockerode.HostConfig {
  const { container, logDriver, resources } = task.spec;
  const dns = [...setup.networking.dnsServers, ...(container.dns?.nameservers ?? [])];
  const mounts = [
    ...container.mounts.map(mountSettings),
    ...(container.readOnly === true ? fileVolumes(files, container.mounts) : []),
  ];
  return {
    RestartPolicy: { Name: 'no' },
    Mounts: mounts,
    ...limits(resources),
    ...(dns.length === 0 ? {} : { Dns: dns }),
    ...(container.dns === undefined
      ? {}
      : { DnsSearch: [...container.dns.search], DnsOptions: [...container.dns.options] }),
    ...(container.hosts === undefined ? {} : { ExtraHosts: container.hosts.flatMap(extraHosts) }),
    ...(container.init === undefined ? {} : { Init: container.init }),
    ...(container.readOnly === undefined ? {} : { ReadonlyRootfs: container.readOnly }),
    ...(container.groups === undefined ? {} : { GroupAdd: [...container.groups] }),
    ...(container.capabilityAdd === undefined ? {} : { CapAdd: [...container.capabilityAdd] }),
    ...(container.capabilityDrop === undefined ? {} : { CapDrop: [...container.capabilityDrop] }),
    ...(container.sysctls === undefined ? {} : { Sysctls: { ...container.sysctls } }),
    ...(container.ulimits === undefined
      ? {}
      : {
          Ulimits: container.ulimits.map(({ name, soft, hard }) => ({ Name: name, Soft: soft, Hard: hard })),
        }),
    ...(logDriver === undefined
      ? {}
      : { LogConfig: { Type: logDriver.name, Config: { ...logDriver.options } } }),
  };
}

function limits({ limits: max, reservations }: ResourceRequirements): Dockerode.HostConfig {
  return {
    ...(max?.nanoCpus === undefined ? {} : { NanoCpus: max.nanoCpus }),
    ...(max?.memoryBytes === undefined ? {} : { Memory: max.memoryBytes }),
    ...(max?.pids === undefined ? {} : { PidsLimit: max.pids }),
    ...(reservations?.memoryBytes === undefined ? {} : { MemoryReservation: reservations.memoryBytes }),
  };
}

/** `IP host [alias...]` as `host:IP` entries. */
function extraHosts(line: string): string[] {
  const [address, ...names] = line.trim().split(/\s+/);
  return names.map((name) => `${name}:${address}`);
}

function mountSettings(mount: Mount): Dockerode.MountSettings {
  const { volume, tmpfs } = mount;
  const driver =
    volume?.driver === undefined
      ? {}
      : { DriverConfig: { Name: volume.driver, Options: { ...volume.driverOptions } } };
  return {
    Type: mount.type,
    Target: mount.target,
    Source: mount.source ?? '',
    ReadOnly: mount.readOnly,
    ...(mount.bindPropagation === undefined ? {} : { BindOptions: { Propagation: mount.bindPropagation } }),
    ...(volume === undefined
      ? {}
      : { VolumeOptions: { NoCopy: volume.noCopy ?? false, Labels: { ...volume.labels }, ...driver } }),
    ...(tmpfs === undefined
      ? {}
      : { TmpfsOptions: { SizeBytes: tmpfs.sizeBytes ?? 0, Mode: tmpfs.mode ?? 0o1777 } }),
  } as Dockerode.MountSettings;
}

/** A read-only root takes files only on volumes: an anonymous one for each folder that gets some. */
function fileVolumes(files: readonly ArchiveFile[], mounts: readonly Mount[]): Dockerode.MountSettings[] {
  const folders = new Set(files.map((file) => parentOf(file.path)));
  return [...folders].flatMap((folder) => {
    if (folder === '/') {
      throw new SwarmdError(
        'INVALID_ARGUMENT',
        'a config cannot be put into the root folder of a container with a read-only root; give it a target such as /etc/app/NAME',
      );
    }
    if (mounts.some((mount) => mount.target === folder)) return [];
    return [{ Type: 'volume', Target: folder, Source: '', ReadOnly: false }];
  });
}

/** Ports on the node: those in host mode, and all of them where the node has no ingress of its own. */
function portBindings(task: Task, publishOnNode: boolean): Record<string, { HostPort: string }[]> {
  const bindings: Record<string, { HostPort: string }[]> = {};
  for (const { protocol, targetPort, publishedPort, publishMode } of task.endpointPorts) {
    if (publishMode === 'ingress' && !publishOnNode) continue;
    const hostPort = publishMode === 'host' && publishedPort > 0 ? String(publishedPort) : '';
    const list = (bindings[`${targetPort}/${protocol}`] ??= []);
    if (!list.some((binding) => binding.HostPort === hostPort)) list.push({ HostPort: hostPort });
  }
  return bindings;
}

const builtinNetworks = ['host', 'none', 'bridge'];

/** `priority`: the highest has the default route (engines from 28 on; older ones go by the name's order). */
function endpointSettings(attachment: Attachment, priority: number): Dockerode.EndpointSettings | undefined {
  if (builtinNetworks.includes(attachment.engineNetwork)) return undefined;
  const settings: Dockerode.EndpointSettings & { GwPriority?: number } = {
    ...(attachment.address === '' ? {} : { IPAMConfig: { IPv4Address: attachment.address } }),
    ...(attachment.mac === undefined ? {} : { MacAddress: attachment.mac }),
    ...(attachment.aliases.length === 0 ? {} : { Aliases: [...attachment.aliases] }),
    ...(priority === 0 ? {} : { GwPriority: priority }),
  };
  return settings;
}

function taskFiles(task: Task, setup: TaskSetup): ArchiveFile[] {
  const { secrets, configs } = task.spec.container;
  const file = (
    path: string,
    reference: { uid: string; gid: string; mode: number },
    content: Uint8Array | undefined,
  ): ArchiveFile => ({
    path,
    uid: Number(reference.uid) || 0,
    gid: Number(reference.gid) || 0,
    mode: reference.mode,
    content: content ?? new Uint8Array(),
  });
  return [
    ...secrets.map(({ id, file: target }) => file(secretPath(target.name), target, setup.secrets.get(id))),
    ...configs.map(({ id, file: target }) => file(configPath(target.name), target, setup.configs.get(id))),
  ];
}
