// Reads apt's source lists in both their forms, one line per source (sources.list(5)) and stanzas (deb822), as far as
// set-up needs: which releases are configured, and from which mirror a release comes. Pure text work.

/** @typedef {import('./apt-sources.d.mts').AptSource} AptSource */

const ONE_LINE = /^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.*)$/;

/** @param {string} text @returns {AptSource[]} */
function parseOneLine(text) {
  const sources = [];
  for (const line of text.split('\n')) {
    const match = ONE_LINE.exec(line.replace(/#.*/, '').trim());
    if (match === null) continue;
    const [, optionText = '', uri, release, components] = match;
    const options = new Map(optionText.split(/\s+/).map((pair) => pair.split('=', 2)));
    sources.push({
      uri,
      releases: [release],
      components: components.split(/\s+/),
      signedBy: options.get('signed-by') ?? null,
      checkValidUntil: options.get('check-valid-until') !== 'no',
    });
  }
  return sources;
}

/** The fields of one stanza by lower-case name; a line that starts with a space continues the field before it. */
function stanzaFields(stanza) {
  const fields = new Map();
  let name = '';
  for (const line of stanza.split('\n')) {
    if (line.startsWith('#')) continue;
    const match = /^([A-Za-z-]+):(.*)$/.exec(line);
    if (match !== null) {
      name = match[1].toLowerCase();
      fields.set(name, match[2].trim());
    } else if (/^\s/.test(line) && fields.has(name)) {
      fields.set(name, `${fields.get(name)}\n${line.trim()}`);
    }
  }
  return fields;
}

/** @param {string} text @returns {AptSource[]} */
function parseStanzas(text) {
  const sources = [];
  for (const stanza of text.split(/\n\s*\n/)) {
    const fields = stanzaFields(stanza);
    const words = (field) => (fields.get(field) ?? '').split(/\s+/).filter((word) => word !== '');
    if (fields.get('enabled') === 'no' || !words('types').includes('deb')) continue;
    // A key may also stand in the field itself; only a path can be passed on in one line.
    const signedBy = fields.get('signed-by') ?? '';
    for (const uri of words('uris')) {
      sources.push({
        uri,
        releases: words('suites'),
        components: words('components'),
        signedBy: /^\/\S+$/.test(signedBy) ? signedBy : null,
        checkValidUntil: fields.get('check-valid-until') !== 'no',
      });
    }
  }
  return sources;
}

/**
 * The binary package sources that are switched on in one file.
 *
 * @param {string} path only its ending counts: apt reads `.sources` files as stanzas and all others line by line
 * @param {string} text
 * @returns {AptSource[]}
 */
export function parseAptSources(path, text) {
  return path.endsWith('.sources') ? parseStanzas(text) : parseOneLine(text);
}

/** @param {readonly AptSource[]} sources @param {string} release such as `bookworm-backports` */
export function hasRelease(sources, release) {
  return sources.some((source) => source.releases.includes(release));
}

/**
 * The same mirror, with another release of it, as a line for a `.list` file; null when no source has `release`.
 *
 * @param {readonly AptSource[]} sources
 * @param {string} release the release to find, such as `bookworm`
 * @param {string} wanted the release to name in the line, such as `bookworm-backports`
 */
export function siblingLine(sources, release, wanted) {
  const source = sources.find((one) => one.releases.includes(release) && one.components.includes('main'));
  if (source === undefined) return null;
  const options = [];
  if (source.signedBy !== null) options.push(`signed-by=${source.signedBy}`);
  if (!source.checkValidUntil) options.push('check-valid-until=no');
  const bracket = options.length === 0 ? '' : `[${options.join(' ')}] `;
  return `deb ${bracket}${source.uri} ${wanted} main`;
}
