/** The flag `--rebalance`: on, off, or what differs from the defaults. */
import { defaultRebalanceConfig } from '../model/defaults.ts';
import type { RebalanceConfig } from '../model/spec.ts';
import { parseDurationMs } from '../stack/quantities.ts';
import { UsageError } from './command.ts';
import { type FlagReader, unwrap } from './flag-values.ts';

/** What the flag asks for; `current` where it is not given. Absent: no rebalancing. */
export function rebalanceOf(
  flags: FlagReader,
  current: RebalanceConfig | undefined,
): RebalanceConfig | undefined {
  if (!flags.has('rebalance')) return current;
  const given = flags.text('rebalance') ?? '';
  if (given === 'off') return undefined;
  let config = current ?? defaultRebalanceConfig;
  if (given === 'on') return config;
  for (const part of given.split(',')) {
    const [key = '', value = ''] = part.split('=');
    if (key === 'cooldown') config = { ...config, cooldownMs: unwrap('rebalance', parseDurationMs(value)) };
    else if (key === 'max-moves') config = { ...config, maxMoves: wholeNumber(part, value, 1) };
    else if (key === 'margin') config = { ...config, margin: wholeNumber(part, value, 2) };
    else {
      throw new UsageError(
        `--rebalance: "${part}" is none of on, off, max-moves=N, margin=N, cooldown=DURATION`,
      );
    }
  }
  return config;
}

function wholeNumber(part: string, text: string, least: number): number {
  const value = /^[0-9]{1,6}$/.test(text) ? Number(text) : -1;
  if (value < least) throw new UsageError(`--rebalance: "${part}" needs a whole number of ${least} or more`);
  return value;
}
