/** `snapshot save|inspect|restore` and `log inspect`: backups, and what support looks at. */
import { resolve } from 'node:path';
import { systemRandom } from '../../base/random.ts';
import type { LogReport, SnapshotReport } from '../../node/inspect.ts';
import { encodeSnapshotFile, readSnapshotFile, writeSnapshotFile } from '../../node/snapshot-file.ts';
import { fullName, helpGroups, type Run, type SwarmdCommand, UsageError } from '../command.ts';
import type { Outside } from '../context.ts';
import { nodeOptionsOf, withPlaceFlags } from '../daemon-flags.ts';
import { dataDirOf, withApi, withConnectionFlags } from '../host.ts';
import { formatTable, printInspect, printLine } from '../output.ts';

const FORMAT = 'json or a template such as "{{.index}}"';

export function registerSnapshot(program: SwarmdCommand, run: Run): void {
  const group = program.sub('snapshot', 'backups of the cluster state: save, inspect, restore');
  group.helpGroup(helpGroups.cluster);
  registerSave(group, run);
  registerInspect(group, run);
  registerRestore(group, run);
}

function registerSave(group: SwarmdCommand, run: Run): void {
  const { outside } = run;
  const command = group
    .sub('save', 'write the state of the running cluster to a file')
    .argument('<file>', 'where to');
  withConnectionFlags(command as SwarmdCommand).run(run, (args, self) =>
    withApi(self, outside, async (api) => {
      const path = resolve(outside.cwd, args[0] ?? '');
      const taken = await api.call('cluster.snapshot', {}, { signal: outside.interrupt });
      const state = Buffer.from(taken.state, 'base64');
      const { clusterId, index, term, members } = taken;
      const takenAt = outside.clock.nowMs();
      const bytes = encodeSnapshotFile(
        { format: 1, clusterId, index, term, takenAt, version: outside.version, members },
        state,
      );
      await writeSnapshotFile(path, bytes);
      printLine(
        outside,
        `Saved cluster ${clusterId} at entry ${index}, term ${term}: ${bytes.length} bytes in ${path}.`,
      );
      printLine(
        outside,
        'The file holds the root key and every secret of the cluster: keep it as safe as those.',
      );
      return 0;
    }),
  );
}

function registerInspect(group: SwarmdCommand, run: Run): void {
  const { outside } = run;
  const command = group
    .sub('inspect', 'show what a saved file holds, and whether it is whole')
    .argument('<file>', 'a file of `snapshot save`') as SwarmdCommand;
  command.value('-f, --format <format>', FORMAT).run(run, async (args, self) => {
    const { inspectSnapshot } = await import('../../node/inspect.ts');
    const report = await inspectSnapshot(resolve(outside.cwd, args[0] ?? ''));
    const { format } = self.opts<{ format?: string }>();
    if (format === undefined) outside.terminal.stdout.write(snapshotText(report));
    else printInspect(outside, [report], format);
    return report.checksumOk && report.counts !== null ? 0 : 1;
  });
}

function snapshotText(report: SnapshotReport): string {
  const { counts, members } = report;
  const verdict = report.checksumOk ? 'matches' : 'DOES NOT MATCH: the file is damaged';
  return pairs([
    ['Cluster:', report.clusterId],
    ['Entry:', `${report.index} of term ${report.term}`],
    ['Taken:', `${new Date(report.takenAt).toISOString()} by swarmd ${report.version}`],
    ['Size:', `${report.stateBytes} bytes of state`],
    ['Checksum:', `${verdict} (SHA-256 ${report.checksum})`],
    [
      'Objects:',
      counts === null
        ? 'cannot be read'
        : Object.entries(counts)
            .map(([table, count]) => `${count} ${table}`)
            .join(', '),
    ],
    ['Managers:', members.map((member) => `${member.nodeId} at ${member.address}`).join(', ')],
  ]);
}

function pairs(lines: readonly (readonly [string, string])[]): string {
  return lines.map(([label, value]) => `${label.padEnd(13)} ${value === '' ? '-' : value}\n`).join('');
}

function registerRestore(group: SwarmdCommand, run: Run): void {
  const { outside } = run;
  const command = group
    .sub('restore', 'make the folder of a new one-manager cluster from a saved file')
    .argument('<file>', 'a file of `snapshot save`');
  const placed = withPlaceFlags(command as SwarmdCommand)
    .list('--label <name=value>', 'label of the manager')
    .oneOf('--availability <state>', 'may the manager run tasks?', ['active', 'pause', 'drain']);
  placed.run(run, async (args, self) => {
    const options = nodeOptionsOf(self, outside);
    const file = await readSnapshotFile(resolve(outside.cwd, args[0] ?? ''));
    const { restoreSnapshot } = await import('../../node/restore.ts');
    const made = await restoreSnapshot(file, options, systemRandom());
    printLine(
      outside,
      `Restored cluster ${made.clusterId} in ${options.dataDir}, as of entry ${made.index - 1}.`,
    );
    printLine(
      outside,
      `Its only manager is this machine (${made.nodeId}) at ${made.advertised}; every other node counts as down until it connects.\n`,
    );
    printLine(outside, `Run it with: swarmd daemon --data-dir ${options.dataDir}`);
    return 0;
  });
}

export function registerLog(program: SwarmdCommand, run: Run): void {
  const { outside } = run;
  const group = program.sub('log', "the log of a manager's state: inspect");
  group.helpGroup(helpGroups.cluster);
  const command = group.sub('inspect', 'show what the log in a data folder holds; its daemon must not run');
  command
    .value('--data-dir <folder>', "the manager's data folder (env SWARMD_DATA_DIR)")
    .value('--entries <from..to>', 'also list these entries: 100..200, 100.. or ..200')
    .value('-f, --format <format>', FORMAT)
    .run(run, async (_args, self) => {
      const { entries, format } = self.opts<{ entries?: string; format?: string }>();
      const range = entries === undefined ? null : rangeOf(self, entries);
      const { inspectFolder } = await import('../../node/inspect.ts');
      const report = await inspectFolder(dataDirOf(self, outside), range);
      if (format === undefined) printLog(outside, report);
      else printInspect(outside, [report], format);
      return report.damage.length === 0 ? 0 : 1;
    });
}

function rangeOf(command: SwarmdCommand, text: string): { from: number; to: number } {
  const match = /^(\d{0,15})\.\.(\d{0,15})$/.exec(text) ?? /^(\d{1,15})$/.exec(text);
  if (match === null) throw new UsageError(`--entries: "${text}" is not FROM..TO`, fullName(command));
  const from = match[1] === '' ? 1 : Number(match[1]);
  const last = match[2] ?? match[1];
  const to = last === '' ? from + OPEN_RANGE - 1 : Number(last);
  if (to < from) throw new UsageError(`--entries: ${from} is after ${to}`, fullName(command));
  return { from, to };
}

/** Entries listed when the range has no end. */
const OPEN_RANGE = 1_000;

function printLog(outside: Outside, report: LogReport): void {
  const { hardState, snapshot, counts, members, damage } = report;
  const total = counts.normal + counts.config + counts.empty + counts.damaged;
  outside.terminal.stdout.write(
    pairs([
      ['Folder:', report.dataDir],
      ['Cluster:', report.clusterId ?? ''],
      ['Node:', report.nodeId ?? ''],
      ['Member:', report.memberId === null ? '' : String(report.memberId)],
      [
        'Hard state:',
        hardState === null
          ? 'cannot be read'
          : `term ${hardState.term}, vote ${hardState.vote === 0 ? 'nobody' : hardState.vote}, commit ${hardState.commit}`,
      ],
      [
        'Snapshot:',
        snapshot === null
          ? 'none'
          : `entry ${snapshot.index} of term ${snapshot.term}, ${snapshot.bytes} bytes in ${snapshot.chunks} chunks`,
      ],
      [
        'Entries:',
        total === 0
          ? 'none'
          : `${report.firstIndex} to ${report.lastIndex}: ${counts.normal} normal, ${counts.config} config, ${counts.empty} empty, ${counts.damaged} damaged; ${report.bytes} bytes`,
      ],
      [
        'Actions:',
        Object.entries(report.actions)
          .sort(([, a], [, b]) => b - a)
          .map(([what, count]) => `${count} ${what}`)
          .join(', '),
      ],
      [
        'Members:',
        members
          .map(
            ({ id, nodeId, address, voter }) =>
              `${id} ${voter ? 'voter' : 'learner'} ${nodeId} at ${address}`,
          )
          .join(', '),
      ],
      ...(report.expelled.length === 0 ? [] : [['Expelled:', report.expelled.join(', ')] as const]),
      ['Checks:', damage.length === 0 ? 'every record passes' : `${damage.length} FAILED`],
    ]),
  );
  for (const what of damage) printLine(outside, `  ${what}`);
  if (report.entries.length === 0) return;
  printLine(outside, '');
  outside.terminal.stdout.write(
    formatTable(
      ['INDEX', 'TERM', 'KIND', 'BYTES', 'CRC', 'WHAT'],
      report.entries.map(({ index, term, kind, bytes, crcOk, what }) => [
        ...[index, term, kind, bytes].map(String),
        crcOk ? 'ok' : 'BAD',
        what,
      ]),
    ),
  );
}
