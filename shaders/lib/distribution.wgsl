// The distribution a token is drawn from: logits over temperature, then min_p, top_k and top_p as one threshold on
// the scaled logit. Generation and the loss both use this text, so both sides of a ratio see the same distribution.
// Ties at the threshold are kept. The k-th largest value and the top_p cut are found exactly, bit by bit, over an
// order-preserving map from floats to integers: no sorting, and cost independent of k and p.
struct Sampling {
  temperature: f32, // 0: greedy, scored at temperature 1 without filters
  top_p: f32,       // 1: off
  min_p: f32,       // 0: off
  top_k: u32,       // 0: off
  key_low: u32,
  key_high: u32,
  stop_start: u32,  // the ids in `stops` that end the sequence
  stop_count: u32,
}

const USES_TOP_K = 1u;
const USES_TOP_P = 2u;

// The passes over the vocabulary, so that a dispatch may end after any of them: the largest logit, a pass a bit of the
// k-th largest value, the kept mass, a pass a bit of the top_p cut, and the draw, which is the caller's.
const FIRST_TOP_K = 1u;
const MASS = 33u;
const FIRST_TOP_P = 34u;
const DRAW = 66u;

fn ordered_bits(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

fn value_of_ordered(ordered: u32) -> f32 {
  return bitcast<f32>(select(~ordered, ordered & 0x7fffffffu, (ordered & 0x80000000u) != 0u));
}

// What is known of a row's distribution: after the last pass before the draw, all of it.
struct Distribution {
  inverse_temperature: f32,
  largest_logit: f32,
  largest: f32,   // of the scaled logits
  threshold: f32, // scaled logits at or above it are kept
  cut: u32,       // of the ordered bits searched for, those found so far
  wanted: f32,    // mass that top_p keeps at the least
}

fn scaled_logit(index: u32, row_at: u32, inverse_temperature: f32) -> f32 {
  return logits[row_at + index] * inverse_temperature;
}

// Mass of the kept tokens whose ordered bits are `least` or more.
fn mass_from(least: u32, d: Distribution, row_at: u32, vocabulary: u32, lane: u32, thread: u32) -> f32 {
  var mass = 0.0;
  for (var i = lane; i < vocabulary; i += LANES) {
    let z = scaled_logit(i, row_at, d.inverse_temperature);
    mass += select(0.0, exp(z - d.largest), z >= d.threshold && ordered_bits(z) >= least);
  }
  return lanes_sum(mass, thread);
}

// Adds to what is `known` what the passes from passes.x to before passes.y find. `filters` is the same for the whole
// dispatch: a row without a filter gets the same bits either way. The bits to search are not a constant, lest a
// compiler writes the searches out 32 times (seconds of compiling on a CPU).
fn find_distribution(
  known: Distribution,
  s: Sampling,
  row_at: u32,
  vocabulary: u32,
  filters: u32,
  passes: vec2u,
  lane: u32,
  thread: u32,
) -> Distribution {
  var d = known;
  let greedy = s.temperature == 0.0;
  d.inverse_temperature = select(1.0 / s.temperature, 1.0, greedy);
  if (passes.x == 0u) {
    var largest = -3.0e38;
    for (var i = lane; i < vocabulary; i += LANES) {
      largest = max(largest, logits[row_at + i]);
    }
    d.largest_logit = lanes_max(largest, thread);
  }
  d.largest = d.largest_logit * d.inverse_temperature; // rounding keeps the order: no scaled logit is larger
  if (passes.x == 0u) {
    d.threshold = -3.0e38;
    if (!greedy && s.min_p > 0.0) {
      d.threshold = d.largest + log(s.min_p);
    }
  }

  // The largest value that top_k tokens or more reach.
  let top_k_end = select(FIRST_TOP_K, MASS, (filters & USES_TOP_K) != 0u);
  for (var bit = max(passes.x, FIRST_TOP_K); bit < min(passes.y, top_k_end); bit++) {
    let candidate = d.cut | (0x80000000u >> (bit - FIRST_TOP_K));
    var count = 0.0;
    for (var i = lane; i < vocabulary; i += LANES) {
      count += select(0.0, 1.0, ordered_bits(scaled_logit(i, row_at, d.inverse_temperature)) >= candidate);
    }
    if (lanes_sum(count, thread) >= f32(s.top_k)) {
      d.cut = candidate;
    }
  }
  if (passes.x < MASS && passes.y >= MASS) {
    if (top_k_end == MASS && !greedy && s.top_k > 0u && s.top_k < vocabulary) {
      d.threshold = max(d.threshold, value_of_ordered(d.cut));
    }
    d.cut = 0u;
  }

  // The largest value that a share top_p of the mass kept so far, or more, reaches.
  let top_p_end = select(MASS, DRAW, (filters & USES_TOP_P) != 0u);
  if (passes.x <= MASS && min(passes.y, top_p_end) > MASS) {
    d.wanted = s.top_p * mass_from(0u, d, row_at, vocabulary, lane, thread);
  }
  for (var bit = max(passes.x, FIRST_TOP_P); bit < min(passes.y, top_p_end); bit++) {
    let candidate = d.cut | (0x80000000u >> (bit - FIRST_TOP_P));
    if (mass_from(candidate, d, row_at, vocabulary, lane, thread) >= d.wanted) {
      d.cut = candidate;
    }
  }
  if (passes.x < DRAW && min(passes.y, top_p_end) == DRAW && !greedy && s.top_p < 1.0) {
    d.threshold = max(d.threshold, value_of_ordered(d.cut));
  }
  return d;
}
