// What the sampling kernel leaves for each row: the token drawn or scored, and what the loss needs to know of its
// distribution.
struct Sampled {
  token: u32,
  logprob: f32,
  raw_logprob: f32,
  flags: u32,
}

struct RowStats {
  threshold: f32,
  logsumexp: f32, // of the kept scaled logits, the given token always counted
  entropy: f32,   // of the kept distribution, without a given token that it does not keep, in nats
  inverse_temperature: f32,
}
