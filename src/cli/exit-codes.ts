export const EXIT_OK = 0;
/** A bug in Offbeat. */
export const EXIT_BUG = 1;
/** Something the user can mend. */
export const EXIT_USER = 2;
/** 128 + SIGINT, as shells count. */
export const EXIT_INTERRUPTED = 130;
