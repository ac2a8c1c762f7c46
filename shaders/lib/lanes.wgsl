// Reductions among the LANES threads that share a row (8 or 64); 64 / LANES rows share a workgroup. Partial results
// are combined in lane order, by eights and then the eights, so the result depends on the row alone. All threads of
// the workgroup must call these. Afterwards lane_values still holds every thread's own value.
const ROWS_PER_GROUP = 64u / LANES;
const EIGHTS = LANES / 8u;
var<workgroup> lane_values: array<f32, 64>;
var<workgroup> eight_values: array<f32, 8>;

fn lanes_sum(value: f32, thread: u32) -> f32 {
  workgroupBarrier();
  lane_values[thread] = value;
  workgroupBarrier();
  let first = thread / 8u * 8u;
  var total = 0.0;
  for (var lane = 0u; lane < 8u; lane++) {
    total += lane_values[first + lane];
  }
  if (EIGHTS > 1u) {
    if (thread % 8u == 0u) {
      eight_values[thread / 8u] = total;
    }
    workgroupBarrier();
    total = 0.0;
    for (var eight = 0u; eight < EIGHTS; eight++) {
      total += eight_values[eight];
    }
  }
  return total;
}

fn lanes_max(value: f32, thread: u32) -> f32 {
  workgroupBarrier();
  lane_values[thread] = value;
  workgroupBarrier();
  let first = thread / 8u * 8u;
  var largest = lane_values[first];
  for (var lane = 1u; lane < 8u; lane++) {
    largest = max(largest, lane_values[first + lane]);
  }
  if (EIGHTS > 1u) {
    if (thread % 8u == 0u) {
      eight_values[thread / 8u] = largest;
    }
    workgroupBarrier();
    largest = eight_values[0];
    for (var eight = 1u; eight < EIGHTS; eight++) {
      largest = max(largest, eight_values[eight]);
    }
  }
  return largest;
}
