//! `kafka.compression = "auto"`: which codec the next batch is encoded with. Pure logic but for [`Load::of`]: no clock, no I/O.
//!
//! ```text
//!         again and again encoded batches wait, because as many requests are on the wire as may be, and processors are idle
//!        ┌─────────────────────────────────────────────────────────────────────────────────────────────────────────────────┐
//!       lz4                                                                                                               zstd
//!        └─────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//!         for long none has waited; soon, where the encoding threads are what everything waits for, or no processor is idle
//! ```
//! lz4 costs the least of both sides' time while the link keeps up. Where encoded batches wait for the link, encoding faster brings
//! nothing and fewer bytes do, and the time for making them so is there: the threads would only fill the memory and then stand.
//! A broker that is slow because it lacks processor time, on the same machine say, looks the same but for that: no processor is
//! idle, and what zstd takes more would be taken from it. So that processors show it, the threads do not run ahead: what waits for the
//! link already is enough to keep it busy ([`Load::is_ahead`]).
//! Going back is tried after a while, because only lz4 can tell whether the link would keep up with lz4; a try that fails makes
//! the next one come later.

use crate::config::Compression;
use crate::producer::Producer;

use super::processors::Spare;

/// Sealed batches in a row that find others waiting before zstd is taken. A link that is full gets batches encoded by lz4 meanwhile, so
/// it is few.
const PRESSED: u32 = 4;

/// So many record batches may wait for a first answer: what a million changes a second become in some 20 ms.
const FEW: usize = 8;

/// Bytes of encoded record batches that may wait for the link before encoding waits too: more than a request of one partition, so
/// that the next one is full whenever the link can take it. Over a thin link, every one of them encoded by lz4 costs time.
const AHEAD: usize = 4 << 20;

/// Sealed batches that find the link free before lz4 is tried again; doubled by each try that fails.
const SLACK: u32 = 64;

/// A batch that finds the encoding threads busy and the link free counts as so many, and one that finds no processor idle.
const BUSY_WEIGHT: u32 = 8;

/// Failed tries double [`SLACK`] at most so often.
const DOUBLINGS_MAX: u32 = 8;

/// How much waits for the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Whether encoded record batches wait because as many requests are on the wire as may be, or many wait: the link is what
    /// everything waits for. A few that wait for a leader, a connection or a partition's first answer say nothing about it; but over a
    /// long line the memory would be full of lz4 before that answer.
    pub(super) is_pressed: bool,
    /// Bytes of encoded record batches that wait.
    pub(super) bytes: usize,
}

impl Load {
    /// As it looks now.
    pub(super) fn of(producer: &Producer) -> Self {
        Self {
            is_pressed: producer.is_pressed() || producer.waiting() > FEW,
            bytes: producer.waiting_bytes(),
        }
    }

    /// Whether enough waits for the link: what is encoded now would be sent much later, by a codec that may be the wrong one then.
    pub(super) fn is_ahead(&self) -> bool {
        self.is_pressed && self.bytes >= AHEAD
    }
}

/// What the pipeline looks like when a batch is sealed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) load: Load,
    /// Batches that the encoding threads have not finished.
    pub(super) encoding: u64,
    /// Encoding threads.
    pub(super) threads: u64,
    /// What processors have left over.
    pub(super) spare: Spare,
}

impl Sample {
    /// Encoding is what everything waits for.
    fn is_busy(&self) -> bool {
        self.encoding >= self.threads
    }
}

/// Batches by codec, for reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Codecs {
    /// Batches encoded with lz4.
    pub lz4: u64,
    /// Batches encoded with zstd.
    pub zstd: u64,
    /// Changes from one to the other.
    pub switches: u64,
}

/// Chooses between lz4 and zstd.
#[derive(Debug, Default)]
pub(super) struct Auto {
    dense: bool,
    /// Pressed samples in a row.
    pressed: u32,
    /// Free samples since zstd was taken, or since the link was full.
    slack: u32,
    /// Batches since the last change.
    age: u32,
    doublings: u32,
    codecs: Codecs,
}

impl Auto {
    /// The codec of the batch that is being sealed, and whether it is another one than before.
    pub(super) fn next(&mut self, sample: Sample) -> (Compression, bool) {
        self.age = self.age.saturating_add(1);
        let changed = match self.dense {
            false => self.should_densify(sample),
            true => self.should_relax(sample),
        };
        if changed {
            self.dense = !self.dense;
            (self.pressed, self.slack, self.age) = (0, 0, 0);
            self.codecs.switches += 1;
        }
        match self.dense {
            false => {
                self.codecs.lz4 += 1;
                (Compression::Lz4, changed)
            }
            true => {
                self.codecs.zstd += 1;
                (Compression::Zstd, changed)
            }
        }
    }

    pub(super) fn codecs(&self) -> Codecs {
        self.codecs
    }

    fn should_densify(&mut self, sample: Sample) -> bool {
        self.pressed = match sample.load.is_pressed {
            true => self.pressed.saturating_add(1),
            false => 0,
        };
        let densify = self.pressed >= PRESSED && sample.spare.is_plenty();
        if densify && self.codecs.switches > 0 {
            // Back after a try: the sooner, the less it was worth.
            self.doublings = match self.age < self.patience() {
                true => (self.doublings + 1).min(DOUBLINGS_MAX),
                false => 0,
            };
        }
        densify
    }

    fn should_relax(&mut self, sample: Sample) -> bool {
        let is_busy = sample.is_busy() && !sample.load.is_pressed || sample.spare.is_little();
        self.slack = match (is_busy, sample.load.is_pressed) {
            (true, _) => self.slack.saturating_add(BUSY_WEIGHT),
            (false, true) => 0,
            (false, false) => self.slack.saturating_add(1),
        };
        self.slack >= self.patience()
    }

    fn patience(&self) -> u32 {
        SLACK << self.doublings
    }
}

#[cfg(test)]
mod tests;
