/** The oldest Node that Offbeat runs on; package.json says the same. */
export const NODE_MIN = '20.19.0';

/** @param {string} version such as `20.19.0` or `v22.1.0` */
export function nodeIsRecentEnough(version) {
  const numbers = (text) => text.replace(/^v/, '').split('.').map(Number);
  const [major, minor] = numbers(version);
  const [majorMin, minorMin] = numbers(NODE_MIN);
  return major > majorMin || (major === majorMin && minor >= minorMin);
}
