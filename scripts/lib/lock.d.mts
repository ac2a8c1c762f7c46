export function withLock<T>(path: string, waitMsMax: number, action: () => Promise<T>): Promise<T>;
