/** The flags of `service create` and `service update`, and those of docker's that are not supported yet. */
import type { SwarmdCommand } from './command.ts';

type Mode = 'create' | 'update';

/** Adds the flags both commands have. */
export function addServiceFlags(command: SwarmdCommand, mode: Mode): void {
  const update = mode === 'update';
  addContainerFlags(command);
  addHealthFlags(command);
  addPlacementFlags(command);
  addUpdateFlags(command, 'update');
  addUpdateFlags(command, 'rollback');
  addListFlags(command, update);
  command
    .flag('-d, --detach', 'do not wait for the tasks to run')
    .flag('-q, --quiet', 'no progress')
    .flag('--dry-run', 'show where the tasks would go; nothing is changed')
    .flag('--strict', 'exit with 1 when an automatic rollback undid the change')
    .value('--endpoint-mode <mode>', 'vip or dnsrr')
    .value('--replicas <count>', 'number of tasks')
    .value('--max-concurrent <count>', 'tasks of a job that run at a time')
    .flag('--with-registry-auth', 'accepted; images are pulled with the credentials of each node')
    .flag('--no-resolve-image', 'accepted; images are not resolved to digests')
    .unsupported([
      '--credential-spec <spec>',
      '--isolation <type>',
      '--memory-swap <bytes>',
      '--memory-swappiness <count>',
      '--oom-score-adj <count>',
      '--health-start-interval <duration>',
    ]);
}

function addContainerFlags(command: SwarmdCommand): void {
  command
    .value('--entrypoint <command>', "replaces the image's entrypoint")
    .value('--hostname <name>', 'host name of the tasks')
    .value('-u, --user <user>', 'user (and group) to run as')
    .value('-w, --workdir <path>', 'working folder inside the task')
    .flag('-t, --tty', 'give the tasks a terminal')
    .flag('--read-only', 'root file system read only')
    .flag('--init', 'run an init inside each container')
    .value('--stop-signal <signal>', 'signal that asks a task to stop')
    .value('--stop-grace-period <duration>', 'time between that signal and SIGKILL (10s)')
    .value('--limit-cpu <count>', 'CPUs a task may use')
    .value('--limit-memory <bytes>', 'memory a task may use')
    .value('--limit-pids <count>', 'processes a task may have')
    .value('--reserve-cpu <count>', 'CPUs kept for a task')
    .value('--reserve-memory <bytes>', 'memory kept for a task')
    .value('--log-driver <name>', 'log driver of the containers')
    .list('--log-opt <option>', 'option of the log driver');
}

function addHealthFlags(command: SwarmdCommand): void {
  command
    .value('--health-cmd <command>', 'command that checks the health')
    .value('--health-interval <duration>', 'time between checks')
    .value('--health-timeout <duration>', 'time one check may take')
    .value('--health-start-period <duration>', 'time in which failures do not count')
    .value('--health-retries <count>', 'failures in a row that mean unhealthy')
    .flag('--no-healthcheck', "turn the image's health check off");
}

function addPlacementFlags(command: SwarmdCommand): void {
  command
    .value('--replicas-max-per-node <count>', 'most tasks one node may run (0: no limit)')
    .value(
      '--rebalance <options>',
      'move tasks to nodes that join or return: on, off, or max-moves=1,margin=2,cooldown=1m',
    )
    .value('--restart-condition <condition>', 'none, on-failure or any')
    .value('--restart-delay <duration>', 'time before a restart (5s)')
    .value('--restart-max-attempts <count>', 'restarts before giving up (0: no limit)')
    .value('--restart-window <duration>', 'time in which restarts are counted');
}

function addUpdateFlags(command: SwarmdCommand, kind: 'update' | 'rollback'): void {
  command
    .value(
      `--${kind}-parallelism <count>`,
      `tasks changed at a time by an ${kind} (0: all)`.replace('an rollback', 'a rollback'),
    )
    .value(`--${kind}-delay <duration>`, 'time between them')
    .value(
      `--${kind}-failure-action <action>`,
      kind === 'update' ? 'pause, continue or rollback' : 'pause or continue',
    )
    .value(`--${kind}-monitor <duration>`, 'time after which a new task counts as good (5s)')
    .value(`--${kind}-max-failure-ratio <ratio>`, 'failed tasks tolerated, 0 to 1')
    .value(`--${kind}-order <order>`, 'stop-first or start-first');
}

/** Lists: `--env` on create is `--env-add` and `--env-rm` on update. */
function addListFlags(command: SwarmdCommand, update: boolean): void {
  const lists: readonly (readonly [short: string, name: string, value: string, text: string])[] = [
    ['-e', 'env', 'name=value', 'environment variable'],
    ['-l', 'label', 'name=value', 'label of the service'],
    ['', 'container-label', 'name=value', 'label of the containers'],
    ['', 'constraint', 'expression', 'placement constraint, such as node.role==worker'],
    ['', 'placement-pref', 'spread=key', 'spread tasks over the values of a label'],
    ['-p', 'publish', 'port', 'publish a port: 8080:80 or published=8080,target=80,mode=host'],
    ['', 'mount', 'mount', 'type=bind|volume|tmpfs,source=…,target=…'],
    ['', 'network', 'network', 'attach to a network: NAME or name=NAME,alias=OTHER'],
    ['', 'secret', 'secret', 'give a secret: NAME or source=NAME,target=FILE'],
    ['', 'config', 'config', 'give a config: NAME or source=NAME,target=PATH'],
    ['', 'host', 'host:address', 'line of the hosts file'],
    ['', 'dns', 'address', 'name server'],
    ['', 'dns-search', 'domain', 'search domain'],
    ['', 'dns-option', 'option', 'resolver option'],
    ['', 'group', 'group', 'additional group'],
    ['', 'sysctl', 'name=value', 'kernel setting'],
    ['', 'ulimit', 'limit', 'limit, such as nofile=1024:2048'],
    ['', 'generic-resource', 'kind=count', 'reserve generic resources, such as gpu=1'],
  ];
  for (const [short, name, value, text] of lists) {
    if (!update) command.list(`${short === '' ? '' : `${short}, `}--${name} <${value}>`, text);
    else
      command.list(`--${name}-add <${value}>`, `add: ${text}`).list(`--${name}-rm <name>`, `remove: ${text}`);
  }
  command
    .list('--cap-add <capability>', 'add a capability')
    .list('--cap-drop <capability>', 'drop a capability');
  if (update) return;
  command.list('--env-file <file>', 'file of environment variables');
}
