export function outputsOf(path: string): string[];
export function staleOutputs(sources: readonly string[], built: readonly string[]): string[];
export function ensureBuilt(root: string): Promise<void>;
