export interface CommandResult {
  /** Null when a signal ended the program or it could not start. */
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class SetupError extends Error {
  constructor(message: string, exitCode?: number);
  readonly exitCode: number;
}
export function say(text: string): void;
export function runCommand(
  argv: readonly string[],
  options: {
    timeoutMs: number;
    cwd?: string;
    env?: Record<string, string | undefined>;
    input?: string;
    shell?: boolean;
  },
): Promise<CommandResult>;
export function outputTail(result: CommandResult, linesMax?: number): string;
export function onPath(program: string): boolean;
