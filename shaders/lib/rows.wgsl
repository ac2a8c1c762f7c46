// One token of a ragged batch. `slot` finds the sequence's block table and sampling parameters.
struct Row {
  slot: u32,
  position: u32,
  token: u32,
  unused: u32,
}

const FROM_SLOT = 0xffffffffu;
const NONE = 0xffffffffu;
const BLOCK = 16u;
