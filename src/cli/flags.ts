/** The number a flag's text spells; the text itself when it spells none, so that a complaint can show it. */
export function numberIn(value: string): number | string {
  const number = Number(value);
  return value.trim() === '' || Number.isNaN(number) ? value : number;
}

/** The parts of a flag with commas. */
export function listIn(value: string): string[] {
  return value.split(',').map((part) => part.trim());
}

/** `maxTokens` is `--max-tokens` on the command line. */
export function flagOf(option: string): string {
  return `--${option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}
