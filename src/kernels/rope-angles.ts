import type { ModelConfig } from '../model/config.js';

/**
 * (cos, sin) of every rotation: [positions, headDim / 2, 2] float32, computed in float64 because a GPU's own sine
 * is only good near zero. Angle of pair i at position p: p · theta^(−2i / headDim) (Su et al., "RoFormer", 2021).
 */
export function ropeAngles(
  config: Pick<ModelConfig, 'headDim' | 'ropeTheta'>,
  positions: number,
): Float32Array<ArrayBuffer> {
  const half = config.headDim / 2;
  const angles = new Float32Array(positions * half * 2);
  for (let pair = 0; pair < half; pair++) {
    const frequency = config.ropeTheta ** ((-2 * pair) / config.headDim);
    for (let position = 0; position < positions; position++) {
      const at = (position * half + pair) * 2;
      angles[at] = Math.cos(position * frequency);
      angles[at + 1] = Math.sin(position * frequency);
    }
  }
  return angles;
}
