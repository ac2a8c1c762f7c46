import { assert } from '../lib/assert.js';

/** Something a heap can find again: it keeps its own place there, −1 while it is in none. */
export interface HeapItem {
  place: number;
}

/** A binary heap whose items can be taken out or moved from anywhere. Equal items leave in no certain order. */
export class Heap<Item extends HeapItem> {
  readonly #items: Item[] = [];

  constructor(private readonly isBefore: (a: Item, b: Item) => boolean) {}

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
    item.place = this.#items.length;
    this.#items.push(item);
    this.#rise(item);
  }

  remove(item: Item): void {
    assert(this.#items[item.place] === item, 'it is not in this heap');
    const { place } = item;
    const last = this.#items.pop();
    item.place = -1;
    if (last === undefined || last === item) return;
    this.#items[place] = last;
    last.place = place;
    this.#rise(last);
    this.#sink(last);
  }

  /** An item that comes before or after others than it did goes to its new place. */
  moved(item: Item): void {
    assert(this.#items[item.place] === item, 'it is not in this heap');
    this.#rise(item);
    this.#sink(item);
  }

  #rise(item: Item): void {
    const items = this.#items;
    let { place } = item;
    while (place > 0) {
      const above = (place - 1) >> 1;
      const parent = items[above];
      if (parent === undefined || !this.isBefore(item, parent)) break;
      items[place] = parent;
      parent.place = place;
      place = above;
    }
    items[place] = item;
    item.place = place;
  }

  #sink(item: Item): void {
    const items = this.#items;
    let { place } = item;
    for (;;) {
      let below = 2 * place + 1;
      let child = items[below];
      if (child === undefined) break;
      const right = items[below + 1];
      if (right !== undefined && this.isBefore(right, child)) {
        child = right;
        below++;
      }
      if (!this.isBefore(child, item)) break;
      items[place] = child;
      child.place = place;
      place = below;
    }
    items[place] = item;
    item.place = place;
  }
}
