/**
 * Variables in texts: `$X`, `${X}`, `${X:-default}`, `${X-default}`, `${X:?error}`, `${X?error}`, `${X:+other}`,
 * `${X+other}`, `$$`. Defaults, errors and alternatives may hold variables themselves.
 */
import { ok, refuse, type Result } from '../base/result.ts';

export type Lookup = (name: string) => string | undefined;

/** What a text with variables becomes: the text, and the names it used that had neither value nor default. */
export interface Substitution {
  readonly text: string;
  readonly unset: readonly string[];
}

const NAME = /^[_a-zA-Z][_a-zA-Z0-9]*/;

/** Replaces the variables of `template`. A refusal says what is malformed or missing. */
export function substitute(template: string, lookup: Lookup): Result<Substitution> {
  const unset: string[] = [];
  let text = '';
  let at = 0;
  while (at < template.length) {
    const dollar = template.indexOf('$', at);
    if (dollar < 0) break;
    text += template.slice(at, dollar);
    const next = template[dollar + 1];
    if (next === '$') {
      text += '$';
      at = dollar + 2;
      continue;
    }
    const step =
      next === '{' ? braced(template, dollar, lookup, unset) : bare(template, dollar, lookup, unset);
    if (!step.ok) return step;
    text += step.value.text;
    at = step.value.end;
  }
  return ok({ text: text + template.slice(at), unset });
}

type Step = Result<{ readonly text: string; readonly end: number }>;

function malformed(template: string): { readonly ok: false; readonly reason: string } {
  return refuse(`malformed variable in "${template}"; write $$ for a plain $`);
}

function bare(template: string, dollar: number, lookup: Lookup, unset: string[]): Step {
  const name = NAME.exec(template.slice(dollar + 1))?.[0];
  if (name === undefined) return malformed(template);
  return ok({ text: valueOrUnset(name, lookup, unset), end: dollar + 1 + name.length });
}

function valueOrUnset(name: string, lookup: Lookup, unset: string[]): string {
  const value = lookup(name);
  if (value === undefined) unset.push(name);
  return value ?? '';
}

function braced(template: string, dollar: number, lookup: Lookup, unset: string[]): Step {
  const close = closingBrace(template, dollar + 2);
  if (close < 0) return malformed(template);
  const body = template.slice(dollar + 2, close);
  const end = close + 1;
  const name = NAME.exec(body)?.[0];
  if (name === undefined) return malformed(template);
  const rest = body.slice(name.length);
  if (rest === '') return ok({ text: valueOrUnset(name, lookup, unset), end });
  const operator = /^:?[-?+]/.exec(rest)?.[0];
  if (operator === undefined) return malformed(template);
  const operand = rest.slice(operator.length);
  const value = lookup(name);
  const present = value !== undefined && !(operator.startsWith(':') && value === '');
  const kind = operator.at(-1);
  if (kind === '+' ? !present : present) return ok({ text: kind === '+' ? '' : (value ?? ''), end });
  const inner = substitute(operand, lookup);
  if (!inner.ok) return inner;
  unset.push(...inner.value.unset);
  if (kind === '?') {
    const why = inner.value.text === '' ? 'set it in the environment' : inner.value.text;
    return refuse(`required variable ${name} is missing a value: ${why}`);
  }
  return ok({ text: inner.value.text, end });
}

/** Index of the `}` that ends the `${` whose body starts at `from`; -1 when there is none. */
function closingBrace(template: string, from: number): number {
  let depth = 0;
  for (let i = from; i < template.length; i++) {
    if (template[i] === '$' && template[i + 1] === '$') i++;
    else if (template[i] === '$' && template[i + 1] === '{') {
      depth++;
      i++;
    } else if (template[i] === '}') {
      if (depth === 0) return i;
      depth--;
    }
  }
  return -1;
}
