/**
 * A command line split into words: quotes, backslashes and comments as in a shell, nothing expanded. Inside
 * double quotes a backslash takes any next character as it is, as the tools compose files were written for do.
 */
import { ok, refuse, type Result } from '../base/result.ts';

/** Splits `sh -c "echo hi"` into words. A `#` at the start of a word begins a comment. */
export function splitShellWords(text: string): Result<string[]> {
  const words: string[] = [];
  let word: string | null = null;
  let at = 0;
  while (at < text.length) {
    const character = text[at] as string;
    if (character === ' ' || character === '\t' || character === '\n' || character === '\r') {
      if (word !== null) words.push(word);
      word = null;
      at++;
    } else if (character === '#' && word === null) {
      const end = text.indexOf('\n', at);
      at = end < 0 ? text.length : end;
    } else if (character === "'" || character === '"') {
      const quoted = character === "'" ? singleQuoted(text, at) : doubleQuoted(text, at);
      if (quoted === null) return refuse(`the ${character} at position ${at + 1} is not closed`);
      word = (word ?? '') + quoted.value;
      at = quoted.end;
    } else if (character === '\\') {
      if (at + 1 >= text.length) return refuse('the text ends in a single backslash');
      word = (word ?? '') + (text[at + 1] as string);
      at += 2;
    } else {
      word = (word ?? '') + character;
      at++;
    }
  }
  if (word !== null) words.push(word);
  return ok(words);
}

interface Quoted {
  readonly value: string;
  readonly end: number;
}

function singleQuoted(text: string, start: number): Quoted | null {
  const close = text.indexOf("'", start + 1);
  return close < 0 ? null : { value: text.slice(start + 1, close), end: close + 1 };
}

function doubleQuoted(text: string, start: number): Quoted | null {
  let value = '';
  for (let i = start + 1; i < text.length; i++) {
    const character = text[i] as string;
    if (character === '"') return { value, end: i + 1 };
    if (character !== '\\') {
      value += character;
      continue;
    }
    const next = text[++i];
    if (next === undefined) return null;
    value += next;
  }
  return null;
}
