export function wrongPackages(
  wanted: Record<string, { version?: string; optional?: boolean }>,
  installed: Record<string, { version?: string }>,
  exists: (folder: string) => boolean,
): string[];
export function ensurePackages(root: string): Promise<void>;
