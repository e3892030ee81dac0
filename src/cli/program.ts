/** The program: every command, grouped, and the help a newcomer reads first. */
import { helpGroups, SwarmdCommand, type Run } from './command.ts';
import {
  registerDaemon,
  registerInfo,
  registerInit,
  registerJoin,
  registerJoinToken,
  registerLeave,
} from './commands/cluster.ts';
import { registerServiceExplain, registerTask, registerWhatIf } from './commands/explain.ts';
import { registerNetwork } from './commands/network.ts';
import { registerNode } from './commands/node.ts';
import { registerQuickstart } from './commands/quickstart.ts';
import { registerFileObjects } from './commands/secret-config.ts';
import { registerServiceCreate } from './commands/service-create.ts';
import { registerServiceLogs } from './commands/service-logs.ts';
import {
  registerServiceRollback,
  registerServiceScale,
  registerServiceUpdate,
} from './commands/service-update.ts';
import {
  registerServiceInspect,
  registerServiceList,
  registerServicePs,
  registerServiceRemove,
} from './commands/service-view.ts';
import { registerLog, registerSnapshot } from './commands/snapshot.ts';
import { registerStack } from './commands/stack.ts';
import { withConnectionFlags } from './host.ts';

const FIRST_STEPS = `
First steps:
  1. swarmd quickstart                          a cluster of one and a sample stack, to look at
  2. swarmd init                                a real cluster: this machine is its first manager
     swarmd join --token TOKEN HOST:2377        on every other machine (init prints the command)
  3. swarmd stack deploy -c compose.yml mystack  run what a compose file describes
     swarmd service ls                          see it; swarmd service logs NAME shows its output

Each command explains itself: swarmd service create --help
`;

/** The command tree for one run. */
export function makeProgram(run: Run): SwarmdCommand {
  const { terminal } = run.outside;
  const program = new SwarmdCommand('swarmd')
    .description(
      'Runs services on a cluster of machines: scheduling, rolling updates, DNS and load balancing in one program.',
    )
    .version(`swarmd ${run.outside.version}`, '-v, --version', 'print the version')
    .enablePositionalOptions()
    .configureOutput({
      writeOut: (text) => terminal.stdout.write(text),
      // Help asked for by naming a group of commands alone is help, not an error.
      writeErr: (text) => terminal.stdout.write(text),
      // Refusals are printed once, by main.
      outputError: () => {},
      getOutHelpWidth: () => (terminal.isTty ? terminal.columns : 110),
      getErrHelpWidth: () => (terminal.isTty ? terminal.columns : 110),
      getOutHasColors: () => terminal.color,
      getErrHasColors: () => terminal.color,
    })
    .helpCommand('help [command]', 'explain a command')
    .addHelpText('after', FIRST_STEPS)
    .showFailures();
  withConnectionFlags(program);
  registerQuickstart(program, run);
  registerInit(program, run);
  registerJoin(program, run);
  registerDaemon(program, run);
  registerLeave(program, run);
  registerInfo(program, run);
  registerJoinToken(program, run);
  registerNode(program, run);
  registerService(program, run);
  registerTask(program, run);
  registerStack(program, run);
  registerNetwork(program, run);
  registerFileObjects(program, run, 'secret');
  registerFileObjects(program, run, 'config');
  registerWhatIf(program, run);
  registerSnapshot(program, run);
  registerLog(program, run);
  group(program);
  return program;
}

function registerService(program: SwarmdCommand, run: Run): void {
  const service = program.sub(
    'service',
    'services: create, ls, ps, inspect, scale, update, rollback, logs, explain, rm',
  );
  registerServiceCreate(service, run);
  registerServiceList(service, run);
  registerServicePs(service, run);
  registerServiceInspect(service, run);
  registerServiceScale(service, run);
  registerServiceUpdate(service, run);
  registerServiceRollback(service, run);
  registerServiceLogs(service, run);
  registerServiceExplain(service, run);
  registerServiceRemove(service, run);
}

const GROUPS: Readonly<Record<string, string>> = {
  quickstart: helpGroups.start,
  node: helpGroups.cluster,
  snapshot: helpGroups.cluster,
  log: helpGroups.cluster,
  service: helpGroups.work,
  task: helpGroups.work,
  whatif: helpGroups.cluster,
  stack: helpGroups.work,
  network: helpGroups.objects,
  secret: helpGroups.objects,
  config: helpGroups.objects,
};

function group(program: SwarmdCommand): void {
  for (const command of program.commands) {
    const heading = GROUPS[command.name()];
    if (heading !== undefined) command.helpGroup(heading);
  }
}
