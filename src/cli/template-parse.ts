/** Parser of the template subset that template.ts runs. */
import { ok, refuse, type Result } from '../base/result.ts';

export type Expression =
  | { readonly kind: 'literal'; readonly value: string | number | boolean }
  | { readonly kind: 'field'; readonly path: readonly string[]; readonly fromRoot: boolean }
  | { readonly kind: 'call'; readonly name: string; readonly args: readonly Expression[] }
  | { readonly kind: 'pipe'; readonly calls: readonly Expression[] };

export type TemplateNode =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'output'; readonly expression: Expression }
  | {
      readonly kind: 'if';
      readonly condition: Expression;
      readonly body: readonly TemplateNode[];
      readonly otherwise: readonly TemplateNode[];
    }
  | {
      readonly kind: 'with';
      readonly value: Expression;
      readonly body: readonly TemplateNode[];
      readonly otherwise: readonly TemplateNode[];
    }
  | {
      readonly kind: 'range';
      readonly value: Expression;
      readonly body: readonly TemplateNode[];
      readonly otherwise: readonly TemplateNode[];
    };

/** The texts between `{{` and `}}`. */
export function templateTokens(template: string): string[] {
  return [...template.matchAll(/\{\{-?\s*([\s\S]*?)\s*-?\}\}/g)].map((match) => match[1] ?? '');
}

type Piece = { readonly kind: 'text' | 'action'; readonly text: string };

/** Parses a template; a refusal says what is malformed. */
export function parseTemplate(template: string): Result<readonly TemplateNode[]> {
  const pieces = splitPieces(template);
  if (!pieces.ok) return pieces;
  try {
    const parser = new TemplateParser(pieces.value);
    const nodes = parser.nodes([]);
    return ok(nodes);
  } catch (error) {
    if (error instanceof TemplateSyntaxError) return refuse(error.message);
    throw error;
  }
}

class TemplateSyntaxError extends Error {}

function splitPieces(template: string): Result<Piece[]> {
  const pieces: Piece[] = [];
  let at = 0;
  while (at < template.length) {
    const open = template.indexOf('{{', at);
    if (open < 0) break;
    const close = template.indexOf('}}', open);
    if (close < 0) return refuse('a {{ is not closed by }}');
    let before = template.slice(at, open);
    let body = template.slice(open + 2, close);
    at = close + 2;
    if (body.startsWith('- ')) {
      before = before.trimEnd();
      body = body.slice(1);
    }
    if (body.endsWith(' -')) {
      body = body.slice(0, -1);
      while (at < template.length && /\s/.test(template[at] as string)) at++;
    }
    pieces.push({ kind: 'text', text: before }, { kind: 'action', text: body.trim() });
  }
  pieces.push({ kind: 'text', text: template.slice(at) });
  return ok(pieces.filter((piece) => piece.kind === 'action' || piece.text !== ''));
}

class TemplateParser {
  readonly #pieces: readonly Piece[];
  #at = 0;

  constructor(pieces: readonly Piece[]) {
    this.#pieces = pieces;
  }

  /** Nodes up to one of the actions `ends` (which is left to read); at the top level up to the end. */
  nodes(ends: readonly string[]): TemplateNode[] {
    const result: TemplateNode[] = [];
    for (;;) {
      const piece = this.#pieces[this.#at];
      if (piece === undefined) {
        if (ends.length > 0) throw new TemplateSyntaxError('an {{end}} is missing');
        return result;
      }
      const word = piece.kind === 'action' ? (/^\w+/.exec(piece.text)?.[0] ?? '') : '';
      if (word === 'end' || word === 'else') {
        if (!ends.includes(word)) throw new TemplateSyntaxError(`{{${word}}} has nothing to end`);
        return result;
      }
      this.#at++;
      result.push(
        piece.kind === 'text' ? { kind: 'text', text: piece.text } : this.#action(piece.text, word),
      );
    }
  }

  #action(text: string, word: string): TemplateNode {
    if (text.startsWith('/*')) return { kind: 'text', text: '' };
    if (word !== 'if' && word !== 'range' && word !== 'with')
      return { kind: 'output', expression: parseExpression(text) };
    const value = parseExpression(text.slice(word.length).trim());
    const first = this.nodes(['end', 'else']);
    const ending = this.#pieces[this.#at++]?.text ?? '';
    let otherwise: TemplateNode[] = [];
    if (/^else\s+if\b/.test(ending)) otherwise = [this.#action(ending.replace(/^else\s+/, ''), 'if')];
    else if (ending === 'else') {
      otherwise = this.nodes(['end']);
      this.#at++;
    }
    if (word === 'if') return { kind: 'if', condition: value, body: first, otherwise };
    if (word === 'with') return { kind: 'with', value, body: first, otherwise };
    return { kind: 'range', value, body: first, otherwise };
  }
}

const TOKEN = /\s*(?:("(?:[^"\\]|\\.)*")|(`[^`]*`)|([|()])|([^\s|()"`]+))/y;

function tokenize(text: string): string[] {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.trimEnd().length) {
    const match = TOKEN.exec(text);
    if (match === null) throw new TemplateSyntaxError(`"${text}" cannot be read`);
    tokens.push((match[1] ?? match[2] ?? match[3] ?? match[4]) as string);
  }
  return tokens;
}

function parseExpression(text: string): Expression {
  const tokens = tokenize(text);
  let at = 0;
  const pipeline = (): Expression => {
    const calls: Expression[] = [];
    for (;;) {
      const terms: { token: string; expression: Expression }[] = [];
      while (at < tokens.length && tokens[at] !== '|' && tokens[at] !== ')') {
        const token = tokens[at++] as string;
        if (token !== '(') terms.push({ token, expression: parseTerm(token) });
        else {
          terms.push({ token, expression: pipeline() });
          if (tokens[at++] !== ')') throw new TemplateSyntaxError('a ( is not closed');
        }
      }
      calls.push(asCall(terms, text));
      if (tokens[at] !== '|') break;
      at++;
    }
    const only = calls.length === 1 ? calls[0] : undefined;
    return only ?? { kind: 'pipe', calls };
  };
  const expression = pipeline();
  if (at < tokens.length) throw new TemplateSyntaxError(`"${text}" cannot be read`);
  return expression;
}

function asCall(terms: readonly { token: string; expression: Expression }[], text: string): Expression {
  const [first, ...rest] = terms;
  if (first === undefined) throw new TemplateSyntaxError('an action is empty');
  if (first.expression.kind === 'call' && first.token !== '(') {
    return { ...first.expression, args: rest.map((term) => term.expression) };
  }
  if (rest.length > 0) throw new TemplateSyntaxError(`"${text}" cannot be read`);
  return first.expression;
}

function parseTerm(token: string): Expression {
  if (token.startsWith('"')) return { kind: 'literal', value: JSON.parse(token) as string };
  if (token.startsWith('`')) return { kind: 'literal', value: token.slice(1, -1) };
  if (/^-?\d+(\.\d+)?$/.test(token)) return { kind: 'literal', value: Number(token) };
  if (token === 'true' || token === 'false') return { kind: 'literal', value: token === 'true' };
  if (/^\$?(\.[A-Za-z_][\w-]*)*\.?$/.test(token)) {
    const path = token.split('.').filter((name) => name !== '' && name !== '$');
    return { kind: 'field', path, fromRoot: token.startsWith('$') };
  }
  if (/^[A-Za-z]\w*$/.test(token)) return { kind: 'call', name: token, args: [] };
  throw new TemplateSyntaxError(`"${token}" cannot be read`);
}
