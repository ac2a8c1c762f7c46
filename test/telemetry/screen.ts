const ESCAPE = '\x1b';
const TOKEN = new RegExp(`${ESCAPE}\\[[?\\d;]*[A-Za-z]|[^${ESCAPE}]`, 'gs');
const COMMAND = new RegExp(`^${ESCAPE}\\[([?\\d;]*)([A-Za-z])$`);

/** What a terminal shows after this output: the control sequences live progress uses, and no others. */
export function screenOf(output: string): string[] {
  const rows: string[] = [''];
  let row = 0;
  let column = 0;
  for (const [token] of output.matchAll(TOKEN)) {
    const command = COMMAND.exec(token);
    if (!command) {
      if (token === '\n') [row, column] = [row + 1, 0];
      else if (token === '\r') column = 0;
      else {
        const line = (rows[row] ?? '').padEnd(column);
        rows[row] = line.slice(0, column) + token + line.slice(column + 1);
        column++;
      }
    } else if (command[2] === 'A') row = Math.max(0, row - Number(command[1] || 1));
    else if (command[2] === 'G') column = Number(command[1] || 1) - 1;
    else if (command[2] === 'K') rows[row] = '';
    else if (!['h', 'l', 'm'].includes(command[2] ?? ''))
      throw new Error(`no terminal for ${JSON.stringify(token)}`);
    for (let fill = rows.length; fill <= row; fill++) rows[fill] = '';
  }
  return rows.map((line) => line.trimEnd()).filter((line) => line !== '');
}
