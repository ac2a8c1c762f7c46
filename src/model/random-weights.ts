import { childKey, seedKey, threefry2x32, type Key } from '../lib/prng.js';
import type { ModelConfig } from './config.js';
import { tensorView, zeroBuckets, type Buckets, type ParamLayout } from './layout.js';

const STANDARD_DEVIATION = 0.02;
const WORDS = 2 ** 32;

/**
 * Fills `target` with normal draws (Box and Muller). One Threefry block gives both uniforms of a pair, which is
 * four times fewer blocks than `Random.normal`; its 32-bit uniforms reach 6.6 standard deviations.
 */
function fillNormal(target: Float32Array, key: Key, deviation: number): void {
  for (let index = 0; index < target.length; index += 2) {
    const [first, second] = threefry2x32(key, [index, 0]);
    const radius = deviation * Math.sqrt(-2 * Math.log((first + 1) / WORDS));
    const angle = (2 * Math.PI * second) / WORDS;
    target[index] = radius * Math.cos(angle);
    if (index + 1 < target.length) target[index + 1] = radius * Math.sin(angle);
  }
}

/**
 * Initial weights as GPT-2 draws them (Radford et al., "Language models are unsupervised multitask learners",
 * 2019): normal with deviation 0.02, the two projections that end in the residual stream divided by √(2 · layers),
 * norm gains 1. Each tensor has a stream of its own, so the weights depend on the seed and the config, not on
 * how the layout cuts buckets.
 */
export function randomWeights(config: ModelConfig, layout: ParamLayout, seed: number): Buckets {
  const buckets = zeroBuckets(layout);
  for (const tensor of layout.tensors) {
    const view = tensorView(buckets, tensor);
    const residual = tensor.name.endsWith('.attentionOut') || tensor.name.endsWith('.down');
    const deviation = STANDARD_DEVIATION / (residual ? Math.sqrt(2 * config.layers) : 1);
    // The tensors without weight decay are the norm gains.
    if (tensor.decay) fillNormal(view, childKey(seedKey(seed), tensor.name), deviation);
    else view.fill(1);
  }
  return buckets;
}
