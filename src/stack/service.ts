/** One service of a compose file as a service spec. Networks are names until resolved. */
import { defaultServiceSpec, defaultTaskSpec } from '../model/defaults.ts';
import type { NetworkId } from '../model/ids.ts';
import { STACK_LABEL } from '../model/objects.ts';
import type {
  EndpointSpec,
  NetworkAttachmentConfig,
  PortConfig,
  RuntimeKind,
  ServiceSpec,
  TaskSpec,
} from '../model/spec.ts';
import { composeError, didYouMean } from './compose-error.ts';
import type { Declared, LoadContext } from './load-context.ts';
import { isPort, parsePortShort, parseProtocol, samePublishedPort } from './ports.ts';
import {
  checkKeys,
  choice,
  compact,
  get,
  integer,
  isNull,
  mapping,
  optional,
  parsed,
  sequence,
  text,
  textList,
  textMap,
  warn,
  wrongKind,
} from './reader.ts';
import { readContainer, warnOfProcessLimits } from './service-container.ts';
import {
  deploySection,
  readEndpointMode,
  readMode,
  readPlacement,
  readRebalance,
  readResources,
  readRestartPolicy,
  readUpdateConfig,
} from './service-deploy.ts';
import { loggingKeys, portKeys, serviceKeys, serviceNetworkKeys } from './service-keys.ts';
import type { MappingNode, YamlNode } from './yaml-tree.ts';

/** Label with the image as the file gives it. */
export const STACK_IMAGE_LABEL = 'com.docker.stack.image';

/** The spec of the service `name`. */
export function readService(
  name: string,
  service: MappingNode,
  context: LoadContext,
  declared: Declared,
  defaultNetworkName: string,
): ServiceSpec {
  const path = `services.${name}`;
  checkKeys(service, path, serviceKeys, context.warnings);
  const runtime: RuntimeKind = optional(service, path, 'runtime', choice(['docker', 'process'])) ?? 'docker';
  if (runtime === 'process') warnOfProcessLimits(service, path, context);
  const deploy = deploySection(service, path, context);
  const image = runtime === 'docker' ? optional(service, path, 'image', text) : undefined;
  const mode = readEndpointMode(deploy, path);
  const networks =
    runtime === 'process'
      ? []
      : readServiceNetworks(name, service, path, context, declared, defaultNetworkName);
  const task: TaskSpec = {
    ...defaultTaskSpec,
    runtime,
    container: readContainer(service, path, runtime, context, declared),
    resources: readResources(service, deploy, path, context),
    restart: readRestartPolicy(service, deploy, path, context),
    placement: readPlacement(service, deploy, path, context),
    networks,
    ...compact({
      logDriver: optional(service, path, 'logging', (node, at) => readLogging(node, at, context)),
    }),
  };
  checkDependsOn(service, path);
  return {
    ...defaultServiceSpec,
    name: `${context.stack}_${name}`,
    labels: {
      ...(optional(deploy, `${path}.deploy`, 'labels', textMap) ?? {}),
      ...(image === undefined ? {} : { [STACK_IMAGE_LABEL]: image }),
      [STACK_LABEL]: context.stack,
    },
    task,
    mode: readMode(service, deploy, path),
    update: readUpdateConfig(deploy, path, 'update_config', context),
    rollback: readUpdateConfig(deploy, path, 'rollback_config', context),
    endpoint: { mode, ports: readPorts(service, path, mode, context) },
    ...compact({ rebalance: readRebalance(deploy, path, context) }),
  };
}

/** Start order has no meaning in a cluster: services wait for each other by retrying. The form is still checked. */
function checkDependsOn(service: MappingNode, path: string): void {
  const node = get(service, 'depends_on');
  if (node === undefined || node.kind === 'mapping') return;
  textList(node, `${path}.depends_on`);
}

function readServiceNetworks(
  name: string,
  service: MappingNode,
  path: string,
  context: LoadContext,
  declared: Declared,
  defaultNetworkName: string,
): NetworkAttachmentConfig[] {
  const node = get(service, 'networks');
  const wanted = new Map<string, YamlNode | null>();
  if (node?.kind === 'mapping') for (const [key, { value }] of node.entries) wanted.set(key, value);
  else if (node !== undefined) for (const key of textList(node, `${path}.networks`)) wanted.set(key, null);
  if (wanted.size === 0) return [{ target: defaultNetworkName as NetworkId, aliases: [name] }];
  const attachments = [...wanted].map(([key, value]) => {
    const network = declared.networks.get(key);
    const at = `${path}.networks.${key}`;
    if (network === undefined && key !== 'default') {
      const near = didYouMean(key, declared.networks.keys());
      const mark = (value ?? node ?? service).mark;
      throw composeError(
        mark,
        `${at}: the network "${key}" is not declared under top-level \`networks\`.${near}`,
      );
    }
    const target = network?.name ?? defaultNetworkName;
    const given = value === null || isNull(value) ? [] : readAliases(value, at, context);
    // The node's own networks have no names to give.
    const aliases = NODE_NETWORKS.has(target) ? given : [...new Set([...given, name])];
    return { target: target as NetworkId, aliases };
  });
  // In the order of names: moving a line in the file is then no change of the service.
  return attachments.sort((a, b) => (a.target < b.target ? -1 : 1));
}

/** Networks every engine has of its own. */
const NODE_NETWORKS: ReadonlySet<string> = new Set(['host', 'bridge', 'none', 'default']);

function readAliases(node: YamlNode, path: string, context: LoadContext): string[] {
  const options = mapping(node, path);
  checkKeys(options, path, serviceNetworkKeys, context.warnings);
  return optional(options, path, 'aliases', textList) ?? [];
}

function readLogging(
  node: YamlNode,
  path: string,
  context: LoadContext,
): { name: string; options: Record<string, string> } {
  const logging = mapping(node, path);
  checkKeys(logging, path, loggingKeys, context.warnings);
  return {
    name: optional(logging, path, 'driver', text) ?? '',
    options: optional(logging, path, 'options', textMap) ?? {},
  };
}

function readPorts(
  service: MappingNode,
  path: string,
  mode: EndpointSpec['mode'],
  context: LoadContext,
): PortConfig[] {
  const node = get(service, 'ports');
  if (node === undefined) return [];
  const result: PortConfig[] = [];
  sequence(node, `${path}.ports`).forEach((item, i) => {
    const at = `${path}.ports[${i}]`;
    for (const port of readPort(item, at, context)) {
      if (result.some((other) => samePort(other, port))) continue;
      const clash = result.find(
        (other) => samePublishedPort(other, port) && other.targetPort !== port.targetPort,
      );
      if (clash !== undefined) {
        throw composeError(
          item.mark,
          `${at}: port ${port.publishedPort}/${port.protocol} is published twice by this service`,
        );
      }
      if (mode === 'dnsrr' && port.publishMode === 'ingress') {
        throw composeError(
          item.mark,
          `${at}: \`endpoint_mode: dnsrr\` cannot publish in ingress mode; add \`mode: host\``,
        );
      }
      result.push(port);
    }
  });
  return result.sort((a, b) => a.publishedPort - b.publishedPort);
}

function samePort(a: PortConfig, b: PortConfig): boolean {
  return samePublishedPort(a, b) && a.targetPort === b.targetPort && a.publishMode === b.publishMode;
}

function readPort(node: YamlNode, path: string, context: LoadContext): readonly PortConfig[] {
  if (node.kind !== 'mapping') {
    const { ports, hostAddress } = parsed(parsePortShort(text(node, path)), node.mark, path);
    if (hostAddress !== '' && hostAddress !== '0.0.0.0' && hostAddress !== '::') {
      const message = `the address ${hostAddress} is ignored: a published port listens on every address of every node`;
      warn(context.warnings, node.mark, path, message);
    }
    return ports;
  }
  checkKeys(node, path, portKeys, context.warnings);
  const port = (key: 'target' | 'published'): number | undefined => {
    const value = optional(node, path, key, integer(key === 'published' ? 0 : 1));
    if (value !== undefined && value !== 0 && !isPort(value)) {
      throw composeError(node.mark, `${path}.${key} must be a port, 1 to 65535, but is ${value}`);
    }
    return value;
  };
  const target = port('target');
  if (target === undefined)
    throw composeError(node.mark, `${path} needs a \`target\`, the port inside the task`);
  const protocol = optional(node, path, 'protocol', (value, at) => {
    const read = parseProtocol(text(value, at));
    if (read === null) throw wrongKind(value, at, 'tcp, udp or sctp');
    return read;
  });
  return [
    {
      ...compact({ name: optional(node, path, 'name', text) }),
      protocol: protocol ?? 'tcp',
      targetPort: target,
      publishedPort: port('published') ?? 0,
      publishMode: optional(node, path, 'mode', choice(['ingress', 'host'])) ?? 'ingress',
    },
  ];
}
