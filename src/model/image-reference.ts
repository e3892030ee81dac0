/**
 * Image references: whether a text names an image (`[registry/]path[:tag][@digest]`).
 *
 * @see https://github.com/distribution/reference for the grammar
 */

/** Longest name without tag and digest. */
const NAME_LENGTH_MAX = 255;

const DOMAIN = /^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?$/;
const PATH_COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^\w[\w.-]{0,127}$/;
const DIGEST = /^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/;
const IMAGE_ID = /^[0-9a-f]{64}$/;

/** The registry part and the rest, the way Docker tells them apart. */
function splitDomain(name: string): { readonly domain: string; readonly path: string } {
  const slash = name.indexOf('/');
  const head = slash < 0 ? '' : name.slice(0, slash);
  const isDomain = /[.:]/.test(head) || head === 'localhost' || head !== head.toLowerCase();
  return isDomain ? { domain: head, path: name.slice(slash + 1) } : { domain: '', path: name };
}

/** Why `text` is no image reference, or null when it is one. */
export function imageReferenceProblem(text: string): string | null {
  if (IMAGE_ID.test(text)) return 'a bare image id cannot be pulled by other nodes; use a name';
  const at = text.indexOf('@');
  const digest = at < 0 ? null : text.slice(at + 1);
  if (digest !== null && !DIGEST.test(digest)) return `'${digest}' is no digest`;
  if (digest?.startsWith('sha256:') === true && digest.length !== 'sha256:'.length + 64) {
    return 'a sha256 digest has 64 hexadecimal digits';
  }
  const tagged = at < 0 ? text : text.slice(0, at);
  const colon = tagged.indexOf(':', tagged.lastIndexOf('/') + 1);
  const tag = colon < 0 ? null : tagged.slice(colon + 1);
  if (tag !== null && !TAG.test(tag)) return `'${tag}' is no tag`;
  const { domain, path } = splitDomain(colon < 0 ? tagged : tagged.slice(0, colon));
  if (domain !== '' && !DOMAIN.test(domain)) return `'${domain}' is no registry address`;
  if (domain.length + path.length > NAME_LENGTH_MAX)
    return `the name is longer than ${NAME_LENGTH_MAX} characters`;
  if (path !== path.toLowerCase()) return `the name '${path}' must be lower case`;
  if (!path.split('/').every((component) => PATH_COMPONENT.test(component)))
    return `'${path}' is no image name`;
  return null;
}
