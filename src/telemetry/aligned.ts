const GAP = '  ';

/** A table as lines of text: the first columns lean left, those of numbers right. */
export function aligned(rows: readonly (readonly string[])[], leftColumns = 1): string[] {
  const count = Math.max(...rows.map((row) => row.length));
  const widths = Array.from({ length: count }, (_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows.map((row) =>
    row
      .map((text, column) =>
        column < leftColumns ? text.padEnd(widths[column] ?? 0) : text.padStart(widths[column] ?? 0),
      )
      .join(GAP)
      .trimEnd(),
  );
}
