import { describe, expect, test } from 'vitest';
import { parseAptSources } from '../../scripts/lib/apt-sources.mjs';
import {
  BACKPORTS_LIST,
  driverOverrides,
  installCommand,
  majorVersion,
  offeredVersion,
  offerProblem,
  packageManager,
  parseOsRelease,
  planDriver,
  type Facts,
} from '../../scripts/lib/driver-plan.mjs';

const OS = {
  bookworm: 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_CODENAME=bookworm\nID=debian\n',
  trixie: 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_CODENAME=trixie\nID=debian\n',
  noble: 'PRETTY_NAME="Ubuntu 24.04.2 LTS"\nID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n',
  jammy: 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=jammy\n',
  lmde: 'PRETTY_NAME="LMDE 6 (faye)"\nID=linuxmint\nID_LIKE=debian\nVERSION_CODENAME=faye\nDEBIAN_CODENAME=bookworm\n',
  fedora: "NAME='Fedora Linux'\nPRETTY_NAME='Fedora Linux 42'\nID=fedora\n",
  suse: 'PRETTY_NAME="openSUSE Tumbleweed"\nID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n',
};

const STANZA = `Types: deb
# a comment
URIs: https://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`;

function policy(candidate: string, table: readonly (readonly [version: string, release: string])[]): string {
  const rows = table.map(
    ([version, release], index) =>
      ` ${index === 0 ? '***' : '   '} ${version} 500\n        500 https://mirror.example/debian ${release}/main amd64 Packages\n`,
  );
  return `mesa-vulkan-drivers:\n  Installed: (none)\n  Candidate: ${candidate}\n  Version table:\n${rows.join('')}`;
}

const OLD = policy('22.3.6-1+deb12u2', [['22.3.6-1+deb12u2', 'bookworm']]);
const BOTH = policy('22.3.6-1+deb12u2', [
  ['25.0.7-2~bpo12+1', 'bookworm-backports'],
  ['22.3.6-1+deb12u2', 'bookworm'],
]);

function facts(os: keyof typeof OS, changes: Partial<Facts> = {}): Facts {
  return {
    platform: 'linux',
    osRelease: parseOsRelease(OS[os]),
    manager: 'apt',
    rights: 'root',
    aptSources: parseAptSources('debian.sources', STANZA),
    policy: OLD,
    ...changes,
  };
}

describe('on Debian 12', () => {
  test('backports come from the mirror the machine uses already', () => {
    expect(planDriver(facts('bookworm'))).toEqual({
      kind: 'apt',
      release: 'bookworm-backports',
      sourceLine:
        'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://mirror.example/debian bookworm-backports main',
    });
    expect(installCommand('bookworm-backports').join(' ')).toBe(
      'apt-get install -y --no-install-recommends --no-remove -t bookworm-backports libvulkan1 mesa-vulkan-drivers',
    );
  });

  test('a derivative that names its Debian counts', () => {
    expect(planDriver(facts('lmde'))).toMatchObject({ kind: 'apt', release: 'bookworm-backports' });
  });

  test('no source is added where backports are configured', () => {
    const aptSources = parseAptSources(
      'debian.sources',
      STANZA.replace('bookworm-updates', 'bookworm-backports'),
    );
    expect(planDriver(facts('bookworm', { aptSources }))).toEqual({
      kind: 'apt',
      release: 'bookworm-backports',
      sourceLine: null,
    });
  });

  test('nothing is taken from backports where the system offers enough, as Raspberry Pi OS does', () => {
    const recent = policy('24.2.8-1~bpo12+rpt3', [['24.2.8-1~bpo12+rpt3', 'bookworm']]);
    expect(planDriver(facts('bookworm', { policy: recent }))).toEqual({
      kind: 'apt',
      release: null,
      sourceLine: null,
    });
  });

  test('without rights there is one command to type, with the same mirror', () => {
    const plan = planDriver(facts('bookworm', { rights: 'none' }));
    expect(plan).toMatchObject({ kind: 'stop' });
    const command = plan.kind === 'stop' ? plan.command : null;
    expect(command).toContain(
      `https://mirror.example/debian bookworm-backports main' | sudo tee ${BACKPORTS_LIST} && `,
    );
    expect(command).toContain(
      'sudo apt-get install -y --no-install-recommends --no-remove -t bookworm-backports libvulkan1',
    );
    expect(command).not.toContain('\n');
  });

  test('without a mirror to copy, even root gets the command and nothing is changed', () => {
    const plan = planDriver(facts('bookworm', { aptSources: [] }));
    expect(plan).toMatchObject({
      kind: 'stop',
      command: expect.stringContaining('bookworm-backports main') as string,
    });
  });
});

describe('elsewhere', () => {
  test.each(['trixie', 'noble'] as const)('on %s the system itself has the driver', (os) => {
    const recent = policy('25.0.7-2', [['25.0.7-2', os]]);
    for (const rights of ['root', 'sudo'] as const) {
      const plan = planDriver(facts(os, { policy: recent, rights }));
      expect(plan).toEqual({ kind: 'apt', release: null, sourceLine: null });
    }
    // A fresh container has no package lists yet.
    expect(planDriver(facts(os, { policy: '' }))).toEqual({ kind: 'apt', release: null, sourceLine: null });
    expect(planDriver(facts(os, { policy: '', rights: 'none' }))).toMatchObject({
      command:
        'sudo apt-get update && sudo apt-get install -y --no-install-recommends --no-remove libvulkan1 mesa-vulkan-drivers',
    });
  });

  test('a system that is too old is told so, and the version it offers', () => {
    const jammy = policy('23.2.1-1ubuntu3', [['23.2.1-1ubuntu3', 'jammy']]);
    const plan = planDriver(facts('jammy', { policy: jammy, rights: 'none' }));
    expect(plan).toEqual({
      kind: 'stop',
      why: expect.stringContaining('Mesa 23.2.1') as string,
      command: null,
    });
    expect(offerProblem(jammy, null, 'Ubuntu 22.04')).toContain('Mesa 23.2.1-1ubuntu3');
  });

  test.each([
    ['dnf', 'fedora', 'sudo dnf install'],
    ['zypper', 'suse', 'sudo zypper install'],
    ['pacman', 'fedora', 'sudo pacman -S'],
    ['apk', 'fedora', 'sudo apk add'],
  ] as const)('%s gets its own command, and is never run', (manager, os, start) => {
    const plan = planDriver(facts(os, { manager }));
    expect(plan).toMatchObject({ kind: 'stop', command: expect.stringContaining(start) as string });
  });

  test('systems without a driver to install say what is missing', () => {
    for (const platform of ['darwin', 'win32', 'freebsd']) {
      const plan = planDriver(facts('noble', { platform }));
      expect(plan).toMatchObject({ kind: 'stop', command: null });
    }
    expect(planDriver(facts('noble', { manager: null }))).toMatchObject({ kind: 'stop', command: null });
  });
});

test('the package manager is the distribution’s own where it is installed', () => {
  const all = () => true;
  expect(packageManager(parseOsRelease(OS.fedora), all)).toBe('dnf');
  expect(packageManager(parseOsRelease(OS.suse), all)).toBe('zypper');
  expect(packageManager(parseOsRelease(OS.noble), all)).toBe('apt');
  expect(packageManager(parseOsRelease('ID=void\n'), (program) => program === 'apk')).toBe('apk');
  expect(packageManager(parseOsRelease(OS.noble), () => false)).toBeNull();
});

test('the offered version is the candidate, or that of the release asked for', () => {
  expect(offeredVersion(BOTH, null)).toBe('22.3.6-1+deb12u2');
  expect(offeredVersion(BOTH, 'bookworm-backports')).toBe('25.0.7-2~bpo12+1');
  expect(offeredVersion(OLD, 'bookworm-backports')).toBeNull();
  expect(offeredVersion('mesa-vulkan-drivers:\n  Candidate: (none)\n', null)).toBeNull();
  expect(offerProblem(BOTH, 'bookworm-backports', 'Debian 12')).toBeNull();
  expect(offerProblem(OLD, 'bookworm-backports', 'Debian 12')).toContain('offers no mesa-vulkan-drivers');
  expect(offerProblem(BOTH, null, 'Debian 12')).toContain('Mesa 22.3.6');
});

test('the major version is read past an epoch', () => {
  expect(majorVersion('1:25.0.7-2~bpo12+1')).toBe(25);
  expect(majorVersion('24.2.8-1ubuntu1~24.04.1')).toBe(24);
  expect(majorVersion(null)).toBeNull();
});

test('the variables that choose drivers are named with their values, and empty ones ignored', () => {
  const overrides = driverOverrides({ VK_DRIVER_FILES: '/nowhere', VK_ICD_FILENAMES: '', HOME: '/home/me' });
  expect(overrides).toEqual([{ name: 'VK_DRIVER_FILES', text: 'VK_DRIVER_FILES=/nowhere' }]);
});
