/**
 * Checks of `{{...}}` placeholders in specs: a misspelt one is refused when the spec is written, not on the worker.
 *
 * Invariant: only the names are checked; whether a label exists is known when the task is made.
 */

/** What a placeholder may name. `Labels` may be followed by a key. */
const PLACEHOLDERS = [
  '.Service.ID',
  '.Service.Name',
  '.Service.Labels',
  '.Node.ID',
  '.Node.Hostname',
  '.Node.Platform.OS',
  '.Node.Platform.Architecture',
  '.Task.ID',
  '.Task.Name',
  '.Task.Slot',
] as const;

/** Whether the text holds a placeholder. */
export function isTemplate(text: string): boolean {
  return text.includes('{{');
}

/** Why the placeholders of `text` cannot be filled, or null. */
export function templateProblem(text: string): string | null {
  let from = 0;
  for (;;) {
    const open = text.indexOf('{{', from);
    if (open < 0) return null;
    const close = text.indexOf('}}', open);
    if (close < 0) return `the placeholder '${text.slice(open)}' has no closing '}}'`;
    const body = text.slice(open + 2, close).replace(/"[^"]*"/g, '""');
    for (const [, path = ''] of body.matchAll(/(?:^|[\s(|-])(\.[A-Za-z][A-Za-z0-9_.]*)/g)) {
      const known = PLACEHOLDERS.some(
        (name) => path === name || (name === '.Service.Labels' && path.startsWith(`${name}.`)),
      );
      if (!known) return `'${path}' is no placeholder; those are ${PLACEHOLDERS.join(', ')}`;
    }
    from = close + 2;
  }
}
