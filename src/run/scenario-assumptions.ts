const NAMES_MAX = 4;

/** What was filled in where a scenario says nothing, each once, with the jobs it is about. */
export class Assumptions {
  readonly #notes: string[] = [];
  readonly #byText = new Map<string, Set<string>>();

  /** About the machine. */
  note(text: string): void {
    this.#notes.push(text);
  }

  of(job: string, text: string): void {
    const jobs = this.#byText.get(text) ?? new Set();
    this.#byText.set(text, jobs.add(job));
  }

  lines(): string[] {
    const byJobs = new Map<string, string[]>();
    for (const [text, jobs] of this.#byText) {
      const names = namesText([...jobs]);
      byJobs.set(names, [...(byJobs.get(names) ?? []), text]);
    }
    return [...this.#notes, ...[...byJobs].map(([names, texts]) => `${names}: ${texts.join('; ')}`)];
  }
}

function namesText(names: readonly string[]): string {
  const shown = names.slice(0, NAMES_MAX).join(', ');
  return names.length <= NAMES_MAX ? shown : `${shown} and ${names.length - NAMES_MAX} more`;
}
