/**
 * The filters a node must pass to take a task, each able to say in words why nodes were left out.
 *
 * Invariants: filters are tried in the order of {@link filters}, and a node counts for the first one it fails;
 * `prepare` returns null when the filter has nothing to ask of this task.
 */
import { constraintsHold, parseConstraints } from '../../model/constraint.ts';
import type { Task } from '../../model/objects.ts';
import { platformMatches } from '../../model/platform.ts';
import { claimFits, isEmptyClaim, resourceClaim } from '../../model/resource-claims.ts';
import { hostPortKeys, type NodeInfo } from './node-info.ts';

/** Whether one node passes, for the task the check was prepared for. */
export type NodeCheck = (info: NodeInfo) => boolean;

/** One reason a node cannot take a task. */
export interface Filter {
  readonly name: string;
  prepare(task: Task): NodeCheck | null;
  /** `count` is the number of nodes left out, 1 or more. */
  explain(count: number, task: Task): string;
}

function onNodes(count: number): string {
  return count === 1 ? 'on 1 node' : `on ${count} nodes`;
}

const readyFilter: Filter = {
  name: 'ready',
  prepare: () => (info) => info.takesTasks,
  explain: (count) => `${count === 1 ? '1 node' : `${count} nodes`} not available for new tasks`,
};

const runtimeFilter: Filter = {
  name: 'runtime',
  prepare: (task) => (info) => info.node.description.runtimes.includes(task.spec.runtime),
  explain: (count, task) => `runtime ${task.spec.runtime} is not available ${onNodes(count)}`,
};

const resourceFilter: Filter = {
  name: 'resources',
  prepare(task) {
    const claim = resourceClaim(task);
    return isEmptyClaim(claim) ? null : (info) => claimFits(info.available, claim);
  },
  explain: (count) => `insufficient resources ${onNodes(count)}`,
};

/** Plugin names with and without the `:latest` tag are one plugin. */
function plainPluginName(name: string): string {
  return name.endsWith(':latest') ? name.slice(0, -':latest'.length) : name;
}

function offersPlugin(info: NodeInfo, type: string, name: string): boolean {
  return info.node.description.plugins.some(
    (plugin) => plugin.type === type && plainPluginName(plugin.name) === plainPluginName(name),
  );
}

const pluginFilter: Filter = {
  name: 'plugins',
  prepare(task) {
    const volumeDrivers = task.spec.container.mounts.flatMap((mount) => {
      const driver = mount.type === 'volume' ? (mount.volume?.driver ?? '') : '';
      return driver === '' || driver === 'local' ? [] : [driver];
    });
    const logDriver = task.spec.logDriver?.name ?? '';
    const needsLog = logDriver !== '' && logDriver !== 'none';
    if (volumeDrivers.length === 0 && !needsLog) return null;
    return (info) => {
      // An engine that lists no plugins at all says nothing about them; so does one without log plugins.
      const { plugins } = info.node.description;
      if (plugins.length === 0) return true;
      if (!volumeDrivers.every((driver) => offersPlugin(info, 'Volume', driver))) return false;
      if (!needsLog || !plugins.some((plugin) => plugin.type === 'Log')) return true;
      return offersPlugin(info, 'Log', logDriver);
    };
  },
  explain: (count) => `missing plugin ${onNodes(count)}`,
};

const constraintFilter: Filter = {
  name: 'constraints',
  prepare(task) {
    if (task.spec.placement.constraints.length === 0) return null;
    const parsed = parseConstraints(task.spec.placement.constraints);
    // Specs are validated when written; one that cannot be read matches nothing rather than everything.
    if (!parsed.ok) return () => false;
    return (info) => constraintsHold(parsed.value, info.node);
  },
  explain: (count) => `scheduling constraints not satisfied ${onNodes(count)}`,
};

const platformFilter: Filter = {
  name: 'platform',
  prepare(task) {
    const { platforms } = task.spec.placement;
    if (platforms.length === 0) return null;
    return (info) => platforms.some((wanted) => platformMatches(wanted, info.node.description.platform));
  },
  explain: (count) => `unsupported platform ${onNodes(count)}`,
};

const hostPortFilter: Filter = {
  name: 'host-port',
  prepare(task) {
    const keys = hostPortKeys(task);
    return keys.length === 0 ? null : (info) => keys.every((key) => !info.hostPorts.has(key));
  },
  explain: (count) => `host-mode port already in use ${onNodes(count)}`,
};

const maxReplicasFilter: Filter = {
  name: 'max-replicas',
  prepare(task) {
    const limit = task.spec.placement.maxReplicasPerNode;
    return limit === 0 ? null : (info) => (info.activeByService.get(task.serviceId) ?? 0) < limit;
  },
  explain: () => 'max replicas per node limit exceed',
};

/** Every filter, in the order nodes are checked. */
export const filters: readonly Filter[] = [
  readyFilter,
  runtimeFilter,
  resourceFilter,
  pluginFilter,
  constraintFilter,
  platformFilter,
  hostPortFilter,
  maxReplicasFilter,
];

/** The filters that matter to one task, prepared once and asked for many nodes. */
export interface Pipeline {
  accepts(info: NodeInfo): boolean;
  /** Why none of the nodes takes the task: `no suitable node (...)`, most frequent reason first. */
  explain(nodes: Iterable<NodeInfo>): string;
}

/** Prepares the filters for a task (or for a group of tasks of the same spec). */
export function preparePipeline(task: Task): Pipeline {
  const active = filters.flatMap((filter) => {
    const check = filter.prepare(task);
    return check === null ? [] : [{ filter, check }];
  });
  const checks = active.map((entry) => entry.check);
  return {
    accepts: (info) => {
      for (const check of checks) if (!check(info)) return false;
      return true;
    },
    explain: (nodes) => {
      const counts = active.map(() => 0);
      for (const info of nodes) {
        const failed = checks.findIndex((check) => !check(info));
        if (failed >= 0) counts[failed] = (counts[failed] ?? 0) + 1;
      }
      const reasons = active
        .map(({ filter }, index) => ({ filter, count: counts[index] ?? 0 }))
        .filter(({ count }) => count > 0)
        .toSorted((a, b) => b.count - a.count)
        .map(({ filter, count }) => filter.explain(count, task));
      return reasons.length === 0 ? 'no suitable node' : `no suitable node (${reasons.join('; ')})`;
    },
  };
}
