export const NODE_MIN: string;
export function nodeIsRecentEnough(version: string): boolean;
