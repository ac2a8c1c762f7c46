/** How the learning rate goes over a training run. */
export interface LearningRateSchedule {
  /** Reached at the end of the warm-up. */
  readonly peak: number;
  /** Steps of linear warm-up; 0 starts at the peak. */
  readonly warmupSteps: number;
  /** After the warm-up: stay, or fall along half a cosine to `floor` at `steps` (Loshchilov and Hutter, "SGDR", 2017). */
  readonly decay:
    | { readonly kind: 'constant' }
    | { readonly kind: 'cosine'; readonly steps: number; readonly floor: number };
}

/** The learning rate of a step, counted from 0. */
export function learningRateAt(schedule: LearningRateSchedule, step: number): number {
  const { peak, warmupSteps, decay } = schedule;
  if (step < warmupSteps) return (peak * (step + 1)) / warmupSteps;
  if (decay.kind === 'constant') return peak;
  const progress = Math.min(1, (step - warmupSteps) / Math.max(1, decay.steps - warmupSteps));
  return decay.floor + ((peak - decay.floor) * (1 + Math.cos(Math.PI * progress))) / 2;
}
