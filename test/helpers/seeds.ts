/**
 * Seeds of a randomised test: 1 to `count`, so few that the whole suite stays quick. With the environment variable
 * OFFBEAT_SEEDS as another number there are that many: what passes 1 seed is to pass 20.
 *
 * @throws Error when the variable is no whole number above 0.
 */
export function seeds(count = 1): number[] {
  const wanted = process.env['OFFBEAT_SEEDS'] ?? String(count);
  if (!/^[1-9]\d*$/.test(wanted))
    throw new Error(`OFFBEAT_SEEDS is "${wanted}": give a whole number above 0`);
  return Array.from({ length: Number(wanted) }, (_, index) => index + 1);
}
