//! How long a silent server is waited for. While it decodes a huge transaction of which nothing is for us, it may not even answer: cut off
//! at the same place each time, it would never get further.

use std::time::Duration;

use protocol::postgres::Lsn;

/// Patience grows to 2⁵ of what it is at first, 16 minutes.
const DOUBLED_MAX: u32 = 5;

/// Connections that were given up for silence, at one place.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Where the stream stood, and how many bytes had come in all, when the server was last asked for a sign of life.
    asked: Option<(Lsn, u64)>,
    /// Where the last connection ended.
    place: Option<Lsn>,
    /// How many of those that ended there had brought nothing since the question.
    times: u32,
}

impl Silence {
    /// The server is asked for a sign of life.
    pub(super) fn asked(&mut self, place: Lsn, bytes: u64) {
        self.asked = Some((place, bytes));
    }

    /// Another connection goes on at `place`, after `bytes` in all.
    pub(super) fn came_back(&mut self, place: Lsn, bytes: u64) {
        if self.place.replace(place) != Some(place) {
            self.times = 0;
        }
        if self.asked.take() == Some((place, bytes)) {
            self.times = self.times.saturating_add(1);
        }
    }

    /// How long to wait for an answer at `place`, where it is `first` usually.
    pub(super) fn patience(&self, first: Duration, place: Lsn) -> Duration {
        match self.place == Some(place) {
            true => first * (1 << self.times.min(DOUBLED_MAX)),
            false => first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_doubles_while_the_stream_gets_no_further() {
        let first = Duration::from_secs(30);
        let mut silence = Silence::default();
        let mut waited = Vec::new();
        for _ in 0..8 {
            waited.push(silence.patience(first, Lsn(7)).as_secs());
            silence.asked(Lsn(7), 100);
            silence.came_back(Lsn(7), 100);
        }
        assert_eq!(waited, [30, 60, 120, 240, 480, 960, 960, 960]);
        assert_eq!(silence.patience(first, Lsn(8)), first);
        // It got further: all begins anew, also for the next silence.
        silence.asked(Lsn(8), 200);
        silence.came_back(Lsn(8), 200);
        assert_eq!(silence.patience(first, Lsn(8)), first * 2);
    }

    #[test]
    fn only_silence_counts() {
        let first = Duration::from_secs(30);
        let mut silence = Silence::default();
        // Asked, answered, and lost otherwise.
        silence.asked(Lsn(7), 100);
        silence.came_back(Lsn(7), 117);
        assert_eq!(silence.patience(first, Lsn(7)), first);
        // Never asked.
        silence.came_back(Lsn(7), 117);
        assert_eq!(silence.patience(first, Lsn(7)), first);
    }
}
