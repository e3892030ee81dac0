/**
 * The command class: commander's, with docker's habits: `--flag=false` for booleans, flags known but not supported
 * yet refused by name, exit code 125 for a bad flag and 1 for a wrong number of arguments.
 */
import { Command, type CommanderError, Option } from 'commander';
import type { Outside } from './context.ts';

/** A mistake in how a command was called. `exitCode` 125: a bad flag or value; 1: wrong arguments. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly exitCode: number;
  /** The command's full name, such as `swarmd service create`. */
  readonly command: string;

  constructor(message: string, command = '', exitCode = 125) {
    super(message);
    this.command = command;
    this.exitCode = exitCode;
  }
}

/** One run of the program: the outside world and the exit code so far. */
export interface Run {
  readonly outside: Outside;
  exitCode: number;
}

const TRUTHS: Readonly<Record<string, boolean>> = {
  '': true,
  true: true,
  '1': true,
  t: true,
  false: false,
  '0': false,
  f: false,
};

/** Help sections of the program, in order. */
export const helpGroups = {
  start: 'Start here:',
  cluster: 'Cluster and nodes:',
  work: 'Services and stacks:',
  objects: 'Networks, secrets, configs:',
} as const;

export class SwarmdCommand extends Command {
  readonly #booleans = new Set<string>();
  #stopsAtOperand = false;

  override createCommand(name?: string): SwarmdCommand {
    return new SwarmdCommand(name);
  }

  /** Adds a subcommand. `usage` as in commander: `inspect <service...>`. */
  sub(usage: string, description: string): SwarmdCommand {
    const command = this.command(usage) as SwarmdCommand;
    return command.description(description).showFailures();
  }

  /** Turns commander's refusals into UsageErrors that know the command. */
  showFailures(): this {
    return this.exitOverride((error) => {
      throw toUsageError(error, fullName(this));
    });
  }

  /** A true-or-false flag; also takes `--name=false`. */
  flag(names: string, description: string, byDefault?: boolean): this {
    const long = /--([a-z-]+)/.exec(names)?.[1] ?? '';
    this.#booleans.add(long);
    this.option(names, description, ...(byDefault === undefined ? [] : [byDefault]));
    if (!long.startsWith('no-')) this.addOption(new Option(`--no-${long}`).hideHelp());
    return this;
  }

  /** A flag with a value. */
  value(names: string, description: string, byDefault?: string): this {
    return byDefault === undefined
      ? this.option(names, description)
      : this.option(names, description, byDefault);
  }

  /** A flag that may be given several times; its value is always a list. */
  list(names: string, description: string): this {
    const option = new Option(names, description).argParser((value: string, before: string[] | undefined) => [
      ...(before ?? []),
      value,
    ]);
    // Set here rather than as the option's default, which help would print.
    return this.addOption(option).setOptionValueWithSource(option.attributeName(), [], 'default');
  }

  /** A flag whose value is one of a few words. */
  oneOf(names: string, description: string, choices: readonly string[]): this {
    return this.addOption(new Option(names, description).choices(choices));
  }

  /** Docker flags that swarmd does not have yet: `--name` for a boolean, `--name <v>` for one with a value. */
  unsupported(names: readonly string[]): this {
    for (const name of names) {
      const option = new Option(name).hideHelp();
      this.addOption(option);
      this.on(`option:${option.name()}`, () => {
        throw new UsageError(`the flag --${option.name()} is not supported by swarmd yet`, fullName(this));
      });
    }
    return this;
  }

  /** Flags end at the first argument: what follows belongs to the command to run. */
  stopAtOperand(): this {
    this.#stopsAtOperand = true;
    return this.passThroughOptions();
  }

  /** Runs `handler` with the arguments; what it returns becomes the exit code. */
  run(run: Run, handler: (args: readonly string[], command: SwarmdCommand) => Promise<number>): this {
    this.action(async () => {
      run.exitCode = await handler(this.args, this);
    });
    return this;
  }

  override parseOptions(args: string[]): ReturnType<Command['parseOptions']> {
    return super.parseOptions(this.#withoutBooleanValues(args));
  }

  #withoutBooleanValues(args: readonly string[]): string[] {
    const result: string[] = [];
    for (let i = 0; i < args.length; i++) {
      const token = args[i] as string;
      const isOperand = !token.startsWith('-') || token === '-';
      if (token === '--' || (isOperand && (this.#stopsAtOperand || this.commands.length > 0))) {
        return [...result, ...args.slice(i)];
      }
      const replaced = this.#rewrite(token);
      if (replaced !== null) result.push(replaced);
      if (this.#takesNext(token) && i + 1 < args.length) result.push(args[++i] as string);
    }
    return result;
  }

  #rewrite(token: string): string | null {
    const match = /^-(?:-([a-z-]+)|[a-zA-Z])=(.*)$/.exec(token);
    const short = this.options.find((option) => option.short === token.slice(0, 2));
    const name = match?.[1] ?? short?.name() ?? '';
    if (match === null || !this.#booleans.has(name)) return token;
    const value = TRUTHS[(match[2] ?? '').toLowerCase()];
    if (value === undefined) {
      throw new UsageError(`"${match[2]}" is not true or false, for the flag --${name}`, fullName(this));
    }
    if (value) return `--${name}`;
    return name.startsWith('no-') ? null : `--no-${name}`;
  }

  #takesNext(token: string): boolean {
    if (!token.startsWith('-') || token.includes('=')) return false;
    const option = this.options.find((candidate) => candidate.long === token || candidate.short === token);
    return option?.required ?? false;
  }
}

/** `swarmd service create` for the command `create`. */
export function fullName(command: Command): string {
  const names: string[] = [];
  for (let at: Command | null = command; at !== null; at = at.parent) names.unshift(at.name());
  return names.join(' ');
}

const ARGUMENT_CODES = new Set([
  'commander.missingArgument',
  'commander.excessArguments',
  'commander.unknownCommand',
]);

function toUsageError(error: CommanderError, command: string): Error {
  // Help and version are printed, not failures.
  if (error.exitCode === 0 || error.code === 'commander.help') return error;
  const message = error.message
    .replace(/^error: /, '')
    .replace(/\n\(Did you mean (.*)\?\)$/, '. Did you mean $1?');
  return new UsageError(message, command, ARGUMENT_CODES.has(error.code) ? 1 : 125);
}
