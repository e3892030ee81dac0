/** `init`, `join`, `daemon`, `leave`, `info` and `join-token`: making, entering and leaving a cluster. */
import { SwarmdError } from '../../base/errors.ts';
import type { InfoView } from '../../model/api.ts';
import { UsageError, fullName, helpGroups, type Run, type SwarmdCommand } from '../command.ts';
import type { ApiConnection, Outside } from '../context.ts';
import { CLUSTER_PORT, parseAddress, withClusterFlags, withDaemonFlags } from '../daemon-flags.ts';
import { runDaemon } from '../daemon-run.ts';
import { withApi, withConnectionFlags } from '../host.ts';
import { printInspect, printLine } from '../output.ts';

export function registerInit(program: SwarmdCommand, run: Run): void {
  const { outside } = run;
  const command = program
    .sub('init', 'make a new cluster with this machine as its first manager')
    .helpGroup(helpGroups.cluster);
  withClusterFlags(withDaemonFlags(command as SwarmdCommand)).run(run, (_args, self) => {
    const isForced = self.opts<{ forceNewCluster?: boolean }>().forceNewCluster === true;
    const mode = { kind: isForced ? 'force-new-cluster' : 'init' } as const;
    if (isForced) refuseClusterSettings(self);
    return runDaemon(outside, self, mode, async (api, node) => {
      printLine(
        outside,
        isForced
          ? `Cluster forced: this machine (${node.nodeId}) is its only manager now, with everything it knew.\nThe managers that were lost are listed as workers that are down; should one return, let it leave and join again.\n`
          : `Cluster made: this machine (${node.nodeId}) is its first manager.\n`,
      );
      await printJoinCommand(outside, api, 'worker', node.advertised);
      printLine(outside, '');
      printLine(outside, `To add a manager, run \`swarmd join-token manager\` and follow what it says.\n`);
    });
  });
}

/** A cluster that is forced keeps its settings: those of a new one would be lost without a word. */
function refuseClusterSettings(command: SwarmdCommand): void {
  const settings = ['default-addr-pool', 'default-addr-pool-mask-length', 'task-history-limit'];
  for (const name of [...settings, 'dispatcher-heartbeat']) {
    const option = command.options.find((one) => one.name() === name);
    if (option === undefined || command.getOptionValueSource(option.attributeName()) !== 'cli') continue;
    throw new UsageError(
      `--${name} sets up a new cluster; one that is forced keeps its settings`,
      fullName(command),
    );
  }
}

export function registerJoin(program: SwarmdCommand, run: Run): void {
  const { outside } = run;
  const command = program
    .sub('join', 'enter a cluster; the token says whether as manager or worker')
    .argument('<host:port>', 'address of a manager')
    .value('--token <token>', 'token from `swarmd join-token`')
    .helpGroup(helpGroups.cluster);
  withDaemonFlags(command as SwarmdCommand).run(run, (args, self) => {
    const { token } = self.opts<{ token?: string }>();
    if (token === undefined)
      throw new UsageError('give the token of the cluster with --token', fullName(self), 1);
    const remote = parseAddress(self, 'join', args[0] ?? '', CLUSTER_PORT);
    return runDaemon(outside, self, { kind: 'join', token, remote }, async (api) => {
      const info = await api.call('info', {}, { signal: outside.interrupt });
      printLine(outside, `This node joined the cluster as a ${info.role} (${info.nodeId}).`);
    });
  });
}

export function registerDaemon(program: SwarmdCommand, run: Run): void {
  const { outside } = run;
  const command = program
    .sub('daemon', 'run this node again from its data folder')
    .helpGroup(helpGroups.cluster);
  withDaemonFlags(command as SwarmdCommand).run(run, (_args, self) =>
    runDaemon(outside, self, { kind: 'resume' }, async (_api, node) => {
      printLine(outside, `Node ${node.nodeId} runs again at ${node.advertised}.`);
    }),
  );
}

export function registerLeave(program: SwarmdCommand, run: Run): void {
  const { outside } = run;
  const command = program
    .sub('leave', 'leave the cluster and stop the daemon')
    .flag('-f, --force', 'also as a manager, and also as the last one')
    .helpGroup(helpGroups.cluster);
  withConnectionFlags(command as SwarmdCommand).run(run, (_args, self) =>
    withApi(self, outside, async (api) => {
      const force = self.opts<{ force?: boolean }>().force === true;
      await api.call('node.leave', { force }, { signal: outside.interrupt });
      printLine(outside, 'This node left the cluster.');
      return 0;
    }),
  );
}

export function registerInfo(program: SwarmdCommand, run: Run): void {
  const { outside } = run;
  const command = program
    .sub('info', 'what this daemon is and sees')
    .value('-f, --format <format>', 'json or a template such as "{{.NodeId}}"')
    .helpGroup(helpGroups.cluster);
  withConnectionFlags(command as SwarmdCommand).run(run, (_args, self) =>
    withApi(self, outside, async (api) => {
      const info = await api.call('info', {}, { signal: outside.interrupt });
      const { format } = self.opts<{ format?: string }>();
      if (format === undefined) outside.terminal.stdout.write(infoText(info));
      else printInspect(outside, [info], format);
      return 0;
    }),
  );
}

function infoText(info: InfoView): string {
  const raft = info.raft;
  const leader = raft?.leaderNodeId === null || raft === undefined ? 'none known' : raft.leaderNodeId;
  const lines: (readonly [string, string])[] = [
    ['Node:', info.nodeId],
    ['Role:', info.role],
    ['Cluster:', info.clusterId],
    ['Version:', info.version],
    ['Data folder:', info.dataDir],
    ['Address:', info.advertiseAddress],
    ['DNS:', info.dnsAddress],
    ['Managers:', info.managers.map((manager) => `${manager.nodeId} at ${manager.address}`).join(', ')],
  ];
  if (raft !== undefined) {
    lines.push(
      ['Leader:', leader],
      [
        'Consensus:',
        `${raft.role}, term ${raft.term}, applied ${raft.appliedIndex} of ${raft.commitIndex}, ${raft.members} members`,
      ],
    );
  }
  const { connections, violations, frames } = info.refused;
  if (connections + violations + frames > 0)
    lines.push([
      'Refused:',
      `${connections} connections, ${violations} for breaking the protocol, ${frames} frames`,
    ]);
  return lines.map(([label, value]) => `${label.padEnd(13)} ${value === '' ? '-' : value}\n`).join('');
}

export function registerJoinToken(program: SwarmdCommand, run: Run): void {
  const { outside } = run;
  const command = program
    .sub('join-token', 'show the command that adds a worker or manager')
    .argument('<worker|manager>', 'what to add')
    .flag('--rotate', 'make a new token; the old one no longer works')
    .flag('-q, --quiet', 'the token only')
    .helpGroup(helpGroups.cluster);
  withConnectionFlags(command as SwarmdCommand).run(run, (args, self) => {
    const [role] = args;
    if (role !== 'worker' && role !== 'manager') {
      throw new UsageError(`"${role ?? ''}" is neither worker nor manager`, fullName(self), 1);
    }
    const { rotate, quiet } = self.opts<{ rotate?: boolean; quiet?: boolean }>();
    return withApi(self, outside, async (api) => {
      const options = { signal: outside.interrupt };
      const tokens = await api.call('cluster.tokens', { rotate: rotate === true ? role : null }, options);
      if (quiet === true) {
        printLine(outside, tokens[role]);
        return 0;
      }
      if (rotate === true)
        printLine(outside, `The ${role} token was changed; the old one no longer works.\n`);
      const info = await api.call('info', {}, options);
      await printJoinCommand(outside, api, role, info.advertiseAddress);
      return 0;
    });
  });
}

async function printJoinCommand(
  outside: Outside,
  api: ApiConnection,
  role: 'worker' | 'manager',
  address: string,
): Promise<void> {
  const tokens = await tokensOf(outside, api);
  printLine(outside, `To add a ${role} to this cluster, run on the other machine:\n`);
  printLine(outside, `    swarmd join --token ${tokens[role]} ${address}`);
}

/** The tokens, once the new manager leads. */
async function tokensOf(outside: Outside, api: ApiConnection): Promise<{ worker: string; manager: string }> {
  try {
    return await api.call('cluster.tokens', { rotate: null }, { signal: outside.interrupt });
  } catch (error) {
    if (!(error instanceof SwarmdError) || error.code !== 'NO_LEADER') throw error;
    throw new SwarmdError('NO_LEADER', `the join tokens cannot be read yet: ${error.message}`, {
      cause: error,
    });
  }
}
