/** `service explain`, `task explain` and `whatif`. */
import type { NodeExplanation, TaskExplanation } from '../../model/forecast.ts';
import { UsageError, fullName, type Run, type SwarmdCommand } from '../command.ts';
import type { Outside } from '../context.ts';
import { printForecast } from '../forecast-view.ts';
import { withApi, withConnectionFlags } from '../host.ts';
import { formatTable, printLine, shortId } from '../output.ts';
import { inspectService } from './service-view.ts';

function withFormat(command: SwarmdCommand): SwarmdCommand {
  return withConnectionFlags(command.oneOf('--format <format>', 'table or json', ['table', 'json']));
}

/** `service explain`. */
export function registerServiceExplain(parent: SwarmdCommand, run: Run): void {
  const command = parent
    .sub('explain', 'why the tasks of a service run where they do, and which nodes could take another')
    .argument('<service>', 'name or id');
  withFormat(command).run(run, ([ref = ''], self) => {
    const { outside } = run;
    return withApi(self, outside, async (api) => {
      const { id } = await inspectService(outside, api, ref);
      const found = await api.call('service.explain', { ref: id }, { signal: outside.interrupt });
      if (isJson(self)) printLine(outside, JSON.stringify(found));
      else printExplanation(outside, found.tasks, found.nodes, 'The next task');
      return 0;
    });
  });
}

/** The `task` commands. */
export function registerTask(program: SwarmdCommand, run: Run): void {
  const task = program.sub('task', 'single tasks: explain');
  const command = task
    .sub('explain', 'why a task runs where it does, or does not run')
    .argument('<task>', 'id, or name such as web.1');
  withFormat(command).run(run, ([ref = ''], self) => {
    const { outside } = run;
    return withApi(self, outside, async (api) => {
      const found = await api.call('task.explain', { ref }, { signal: outside.interrupt });
      if (isJson(self)) printLine(outside, JSON.stringify(found));
      else printExplanation(outside, [found.task], found.nodes, `Task ${found.task.name}, placed now,`);
      return 0;
    });
  });
}

/** `whatif`. */
export function registerWhatIf(program: SwarmdCommand, run: Run): void {
  const command = program
    .sub('whatif', 'what would happen if nodes were lost or drained; nothing is changed')
    .option('--lose <node...>', 'nodes that would go down')
    .option('--drain <node...>', 'nodes that would be drained')
    .value('--format <format>', 'table, json, or a template such as "{{.Task}} {{.To}}"');
  withConnectionFlags(command).run(run, (args, self) => {
    const { outside } = run;
    const {
      lose = [],
      drain = [],
      format,
    } = self.opts<{
      lose?: string[];
      drain?: string[];
      format?: string;
    }>();
    if (lose.length + drain.length === 0 || args.length > 0) {
      throw new UsageError('name nodes with --lose or --drain', fullName(self), 1);
    }
    return withApi(self, outside, async (api) => {
      const found = await api.call('node.forecast', { lose, drain }, { signal: outside.interrupt });
      printForecast(outside, found, format);
      return 0;
    });
  });
}

function isJson(command: SwarmdCommand): boolean {
  return command.opts<{ format?: string }>().format === 'json';
}

function printExplanation(
  outside: Outside,
  tasks: readonly TaskExplanation[],
  nodes: readonly NodeExplanation[],
  subject: string,
): void {
  const { stdout } = outside.terminal;
  if (tasks.length === 0) printLine(outside, 'It has no tasks.');
  else {
    stdout.write(
      formatTable(
        ['ID', 'TASK', 'NODE', 'STATE', 'REASON'],
        tasks.map((task) => [shortId(task.taskId), task.name, task.hostname, task.state, task.reason]),
      ),
    );
  }
  for (const help of new Set(tasks.flatMap((task) => task.help))) printLine(outside, `  help: ${help}`);
  const able = nodes.filter((node) => node.rank !== null).length;
  printLine(outside, `\n${subject} could run on ${able} of ${nodes.length} nodes, in this order:`);
  stdout.write(
    formatTable(
      ['ORDER', 'NODE', 'TASKS OF SERVICE', 'TASKS', 'FAILURES', 'PREFERENCES', 'VERDICT'],
      nodes.map((node) => [
        node.rank === null ? '-' : String(node.rank),
        node.hostname,
        String(node.serviceTasks),
        String(node.allTasks),
        String(node.failures),
        preferencesText(node),
        verdictText(node),
      ]),
    ),
  );
}

/** `node.labels.zone=a (2)`: the branch and the tasks of the service in it. */
function preferencesText({ branches }: NodeExplanation): string {
  return branches
    .map(({ key, value, serviceTasks }) => `${key}=${value === '' ? '(none)' : value} (${serviceTasks})`)
    .join(', ');
}

function verdictText({ refusals, avoided }: NodeExplanation): string {
  if (refusals.length > 0) return refusals.map(({ filter, reason }) => `${filter}: ${reason}`).join('; ');
  return avoided ? 'fits, used last: too many failures' : 'fits';
}
