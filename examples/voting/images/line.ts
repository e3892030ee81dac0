/** Answers of one line each, as the stand-in database gives them. */

/** Takes one line from the start of `data`; null when it has not ended. */
export function parseLine(data: string): { readonly answer: string; readonly rest: string } | null {
  const end = data.indexOf('\n');
  return end < 0 ? null : { answer: data.slice(0, end), rest: data.slice(end + 1) };
}
