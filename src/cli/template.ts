/**
 * A subset of Go's templates, enough for what people pass to `--format`.
 *
 * Supported: text with `\t` and `\n`, `{{.Field.Sub}}` (field names in any case), `{{json .X}}`, `upper`, `lower`,
 * `title`, `join .List "sep"`, `split`, `len`, `index .Map "key"`, `truncate`, `print`, `printf` with %s %d %v %q,
 * `eq`, `ne`, `not`, pipes, `{{if}}…{{else}}…{{end}}`, `{{range}}…{{end}}`, `{{with}}…{{end}}` and `{{- -}}` trims.
 */
import { SwarmdError } from '../base/errors.ts';
import { parseTemplate, templateTokens, type Expression, type TemplateNode } from './template-parse.ts';

/** Names docker's objects have where ours are named otherwise. */
const ALIASES: Readonly<Record<string, string>> = {
  tasktemplate: 'task',
  containerspec: 'container',
  endpointspec: 'endpoint',
  updateconfig: 'update',
  rollbackconfig: 'rollback',
  restartpolicy: 'restart',
  availability: 'availability',
};

function templateError(template: string, why: string): SwarmdError {
  return new SwarmdError('INVALID_ARGUMENT', `the template "${template}" cannot be used: ${why}`);
}

/** Fills `template` in with `data`. Throws SwarmdError INVALID_ARGUMENT for a malformed template or an unknown field. */
export function renderTemplate(template: string, data: unknown): string {
  const unescaped = template.replaceAll('\\t', '\t').replaceAll('\\n', '\n');
  const parsed = parseTemplate(unescaped);
  if (!parsed.ok) throw templateError(template, parsed.reason);
  const fail = (why: string): never => {
    throw templateError(template, why);
  };
  return renderNodes(parsed.value, { dot: data, root: data, fail });
}

/** The field names a template uses at its top level: `{{.ID}} {{.Name}}` gives ID and Name. */
export function templateFields(template: string): string[] {
  return [
    ...new Set(
      templateTokens(template).flatMap((token) =>
        [...token.matchAll(/\.([A-Za-z_]\w*)/g)].map((m) => m[1] ?? ''),
      ),
    ),
  ];
}

interface Scope {
  readonly dot: unknown;
  readonly root: unknown;
  readonly fail: (why: string) => never;
}

function renderNodes(nodes: readonly TemplateNode[], scope: Scope): string {
  return nodes.map((node) => renderNode(node, scope)).join('');
}

function renderNode(node: TemplateNode, scope: Scope): string {
  switch (node.kind) {
    case 'text':
      return node.text;
    case 'output':
      return printed(evaluate(node.expression, scope));
    case 'if':
      return renderNodes(truthy(evaluate(node.condition, scope)) ? node.body : node.otherwise, scope);
    case 'with': {
      const value = evaluate(node.value, scope);
      return truthy(value)
        ? renderNodes(node.body, { ...scope, dot: value })
        : renderNodes(node.otherwise, scope);
    }
    case 'range': {
      const values = members(evaluate(node.value, scope));
      if (values.length === 0) return renderNodes(node.otherwise, scope);
      return values.map((dot) => renderNodes(node.body, { ...scope, dot })).join('');
    }
  }
}

function members(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value as unknown[];
  return typeof value === 'object' && value !== null ? Object.values(value) : [];
}

function truthy(value: unknown): boolean {
  if (value === null || value === undefined || value === false || value === 0 || value === '') return false;
  return typeof value !== 'object' || members(value).length > 0;
}

function printed(value: unknown): string {
  if (value === undefined || value === null) return '<no value>';
  if (Array.isArray(value)) return `[${value.map(printed).join(' ')}]`;
  if (typeof value === 'object') {
    return `map[${Object.entries(value)
      .map(([key, member]) => `${key}:${printed(member)}`)
      .join(' ')}]`;
  }
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function evaluate(expression: Expression, scope: Scope): unknown {
  switch (expression.kind) {
    case 'literal':
      return expression.value;
    case 'field':
      return fieldOf(expression.fromRoot ? scope.root : scope.dot, expression.path, scope);
    case 'pipe': {
      let piped: { value: unknown } | null = null;
      for (const call of expression.calls) {
        const before: readonly unknown[] = piped === null ? [] : [piped.value];
        piped = { value: evaluateCall(call, before, scope) };
      }
      return piped?.value;
    }
    case 'call':
      return evaluateCall(expression, [], scope);
  }
}

function evaluateCall(call: Expression, piped: readonly unknown[], scope: Scope): unknown {
  if (call.kind !== 'call') return evaluate(call, scope);
  const values = [...call.args.map((argument) => evaluate(argument, scope)), ...piped];
  const apply = functions[call.name];
  if (apply === undefined) return scope.fail(`it has no function "${call.name}"`);
  return apply(values, scope);
}

function fieldOf(start: unknown, path: readonly string[], scope: Scope): unknown {
  let value = start;
  for (const name of path) {
    if (value === null || value === undefined) return undefined;
    if (typeof value !== 'object') return scope.fail(`"${name}" is asked of a plain value`);
    const found = memberKey(value, name);
    if (found === undefined) {
      // A listing's fields are all there, so that a missing one is a typing mistake.
      const known = Object.values(value).every((member) => typeof member === 'string');
      if (known && value === scope.root)
        return scope.fail(`there is no field "${name}"; known: ${Object.keys(value).join(', ')}`);
      return undefined;
    }
    value = (value as Record<string, unknown>)[found];
  }
  return value;
}

function memberKey(value: object, name: string): string | undefined {
  if (Object.hasOwn(value, name)) return name;
  const lower = name.toLowerCase();
  const wanted = [lower, ALIASES[lower]];
  return Object.keys(value).find((key) => wanted.includes(key.toLowerCase()));
}

type TemplateFunction = (values: readonly unknown[], scope: Scope) => unknown;

/** A function's argument as text. */
function text(value: unknown): string {
  return value === undefined || value === null ? '' : printed(value);
}

const functions: Readonly<Record<string, TemplateFunction>> = {
  json: ([value]) => JSON.stringify(value ?? null),
  upper: ([value]) => text(value).toUpperCase(),
  lower: ([value]) => text(value).toLowerCase(),
  title: ([value]) => text(value).replace(/\b\w/g, (letter) => letter.toUpperCase()),
  join: ([list, separator]) =>
    members(list)
      .map(printed)
      .join(text(separator ?? '')),
  split: ([value, separator]) => text(value).split(text(separator)),
  len: ([value]) => (typeof value === 'string' ? value.length : members(value).length),
  truncate: ([value, length]) => text(value).slice(0, Number(length)),
  print: (values) => values.map(printed).join(''),
  println: (values) => `${values.map(printed).join(' ')}\n`,
  printf: ([format, ...values]) => formatted(text(format), values),
  not: ([value]) => !truthy(value),
  eq: ([value, ...others]) => others.some((other) => other === value),
  ne: ([value, other]) => value !== other,
  and: (values) => values.find((value) => !truthy(value)) ?? values.at(-1),
  or: (values) => values.find(truthy) ?? values.at(-1),
  index: ([value, ...keys]) =>
    keys.reduce<unknown>((at, key) => {
      if (typeof at !== 'object' || at === null || !Object.hasOwn(at, text(key))) return '';
      return (at as Record<string, unknown>)[text(key)];
    }, value),
};

function formatted(format: string, values: readonly unknown[]): string {
  let next = 0;
  return format.replace(/%(%|-?\d*[sdvq])/g, (_whole, verb: string) => {
    if (verb === '%') return '%';
    const value = printed(values[next++]);
    const shown = verb.endsWith('q') ? JSON.stringify(value) : value;
    const width = Number.parseInt(verb, 10);
    if (Number.isNaN(width)) return shown;
    return width < 0 ? shown.padEnd(-width) : shown.padStart(width);
  });
}
