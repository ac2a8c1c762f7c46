import { assert, at } from '../lib/assert.js';

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
    this.#put(last, place);
    this.#rise(last);
    this.#sink(last);
  }

  #rise(item: Item): void {
    while (item.place > 0) {
      const parent = at(this.#items, (item.place - 1) >> 1);
      if (!this.isBefore(item, parent)) return;
      const { place } = parent;
      this.#put(parent, item.place);
      this.#put(item, place);
    }
  }

  #sink(item: Item): void {
    for (;;) {
      const left = this.#items[2 * item.place + 1];
      const right = this.#items[2 * item.place + 2];
      if (left === undefined) return;
      const child = right !== undefined && this.isBefore(right, left) ? right : left;
      if (!this.isBefore(child, item)) return;
      const { place } = child;
      this.#put(child, item.place);
      this.#put(item, place);
    }
  }

  #put(item: Item, place: number): void {
    this.#items[place] = item;
    item.place = place;
  }
}
