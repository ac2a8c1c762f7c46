/** Files write keys_like_this, code writes keysLikeThis; the same names either way, so one is made from the other. */
export type CamelCase<Key extends string> = Key extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : Key;

/** A configuration's type with its keys in camel case, read-only throughout. What stands under `options` is kept. */
export type CamelKeys<T> = T extends readonly (infer Item)[]
  ? readonly CamelKeys<Item>[]
  : T extends object
    ? {
        readonly [Key in keyof T as Key extends string ? CamelCase<Key> : never]: Key extends 'options'
          ? T[Key]
          : CamelKeys<T[Key]>;
      }
    : T;

type Rename = (key: string) => string;

const toCamel: Rename = (key) => key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
const toSnake: Rename = (key) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function renameKeys(value: unknown, rename: Rename): unknown {
  if (Array.isArray(value)) return value.map((item) => renameKeys(item, rename));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [
      rename(key),
      // A task's options are its own affair, keys included.
      key === 'options' ? member : renameKeys(member, rename),
    ]),
  );
}

/** Keys to camel case, all the way down. */
export function camelKeys<T>(value: T): CamelKeys<T> {
  // The type above says of each key what `toCamel` does to it; a compiler cannot see the two agree.
  return renameKeys(value, toCamel) as CamelKeys<T>;
}

/** Keys back to the case of files. */
export function snakeKeys(value: object): object {
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [toSnake(key), renameKeys(member, toSnake)]),
  );
}
