// Threefry-2x32, 20 rounds: the same function as `threefry2x32` in src/lib/prng.ts.
fn threefry_rotate(x: u32, bits: u32) -> u32 {
  return (x << bits) | (x >> (32u - bits));
}

fn threefry_mix(x: vec2u, bits: u32) -> vec2u {
  let sum = x.x + x.y;
  return vec2u(sum, threefry_rotate(x.y, bits) ^ sum);
}

fn threefry_rounds(start: vec2u, bits: vec4u) -> vec2u {
  return threefry_mix(threefry_mix(threefry_mix(threefry_mix(start, bits.x), bits.y), bits.z), bits.w);
}

fn threefry2x32(key: vec2u, counter: vec2u) -> vec2u {
  let parity = 0x1bd11bdau ^ key.x ^ key.y;
  let even = vec4u(13u, 15u, 26u, 6u);
  let odd = vec4u(17u, 29u, 16u, 24u);
  var x = counter + key;
  x = threefry_rounds(x, even) + vec2u(key.y, parity + 1u);
  x = threefry_rounds(x, odd) + vec2u(parity, key.x + 2u);
  x = threefry_rounds(x, even) + vec2u(key.x, key.y + 3u);
  x = threefry_rounds(x, odd) + vec2u(key.y, parity + 4u);
  x = threefry_rounds(x, even) + vec2u(parity, key.x + 5u);
  return x;
}

// Uniform in the open interval (0, 1): never 0 and never 1. With 23 bits the half is exact; with 24 it would round.
fn uniform_open(word: u32) -> f32 {
  return (f32(word >> 9u) + 0.5) * 1.1920928955078125e-7;
}
