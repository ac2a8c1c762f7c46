import { assert } from '../lib/assert.js';

/** Something a heap can find again: it keeps its own place there, −1 while it is in none. */
export interface HeapItem {
  place: number;
  /** The smallest comes first; of equals, that with the smallest tie. Neither may change without `moved`. */
  readonly key: number;
  readonly tie: number;
}

/**
 * A binary heap whose items can be taken out or moved from anywhere. Keys lie beside the items in lists of their own,
 * so that comparing touches no item.
 */
export class Heap<Item extends HeapItem> {
  readonly #items: Item[] = [];
  readonly #keys: number[] = [];
  readonly #ties: number[] = [];

  get size(): number {
    return this.#items.length;
  }

  /** In no certain order, but always the same after the same calls. */
  get items(): readonly Item[] {
    return this.#items;
  }

  peek(): Item | undefined {
    return this.#items[0];
  }

  push(item: Item): void {
    assert(item.place === -1, 'it is in a heap already');
    this.#rise(item, this.#items.length);
  }

  remove(item: Item): void {
    assert(this.#items[item.place] === item, 'it is not in this heap');
    const { place } = item;
    const last = this.#items.pop();
    this.#keys.pop();
    this.#ties.pop();
    item.place = -1;
    if (last === undefined || last === item) return;
    if (!this.#rise(last, place)) this.#sink(last, place);
  }

  /** An item that comes before or after others than it did goes to its new place. */
  moved(item: Item): void {
    assert(this.#items[item.place] === item, 'it is not in this heap');
    const { place } = item;
    if (!this.#rise(item, place)) this.#sink(item, place);
  }

  /** Puts the item where it belongs at or above a place that is free; true if that is above. */
  #rise(item: Item, free: number): boolean {
    const items = this.#items;
    const { key, tie } = item;
    let place = free;
    while (place > 0) {
      const above = (place - 1) >> 1;
      const parent = items[above];
      const aboveKey = this.#keys[above] ?? 0;
      if (parent === undefined || aboveKey < key || (aboveKey === key && (this.#ties[above] ?? 0) < tie))
        break;
      this.#put(parent, place, aboveKey, this.#ties[above] ?? 0);
      place = above;
    }
    this.#put(item, place, key, tie);
    return place < free;
  }

  #sink(item: Item, free: number): void {
    const { key, tie } = item;
    let place = free;
    for (;;) {
      const below = this.#firstBelow(place);
      const child = this.#items[below];
      if (child === undefined) break;
      const childKey = this.#keys[below] ?? 0;
      const childTie = this.#ties[below] ?? 0;
      if (key < childKey || (key === childKey && tie <= childTie)) break;
      this.#put(child, place, childKey, childTie);
      place = below;
    }
    this.#put(item, place, key, tie);
  }

  /** Which of the two below a place comes first. */
  #firstBelow(place: number): number {
    const left = 2 * place + 1;
    const right = left + 1;
    if (right >= this.#items.length) return left;
    const leftKey = this.#keys[left] ?? 0;
    const rightKey = this.#keys[right] ?? 0;
    if (leftKey !== rightKey) return leftKey < rightKey ? left : right;
    return (this.#ties[left] ?? 0) < (this.#ties[right] ?? 0) ? left : right;
  }

  #put(item: Item, place: number, key: number, tie: number): void {
    this.#items[place] = item;
    this.#keys[place] = key;
    this.#ties[place] = tie;
    item.place = place;
  }
}
