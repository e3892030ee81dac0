/** The Redis serialisation protocol, as far as lists need it. Texts are ASCII, so that bytes and characters agree. */

/** An answer: a text, a number, nothing, a list, or an error. */
export type RespValue = string | number | null | readonly RespValue[] | Error;

/** A command as a client sends it. */
export function encodeCommand(...words: readonly string[]): string {
  return encodeValue(words);
}

/** A value as a server sends it; texts as bulk strings. */
export function encodeValue(value: RespValue): string {
  if (value === null) return '$-1\r\n';
  if (typeof value === 'number') return `:${value}\r\n`;
  if (typeof value === 'string') return `$${value.length}\r\n${value}\r\n`;
  if (value instanceof Error) return `-ERR ${value.message}\r\n`;
  return `*${value.length}\r\n${value.map(encodeValue).join('')}`;
}

/** Takes one value from the start of `data`; null when it is not all there. */
export function parseValue(data: string): { readonly answer: RespValue; readonly rest: string } | null {
  const end = data.indexOf('\r\n');
  if (end < 0) return null;
  const head = data.slice(1, end);
  const rest = data.slice(end + 2);
  const length = Number(head);
  switch (data[0]) {
    case '+':
      return { answer: head, rest };
    case '-':
      return { answer: new Error(head), rest };
    case ':':
      return { answer: length, rest };
    case '$':
      if (length < 0) return { answer: null, rest };
      return rest.length < length + 2
        ? null
        : { answer: rest.slice(0, length), rest: rest.slice(length + 2) };
    case '*':
      return length < 0 ? { answer: null, rest } : parseList(length, rest);
    default:
      throw new Error(`not RESP: ${JSON.stringify(data.slice(0, 20))}`);
  }
}

function parseList(
  length: number,
  data: string,
): { readonly answer: RespValue; readonly rest: string } | null {
  const items: RespValue[] = [];
  let rest = data;
  while (items.length < length) {
    const parsed = parseValue(rest);
    if (parsed === null) return null;
    items.push(parsed.answer);
    rest = parsed.rest;
  }
  return { answer: items, rest };
}
