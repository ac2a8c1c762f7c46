import type { EngineOptions } from '../engine/webgpu-engine.js';
import { kvBlockBytes } from '../kernels/kv-cache.js';
import { UserError } from '../lib/errors.js';
import type { ModelConfig } from '../model/config.js';
import type { ParamLayout } from '../model/layout.js';

export interface DeviceNeeds {
  readonly config: ModelConfig;
  readonly layout: ParamLayout;
  readonly engine: EngineOptions;
  /** Tokens of one micro-batch of the trainer. */
  readonly trainerRows: number;
}

/**
 * Compares the largest buffers that an engine and a trainer bind whole with what the adapter binds at most. (Logits
 * are made in pieces that fit.)
 *
 * @throws UserError that names the key to lower.
 */
export function checkDeviceLimits(needs: DeviceNeeds, bindingBytesMax: number): void {
  const { config, layout, engine, trainerRows } = needs;
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim } = config;
  const widest = Math.max(2 * intermediateSize, hiddenSize, (heads + 2 * kvHeads) * headDim);
  const buffers = [
    {
      what: 'a bucket of the weights',
      bytes: 4 * Math.max(...layout.bucketElements),
      remedy: 'use another adapter',
    },
    {
      what: `the cache of one layer, ${engine.kvBlocks} blocks,`,
      bytes: engine.kvBlocks * kvBlockBytes(config),
      remedy: 'lower engine.slots or engine.kv_blocks',
    },
    {
      what: `a batch of ${engine.batchTokensMax} tokens`,
      bytes: engine.batchTokensMax * widest * 4,
      remedy: 'lower engine.batch_tokens',
    },
    {
      what: `a micro-batch of ${trainerRows} tokens`,
      bytes: trainerRows * widest * 4,
      remedy: 'lower optimizer.micro_batch_tokens',
    },
  ];
  const over = buffers.find(({ bytes }) => bytes > bindingBytesMax);
  if (over === undefined) return;
  throw new UserError(
    `${over.what} takes ${over.bytes} bytes, the adapter binds at most ${bindingBytesMax} (maxStorageBufferBindingSize): ${over.remedy}`,
  );
}
