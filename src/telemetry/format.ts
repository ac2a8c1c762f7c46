/** Numbers as people read them. A missing number is an en dash. */
const MISSING = '–';
const GROUPED = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

/** Three significant digits below a thousand, grouped whole numbers above. */
export function numberText(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return MISSING;
  if (Math.abs(value) >= 999.5) return GROUPED.format(value);
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

/** A reward or a share: two digits after the point, so that columns line up. */
export function scoreText(value: number | null): string {
  return value === null || !Number.isFinite(value) ? MISSING : value.toFixed(2);
}

/** One digit after the point. What is not quite nothing is not called 0 %. */
export function percentText(share: number): string {
  if (share > 0 && share < 0.0005) return '<0.1 %';
  return `${Number((100 * share).toFixed(1))} %`;
}

/** One digit after the point, rounded down: what is not quite all is not called 100 %. */
export function cautiousPercentText(share: number): string {
  return percentText(Math.floor(1000 * share + 1e-9) / 1000);
}

/** Seconds from one on. What is not quite nothing is less than a microsecond, and not a power of ten. */
export function msText(ms: number | null): string {
  if (ms === null || !Number.isFinite(ms)) return MISSING;
  if (ms > 0 && ms < 0.001) return '<0.001 ms';
  return ms >= 999.5 ? `${numberText(ms / 1000)} s` : `${numberText(ms)} ms`;
}

export function secondsText(seconds: number): string {
  if (seconds < 119.5) return `${numberText(seconds)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  return minutes < 60
    ? `${minutes} min ${whole % 60} s`
    : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Bytes in powers of 1000, as disks and links count them. */
export function bytesText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let scaled = bytes;
  let unit = 0;
  while (scaled >= 999.5 && unit < units.length - 1) {
    scaled /= 1000;
    unit++;
  }
  return `${numberText(scaled)} ${units[unit] ?? ''}`;
}
