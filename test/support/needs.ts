/**
 * What a test needs of the machine, and whether this machine has it.
 *
 * A test file says what it needs in its header, as `@needs engine`. Without the line it needs nothing but Node.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Kinds of need: `root` powers, a container `engine` of one's own, several `hosts` as network namespaces. */
export const needNames = ['none', 'root', 'engine', 'hosts'] as const;
export type Need = (typeof needNames)[number];

interface Command {
  readonly command: string;
  /** The Debian package that brings it. */
  readonly from: string;
}

const ENGINE: readonly Command[] = [
  { command: 'dockerd', from: 'docker.io' },
  { command: 'containerd', from: 'containerd' },
  { command: 'runc', from: 'runc' },
  { command: 'iptables', from: 'iptables' },
  { command: 'busybox', from: 'busybox-static' },
  { command: 'setpriv', from: 'util-linux' },
  { command: 'ip', from: 'iproute2' },
  { command: 'nsenter', from: 'util-linux' },
  { command: 'unshare', from: 'util-linux' },
];
const HOSTS: readonly Command[] = [
  ...ENGINE,
  { command: 'nft', from: 'nftables' },
  { command: 'conntrack', from: 'conntrack' },
  { command: 'sysctl', from: 'procps' },
  { command: 'curl', from: 'curl' },
];

/** What is asked about the machine; a parameter so that the rules can be tested. */
export interface Machine {
  readonly isRoot: () => boolean;
  readonly hasCommand: (name: string) => boolean;
  readonly canMakeNamespaces: () => boolean;
}

/** The machine this runs on. */
export const thisMachine: Machine = {
  isRoot: () => process.getuid?.() === 0,
  hasCommand: (name) =>
    [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'].some((folder) => {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return true;
      } catch {
        return false;
      }
    }),
  canMakeNamespaces: () => spawnSync('unshare', ['--net', '--mount', 'true']).status === 0,
};

/** What `machine` lacks for `need`: what is missing and how to get it, a line each; empty when it has all. */
export function missingFor(need: Need, machine: Machine): string[] {
  if (need === 'none') return [];
  if (!machine.isRoot()) return ['the rights of root: run it as root'];
  if (need === 'root') return [];
  const commands = need === 'engine' ? ENGINE : HOSTS;
  const missing = commands.filter(({ command }) => !machine.hasCommand(command));
  const packages = [...new Set(missing.map(({ from }) => from))].join(' ');
  if (missing.length > 0) {
    return [`${missing.map(({ command }) => command).join(', ')}: apt-get install ${packages}`];
  }
  return machine.canMakeNamespaces()
    ? []
    : [
        'the right to make namespaces and mounts: run it on a machine of its own or in a privileged container',
      ];
}

/** The needs that the header of a test file names. Throws on a word that is no need. */
export function needOf(path: string, text: string): Need {
  const word = /^ ?\*? ?(?:\/\*\*)? ?@needs (\S+)/m.exec(text)?.[1];
  if (word === undefined) return 'none';
  const need = needNames.find((name) => name === word);
  if (need === undefined) throw new Error(`${path}: "@needs ${word}" is none of ${needNames.join(', ')}`);
  return need;
}
