import { resolvePretrainConfig } from '../run/config.js';
import { pretrain as pretrainModel } from '../run/pretrain.js';
import { numberText, secondsText } from '../telemetry/format.js';
import { EXIT_OK } from './exit-codes.js';
import { interruptible } from './interrupt.js';
import { result } from './output.js';

export interface PretrainFlags {
  readonly set?: readonly string[];
  readonly out: string;
}

/** `offbeat pretrain`: trains a model from nothing, then says what came of it. */
export async function pretrain(file: string, flags: PretrainFlags): Promise<number> {
  const config = resolvePretrainConfig({ file, set: flags.set ?? [] });
  return interruptible(async (interrupted) => {
    const { steps, loss, parameters, seconds } = await pretrainModel(config, {
      outFolder: flags.out,
      interrupted,
    });
    const lines = [
      ['model', `${numberText(parameters)} parameters in ${flags.out}`],
      ['loss', `${loss.toFixed(4)} nats a token over the last steps`],
      ['ran', `${numberText(steps)} steps in ${secondsText(seconds)}, seed ${config.seed}`],
    ];
    result(lines.map(([name = '', value = '']) => `${name.padEnd(14)}${value}\n`).join(''));
    return EXIT_OK;
  });
}
