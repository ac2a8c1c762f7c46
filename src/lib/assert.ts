/** Stops at once on a bug of our own. Never use it for input a user can get wrong: that is a `UserError`. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}

/** Index into an array where being out of range is a bug. */
export function at<T>(items: ArrayLike<T>, index: number): T {
  const item = items[index];
  if (item === undefined) throw new Error(`assertion failed: index ${index} of ${items.length}`);
  return item;
}
