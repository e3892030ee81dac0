/** Printing forecasts: what a change would create, move, remove and leave without a place. */
import type { Forecast, ForecastMove } from '../model/forecast.ts';
import type { Outside } from './context.ts';
import { printLine, printList, type Column, type Row } from './output.ts';

const moveColumns: readonly Column[] = [
  ['ACTION', 'Action'],
  ['TASK', 'Task'],
  ['FROM', 'From'],
  ['TO', 'To'],
  ['REASON', 'Reason'],
];

function moveRow({ kind, service, name, from, to, reason }: ForecastMove): Row {
  return { Action: kind, Service: service, Task: name, From: from, To: to, Reason: reason };
}

/** Prints a forecast: a table with a summary, one JSON object, or a template for each task. */
export function printForecast(outside: Outside, forecast: Forecast, format: string | undefined): void {
  if (format === 'json') {
    printLine(outside, JSON.stringify(forecast));
    return;
  }
  const { moves, shortages, quorum, settled } = forecast;
  const isTable = format === undefined || format === '' || format === 'table';
  if (!isTable || moves.length > 0) printList(outside, moves.map(moveRow), moveColumns, { format });
  if (!isTable) return;
  if (moves.length === 0) printLine(outside, 'no task would change its place');
  for (const { service, wanted, running } of shortages) {
    printLine(outside, `service ${service} would run ${running} of ${wanted} tasks`);
  }
  if (quorum !== null) {
    const { left, managers, needed, lost } = quorum;
    const outcome = lost
      ? 'the quorum would be lost: running tasks go on, but nothing could be changed or replaced'
      : 'the quorum would hold';
    printLine(outside, `${left} of ${managers} managers would be left, ${needed} are needed: ${outcome}`);
  }
  if (!settled) printLine(outside, 'the forecast was cut short; more would follow');
  printLine(outside, 'nothing was changed');
}
