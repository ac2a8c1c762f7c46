// Draws one token a row from its distribution (see lib/distribution.wgsl), or scores a given one, and gives its
// log-probability under that distribution and under the raw logits. The same pipeline serves generation (draw) and
// the trainer (score), so on-policy log-probabilities agree to the bit.
// A draw inverts the cumulative distribution in index order with one uniform number keyed by (sequence, position).
// A dispatch may end before the draw; what it found out waits where the row's results go.
//!prelude LANES: u32
//!use lanes
//!use rows
//!use threefry
//!use distribution
//!use sampled
struct Params {
  rows: u32,
  vocabulary: u32,
  filters: u32,
  row_start: u32,    // first of the sample rows
  logits_start: u32, // its row of the logits
  pass_start: u32,   // the passes of this dispatch: pass_start … pass_end
  pass_end: u32,
}

struct SampleRow {
  slot: u32,
  position: u32,
  given: u32,  // NONE: draw
  serial: u32, // of the sequence: a slot is done for the serial it holds, so a new sequence needs no reset
}

const STOPPED = 1u;
const ALREADY_DONE = 2u;

var<immediate> params: Params;
@group(0) @binding(0) var<storage, read> sample_rows: array<SampleRow>;
@group(0) @binding(1) var<storage, read> sampling: array<Sampling>;
@group(0) @binding(2) var<storage, read> stops: array<u32>;
@group(0) @binding(3) var<storage, read> logits: array<f32>;
@group(0) @binding(4) var<storage, read_write> slot_tokens: array<u32>;
@group(0) @binding(5) var<storage, read_write> slot_done: array<u32>;
@group(0) @binding(6) var<storage, read_write> sampled: array<Sampled>;
@group(0) @binding(7) var<storage, read_write> stats: array<RowStats>;

var<workgroup> lane_tokens: array<u32, 64>;

// The token of this lane's stretch that the draw falls on, or NONE when it falls on another lane's. Call it when
// lane_values holds the kept mass of every lane's stretch.
fn draw_token(d: Distribution, row_at: u32, wanted: f32, start: u32, end: u32, lane: u32, thread: u32) -> u32 {
  let first = thread / LANES * LANES;
  var before = 0.0;  // mass of the lanes before the owner
  var passed = 0.0;  // mass of the lanes so far
  var owner = LANES; // the last lane with any mass, if rounding leaves the wanted mass beyond them all
  for (var other = 0u; other < LANES; other++) {
    let mass = lane_values[first + other];
    if (mass > 0.0) {
      owner = other;
      before = passed;
      passed += mass;
      if (passed > wanted) {
        break;
      }
    }
  }
  var token = NONE;
  if (lane == owner) {
    for (var i = start; i < end; i++) {
      let z = scaled_logit(i, row_at, d.inverse_temperature);
      if (z >= d.threshold) {
        token = i;
        before += exp(z - d.largest);
        if (before > wanted) {
          break;
        }
      }
    }
  }
  return token;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let wanted_row = group.x * ROWS_PER_GROUP + thread / LANES;
  let local_row = min(wanted_row, params.rows - 1u);
  let row = params.row_start + local_row;
  let lane = thread % LANES;
  let request = sample_rows[row];
  let s = sampling[request.slot];
  let row_at = (params.logits_start + local_row) * params.vocabulary;
  var known: Distribution;
  if (params.pass_start > 0u) {
    known.threshold = stats[row].threshold;
    known.cut = sampled[row].token;
    known.largest_logit = sampled[row].logprob;
    known.wanted = sampled[row].raw_logprob;
  }
  let passes = vec2u(params.pass_start, params.pass_end);
  let d = find_distribution(known, s, row_at, params.vocabulary, params.filters, passes, lane, thread);
  if (params.pass_end <= DRAW) {
    storageBarrier(); // all lanes have read what is known before one writes over it
    if (lane == 0u && wanted_row < params.rows) {
      stats[row].threshold = d.threshold;
      sampled[row] = Sampled(d.cut, d.largest_logit, d.wanted, 0u);
    }
    return;
  }

  // Each lane takes a stretch of neighbouring tokens, so that the lanes' masses in order are the tokens' in order.
  let stretch = (params.vocabulary + LANES - 1u) / LANES;
  let start = min(lane * stretch, params.vocabulary);
  let end = min(start + stretch, params.vocabulary);
  var raw_mass = 0.0;
  var mass = 0.0;
  var moment = 0.0;
  var token = NONE;
  for (var i = start; i < end; i++) {
    let logit = logits[row_at + i];
    raw_mass += exp(logit - d.largest_logit);
    let z = logit * d.inverse_temperature;
    if (z >= d.threshold) {
      let weight = exp(z - d.largest);
      mass += weight;
      moment = fma(weight, z - d.largest, moment);
    }
    if (token == NONE && logit == d.largest_logit) {
      token = i;
    }
  }
  let raw_logsumexp = d.largest_logit + log(lanes_sum(raw_mass, thread));
  let kept_moment = lanes_sum(moment, thread);
  let kept = lanes_sum(mass, thread);
  if (s.temperature != 0.0) {
    let random = threefry2x32(vec2u(s.key_low, s.key_high), vec2u(request.position, 0u));
    token = draw_token(d, row_at, uniform_open(random.x) * kept, start, end, lane, thread);
  }
  lane_tokens[thread] = token;
  workgroupBarrier();
  if (lane != 0u || wanted_row >= params.rows) {
    return;
  }
  if (request.given != NONE) {
    token = request.given;
  } else {
    for (var other = 1u; other < LANES; other++) {
      token = min(token, lane_tokens[thread + other]);
    }
    // Logits that are not numbers keep no token: some token is taken then, and its log-probability shows it.
    token = min(token, params.vocabulary - 1u);
  }
  let token_logit = scaled_logit(token, row_at, d.inverse_temperature);
  // A given token may lie below the threshold of the weights it is scored under: it counts all the same.
  let total = kept + select(exp(token_logit - d.largest), 0.0, token_logit >= d.threshold);
  let logsumexp = d.largest + log(total);
  stats[row] = RowStats(d.threshold, logsumexp, log(kept) - kept_moment / kept, d.inverse_temperature);
  var flags = 0u;
  if (request.given == NONE) {
    if (slot_done[request.slot] == request.serial) {
      flags = ALREADY_DONE;
    }
    for (var i = 0u; i < s.stop_count; i++) {
      if (stops[s.stop_start + i] == token) {
        flags |= STOPPED;
        slot_done[request.slot] = request.serial;
      }
    }
    slot_tokens[request.slot] = token;
  }
  sampled[row] = Sampled(
    token,
    token_logit - logsumexp,
    logits[row_at + token] - raw_logsumexp,
    flags,
  );
}
