// Turns logits[row, vocabulary] into d(loss)/d(logits) in place, and gives each row's loss and metrics.
// The clipped policy-gradient loss (Schulman et al., "Proximal policy optimization algorithms", 2017) with GRPO's
// per-token form and the k3 estimator of the KL to a reference (Shao et al., "DeepSeekMath", 2024):
//   loss = weight · (−min(ratio·A, clip(ratio, 1−clip_low, 1+clip_high)·A) + kl_coefficient · (e^δ − δ − 1))
// with ratio = exp(logprob − old_logprob), δ = ref_logprob − logprob. Which tokens are kept counts as constant.
// With CROSS_ENTROPY 1 the loss is −weight · logprob instead (supervised training).
//!use sampled
struct Params {
  vocabulary: u32,
  row_start: u32,    // first of the loss rows
  logits_start: u32, // its row of the logits
  clip_low: f32,
  clip_high: f32,
  kl_coefficient: f32,
}

override CROSS_ENTROPY: u32 = 0u;

struct LossRow {
  weight: f32, // 0: the row trains nothing, its metrics are (0, 1, 0, 0)
  advantage: f32,
  old_logprob: f32,
  ref_logprob: f32,
}

struct LossMetrics {
  loss: f32,
  ratio: f32,
  clipped: f32,
  kl: f32,
}

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> loss_rows: array<LossRow>;
@group(0) @binding(1) var<storage, read> sampled: array<Sampled>;
@group(0) @binding(2) var<storage, read> stats: array<RowStats>;
@group(0) @binding(3) var<storage, read_write> logits: array<f32>;
@group(0) @binding(4) var<storage, read_write> metrics: array<LossMetrics>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.vocabulary) {
    return;
  }
  let row = params.row_start + id.y;
  let target_row = loss_rows[row];
  let at = (params.logits_start + id.y) * params.vocabulary + id.x;
  if (target_row.weight == 0.0) {
    // Its other numbers may be anything: zero times infinity must not get in.
    logits[at] = 0.0;
    if (id.x == 0u) {
      metrics[row] = LossMetrics(0.0, 1.0, 0.0, 0.0);
    }
    return;
  }
  let score = sampled[row];
  let distribution = stats[row];
  var ratio = 1.0;
  var clipped = 0.0;
  var kl = 0.0;
  var loss = -score.logprob;
  var slope = -1.0; // d(loss)/d(logprob) before the weight
  if (CROSS_ENTROPY == 0u) {
    ratio = exp(score.logprob - target_row.old_logprob);
    let free = ratio * target_row.advantage;
    let bounded = clamp(ratio, 1.0 - params.clip_low, 1.0 + params.clip_high) * target_row.advantage;
    loss = -min(free, bounded);
    slope = -free;
    if (bounded < free) {
      clipped = 1.0;
      slope = 0.0;
    }
    if (params.kl_coefficient != 0.0) {
      let apart = target_row.ref_logprob - score.logprob;
      kl = exp(apart) - apart - 1.0;
      loss = fma(params.kl_coefficient, kl, loss);
      slope = fma(params.kl_coefficient, 1.0 - exp(apart), slope);
    }
  }
  let z = logits[at] * distribution.inverse_temperature;
  let is_token = id.x == score.token;
  var probability = 0.0;
  if (z >= distribution.threshold || is_token) {
    probability = exp(z - distribution.logsumexp);
  }
  logits[at] = target_row.weight * slope * (select(0.0, 1.0, is_token) - probability) * distribution.inverse_temperature;
  if (id.x == 0u) {
    metrics[row] = LossMetrics(target_row.weight * loss, ratio, clipped, kl);
  }
}
