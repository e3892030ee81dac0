/** The short syntax of volumes: `[source:]target[:options]`. */
import { ok, refuse, type Result } from '../base/result.ts';
import type { Mount } from '../model/spec.ts';

export interface ShortVolume {
  readonly type: 'bind' | 'volume';
  readonly source?: string;
  readonly target: string;
  readonly readOnly: boolean;
  readonly propagation?: NonNullable<Mount['bindPropagation']>;
  readonly noCopy?: boolean;
  /** Options that are not known. */
  readonly unknown: readonly string[];
}

/** Propagation modes of bind mounts. */
export const PROPAGATIONS = ['private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave'] as const;

/** Options that engines accept and that change nothing here: labelling, consistency, read-write. */
const WITHOUT_EFFECT = new Set(['rw', 'z', 'Z', 'cached', 'delegated', 'consistent', 'nosuid']);

/** Parses the short syntax. A source that starts with `.`, `/` or `~` is a host path, any other a volume's name. */
export function parseVolumeShort(spec: string): Result<ShortVolume> {
  if (spec === '') return refuse('the volume is empty');
  const sections = splitSections(spec);
  if (sections.some((section) => section === '')) {
    return refuse(`"${spec}" has an empty part; write it as source:target or source:target:ro`);
  }
  if (sections.length > 3)
    return refuse(`"${spec}" has too many colons; write it as source:target or source:target:ro`);
  const [first = '', second, optionText] = sections;
  if (second === undefined) return ok({ type: 'volume', target: first, readOnly: false, unknown: [] });
  const type = isHostPath(first) ? 'bind' : 'volume';
  return ok({ type, source: first, target: second, ...readOptions(optionText ?? '') });
}

function readOptions(text: string): Pick<ShortVolume, 'readOnly' | 'propagation' | 'noCopy' | 'unknown'> {
  let readOnly = false;
  let noCopy: boolean | undefined;
  let propagation: ShortVolume['propagation'];
  const unknown: string[] = [];
  for (const option of text === '' ? [] : text.split(',')) {
    const known = PROPAGATIONS.find((candidate) => candidate === option);
    if (option.toLowerCase() === 'ro') readOnly = true;
    else if (option === 'nocopy') noCopy = true;
    else if (known !== undefined) propagation = known;
    else if (!WITHOUT_EFFECT.has(option) && option.toLowerCase() !== 'rw') unknown.push(option);
  }
  return {
    readOnly,
    unknown,
    ...(noCopy === undefined ? {} : { noCopy }),
    ...(propagation === undefined ? {} : { propagation }),
  };
}

/** Splits at colons, except the one of a drive letter (`C:\x`). */
function splitSections(spec: string): string[] {
  const sections: string[] = [];
  let current = '';
  for (let i = 0; i < spec.length; i++) {
    const character = spec[i] as string;
    const isDrive = character === ':' && /^[A-Za-z]$/.test(current) && /^([\\/]|:|$)/.test(spec.slice(i + 1));
    if (character !== ':' || isDrive) current += character;
    else {
      sections.push(current);
      current = '';
    }
  }
  return [...sections, current];
}

/** Whether a source is a path of the host rather than the name of a volume. */
export function isHostPath(source: string): boolean {
  return /^[./~]/.test(source) || /^[A-Za-z]:[\\/]/.test(source) || source.startsWith('\\');
}
