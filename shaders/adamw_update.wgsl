// AdamW with decoupled weight decay (Loshchilov and Hutter, 2019), moments in float32, over a stretch of a flat
// bucket. The gradient is scaled by the global-norm clip factor on the way in. A gradient norm that is not finite
// leaves parameters and moments as they are: the step is skipped, and the host sees the norm.
// correction1 = 1 − beta1^t and correction2 = 1 − beta2^t come from the host in float64.
struct Params {
  start: u32,
  count: u32,
  learning_rate: f32,
  beta1: f32,
  beta2: f32,
  epsilon: f32,
  weight_decay: f32,
  correction1: f32,
  correction2: f32,
  one_minus_beta1: f32,
  one_minus_beta2: f32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> gradients: array<f32>;
@group(0) @binding(1) var<storage, read> clip: array<f32>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> moment1: array<f32>;
@group(0) @binding(4) var<storage, read_write> moment2: array<f32>;

const EXPONENT_BITS = 0x7f800000u; // all of them set: infinite or not a number

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.count || (bitcast<u32>(clip[0]) & EXPONENT_BITS) == EXPONENT_BITS) {
    return;
  }
  let i = params.start + id.x;
  let gradient = gradients[i] * clip[1];
  let m = fma(params.beta1, moment1[i], params.one_minus_beta1 * gradient);
  let v = fma(params.beta2, moment2[i], params.one_minus_beta2 * gradient * gradient);
  moment1[i] = m;
  moment2[i] = v;
  let step = m / params.correction1 / (sqrt(v / params.correction2) + params.epsilon);
  weights[i] -= params.learning_rate * fma(params.weight_decay, weights[i], step);
}
