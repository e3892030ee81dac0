/** `inspect --pretty`: objects as indented lines. Pure. */
import type { NodeView, ServiceView } from '../model/api.ts';
import type { UpdateConfig } from '../model/spec.ts';
import { bytesText, durationText } from './output.ts';
import { workOf } from './rows.ts';

type Lines = (readonly [label: string, value: string | number | undefined])[];

function render(lines: Lines): string {
  return lines
    .filter(([, value]) => value !== undefined && value !== '')
    .map(([label, value]) => `${label}${' '.repeat(Math.max(1, 20 - label.length))}${value}\n`)
    .join('');
}

function labelLines(labels: Readonly<Record<string, string>>): Lines {
  const entries = Object.entries(labels);
  return entries.length === 0
    ? []
    : [['Labels:', entries.map(([key, value]) => `${key}=${value}`).join(', ')]];
}

function updateLines(title: string, config: UpdateConfig): Lines {
  const parallelism = config.parallelism === 0 ? 'all at once' : `${config.parallelism} at a time`;
  const delay = config.delayMs === 0 ? '' : `, ${durationText(config.delayMs)} between`;
  return [
    [
      title,
      `${parallelism}${delay}, ${config.order}, monitor ${durationText(config.monitorMs)}, on failure ${config.failureAction} (ratio ${config.maxFailureRatio})`,
    ],
  ];
}

/** A service for people. */
export function prettyService(service: ServiceView): string {
  const { spec } = service;
  const { task, mode } = spec;
  const { container } = task;
  const { running, desired } = service.taskCounts;
  const limits = task.resources.limits;
  const reservations = task.resources.reservations;
  const amounts = (amount: typeof limits): string =>
    [
      amount?.nanoCpus === undefined ? '' : `${amount.nanoCpus / 1e9} CPU`,
      amount?.memoryBytes === undefined ? '' : bytesText(amount.memoryBytes),
      amount?.pids === undefined ? '' : `${amount.pids} processes`,
    ]
      .filter((part) => part !== '')
      .join(', ');
  return render([
    ['ID:', service.id],
    ['Name:', spec.name],
    ...labelLines(spec.labels),
    ['Mode:', mode.kind === 'replicated' ? `replicated, ${mode.replicas} replicas` : mode.kind],
    ['Tasks:', `${running} of ${desired} running`],
    [
      'Update:',
      service.updateStatus === undefined
        ? ''
        : `${service.updateStatus.state} ${service.updateStatus.message}`.trim(),
    ],
    ['Runtime:', task.runtime],
    ['Runs:', [workOf(task), ...(container.args ?? [])].join(' ')],
    ['Environment:', container.env.join(' ')],
    [
      'Mounts:',
      container.mounts
        .map((m) => `${m.type} ${m.source ?? ''}:${m.target}${m.readOnly ? ' (read only)' : ''}`)
        .join(', '),
    ],
    ['Limits:', amounts(limits)],
    ['Reserved:', amounts(reservations)],
    ['Placement:', task.placement.constraints.join(', ')],
    ['Restart:', `${task.restart.condition}, after ${durationText(task.restart.delayMs)}`],
    ...updateLines('Update config:', spec.update),
    ...updateLines('Rollback config:', spec.rollback),
    ['Endpoint mode:', spec.endpoint.mode],
    [
      'Ports:',
      service.endpoint.ports
        .map((p) => `${p.publishedPort}->${p.targetPort}/${p.protocol} (${p.publishMode})`)
        .join(', '),
    ],
    ['Created:', new Date(service.meta.createdAt).toISOString()],
  ]);
}

/** A node for people. */
export function prettyNode(node: NodeView): string {
  const { description, status, spec, managerStatus } = node;
  return render([
    ['ID:', node.id],
    ...labelLines(spec.labels),
    ['Hostname:', description.hostname],
    ['Joined:', new Date(node.meta.createdAt).toISOString()],
    ['State:', `${status.state} ${status.message}`.trim()],
    ['Availability:', spec.availability],
    ['Address:', status.address],
    ['Role:', spec.role],
    [
      'Manager:',
      managerStatus === undefined
        ? ''
        : `${managerStatus.leader ? 'leader' : managerStatus.reachable ? 'reachable' : 'unreachable'} at ${managerStatus.address}`,
    ],
    ['Platform:', `${description.platform.os}/${description.platform.architecture}`],
    ['CPUs:', description.resources.nanoCpus / 1e9],
    ['Memory:', bytesText(description.resources.memoryBytes)],
    ['Runtimes:', description.runtimes.join(', ')],
    ['Engine:', description.engineVersion],
    ['swarmd:', description.swarmdVersion],
  ]);
}
