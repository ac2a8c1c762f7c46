import { expect, test } from 'vitest';
import { hasRelease, parseAptSources, siblingLine } from '../../scripts/lib/apt-sources.mjs';

test('one-line sources: options, comments, and only binary packages', () => {
  const sources = parseAptSources(
    'sources.list',
    `# deb http://off.example/debian bookworm main
deb [arch=amd64 signed-by=/keys/a.gpg] http://on.example/debian bookworm main contrib # the mirror
deb-src http://on.example/debian bookworm main
deb http://plain.example/debian bookworm-security main
`,
  );
  expect(sources).toEqual([
    {
      uri: 'http://on.example/debian',
      releases: ['bookworm'],
      components: ['main', 'contrib'],
      signedBy: '/keys/a.gpg',
      checkValidUntil: true,
    },
    {
      uri: 'http://plain.example/debian',
      releases: ['bookworm-security'],
      components: ['main'],
      signedBy: null,
      checkValidUntil: true,
    },
  ]);
  expect(siblingLine(sources, 'bookworm', 'bookworm-backports')).toBe(
    'deb [signed-by=/keys/a.gpg] http://on.example/debian bookworm-backports main',
  );
});

test('stanzas: several mirrors and releases, continued lines, and switched-off sources', () => {
  const sources = parseAptSources(
    'debian.sources',
    `Types: deb deb-src
URIs: mirror+file:/etc/apt/mirrors/debian.list http://second.example/debian
Suites: bookworm
 bookworm-backports
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: sid
Components: main

Types: deb
URIs: http://frozen.example/debian
Suites: bullseye
Components: main
Check-Valid-Until: no
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----
`,
  );
  expect(sources.map(({ uri }) => uri)).toEqual([
    'mirror+file:/etc/apt/mirrors/debian.list',
    'http://second.example/debian',
    'http://frozen.example/debian',
  ]);
  expect(hasRelease(sources, 'bookworm-backports')).toBe(true);
  expect(hasRelease(sources, 'trixie')).toBe(false);
  // A key that stands in the stanza itself cannot be named in one line; the valid-until choice can.
  expect(siblingLine(sources, 'bullseye', 'bullseye-backports')).toBe(
    'deb [check-valid-until=no] http://frozen.example/debian bullseye-backports main',
  );
  expect(siblingLine(sources, 'trixie', 'trixie-backports')).toBeNull();
});
