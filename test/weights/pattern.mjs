/** Element i of version v holds v · 1000 + (i mod 1000) as bits, so that any mixture shows. */
export function fill({ bucketElements }, version) {
  let index = 0;
  return bucketElements.map((elements) => {
    const words = new Uint32Array(elements);
    for (let i = 0; i < elements; i++) words[i] = version * 1000 + (index++ % 1000);
    return new Float32Array(words.buffer);
  });
}

/** Index of the first element that is not that version's; −1 when all are. */
export function tornAt(version, buckets) {
  let index = 0;
  for (const bucket of buckets) {
    for (const word of new Uint32Array(bucket.buffer, bucket.byteOffset, bucket.length)) {
      if (word !== version * 1000 + (index % 1000)) return index;
      index++;
    }
  }
  return -1;
}
