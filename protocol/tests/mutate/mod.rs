//! Seeded mutations of recorded bytes. `MUTATIONS=N` takes more of each seed than CI does, `SEED=N` other ones.

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    /// From `SEED`, otherwise a fixed seed; printed, so that a failure can be repeated.
    pub(crate) fn new() -> Self {
        let seed = number("SEED", 42);
        println!("SEED={seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % limit.max(1) as u64) as usize
    }

    /// `seed` with a few bytes overwritten, flipped, removed or put in, or a stretch of it repeated.
    pub(crate) fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(5) {
                _ if bytes.is_empty() => bytes.push(self.below(256) as u8),
                0 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfc, 0xfd, 0xfe, 0xff][self.below(8)],
                1 => bytes[at] ^= 1 << self.below(8),
                2 => {
                    bytes.remove(at);
                }
                3 => bytes.insert(at, self.below(256) as u8),
                _ => {
                    let end = (at + 1 + self.below(16)).min(bytes.len());
                    let repeated = bytes[at..end].to_vec();
                    bytes.splice(at..at, repeated);
                }
            }
        }
        bytes
    }
}

/// Mutations of each seed.
pub(crate) fn mutations(usual: u64) -> u64 {
    number("MUTATIONS", usual)
}

fn number(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text:?} is no number")),
        Err(_) => usual,
    }
}
