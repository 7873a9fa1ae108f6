//! How much of the machine's processor time nobody uses, from `/proc/stat`: it counts the time of every process, so also that of a
//! broker beside us. Nothing else here reads it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The kernel counts in hundredths of a second: shorter spans say little.
const SPAN: Duration = Duration::from_millis(100);

/// A measurement that began longer ago, or ended so long ago, is of another time than now.
const OLD: Duration = Duration::from_secs(1);

/// Encoding that takes so little of a processor takes nothing from anybody, however much more it takes.
const NEXT_TO_NOTHING: f64 = 0.1;

/// Where less than this part of what encoding takes is left over, nothing is.
const REST: f64 = 0.25;

/// What processors have left over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Spare {
    /// The system does not tell.
    Untold,
    /// It has not been measured for long enough.
    Unmeasured,
    /// In processors: what nobody used, and what encoding took.
    Measured { idle: f64, encoding: f64 },
}

impl Spare {
    /// Whether encoding that takes twice as long would take nothing from anybody. Also where the system does not tell.
    pub(super) fn is_plenty(self) -> bool {
        match self {
            Spare::Untold => true,
            Spare::Unmeasured => false,
            Spare::Measured { idle, encoding } => encoding < NEXT_TO_NOTHING || idle >= encoding,
        }
    }

    /// Whether encoding takes what others would need. What lies between changes nothing, so that work which was begun because
    /// processors are idle is not given up because they are idle no longer.
    pub(super) fn is_little(self) -> bool {
        match self {
            Spare::Untold | Spare::Unmeasured => false,
            Spare::Measured { idle, encoding } => {
                encoding >= NEXT_TO_NOTHING && idle < encoding * REST
            }
        }
    }
}

/// Measures, span by span, for whoever asks again and again while it matters.
#[derive(Debug)]
pub(super) struct Processors {
    stat: PathBuf,
    began: Option<Reading>,
    ended: Option<(Instant, Spare)>,
}

impl Default for Processors {
    fn default() -> Self {
        Self {
            stat: "/proc/stat".into(),
            began: None,
            ended: None,
        }
    }
}

impl Processors {
    /// What was left over in the last span that has ended, if that is of now. `encoding` is what encoding has taken since the start,
    /// over all threads. Reads the kernel's file at most once a span.
    pub(super) fn spare(&mut self, now: Instant, encoding: Duration) -> Spare {
        let is_over = |began: &Reading| now.saturating_duration_since(began.at) >= SPAN;
        if self.began.as_ref().is_none_or(is_over) {
            let stat = std::fs::read_to_string(&self.stat).ok();
            let Some(ticks) = stat.as_deref().and_then(Ticks::parse) else {
                return Spare::Untold;
            };
            let reading = Reading {
                at: now,
                encoding,
                ticks,
            };
            let began = self.began.replace(reading);
            if let Some(spare) = began.and_then(|began| reading.since(began)) {
                self.ended = Some((now, spare));
            }
        }
        match self.ended {
            Some((at, spare)) if now.saturating_duration_since(at) < OLD => spare,
            _ => Spare::Unmeasured,
        }
    }
}

/// One end of a span.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    encoding: Duration,
    ticks: Ticks,
}

impl Reading {
    /// What was left over since `began`; `None` where that is too long ago.
    fn since(self, began: Reading) -> Option<Spare> {
        let span = self.at.saturating_duration_since(began.at);
        let encoding = self.encoding.saturating_sub(began.encoding);
        Some(Spare::Measured {
            idle: self.ticks.idle_since(began.ticks).filter(|_| span < OLD)?,
            encoding: encoding.as_secs_f64() / span.as_secs_f64(),
        })
    }
}

/// Of all processors, since the start of the machine, in the kernel's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    /// Idle, or waiting for a disk.
    idle: u64,
    all: u64,
    processors: u32,
}

impl Ticks {
    /// From the text of `/proc/stat` (proc_stat(5)): `cpu  user nice system idle iowait irq softirq steal …`, then a line for each
    /// processor. Times of guests are in `user` already.
    fn parse(stat: &str) -> Option<Self> {
        let mut lines = stat.lines();
        let numbers = lines.next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
        let numbers: Vec<u64> = (numbers.take(8))
            .map_while(|each| each.parse().ok())
            .collect();
        let processors = lines.take_while(|line| line.starts_with("cpu")).count();
        Some(Self {
            idle: numbers.get(3)?.checked_add(*numbers.get(4).unwrap_or(&0))?,
            all: (numbers.iter()).try_fold(0_u64, |sum, each| sum.checked_add(*each))?,
            processors: u32::try_from(processors).ok().filter(|count| *count > 0)?,
        })
    }

    /// Processors that were idle since then; `None` where the kernel has not counted on, or backwards as `iowait` may.
    fn idle_since(self, before: Ticks) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|all| *all > 0)?;
        let idle = self.idle.checked_sub(before.idle)?;
        Some(idle as f64 / all as f64 * f64::from(self.processors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const BEFORE: &str = "cpu  100 2 30 1000 50 1 2 3 40 0\ncpu0 50 1 15 500 25 0 1 1 20 0\ncpu1 50 1 15 500 25 1 1 2 20 0\nintr 5 6\n";
    /// Ten ticks later on each of two processors: 12 of 20 were idle, two of them waiting for a disk.
    const AFTER: &str = "cpu  105 2 32 1010 52 1 2 4 40 0\ncpu0 50 1 15 500 25 0 1 1 20 0\ncpu1 50 1 15 500 25 1 1 2 20 0\nintr 5 6\n";

    fn ticks(stat: &str) -> Ticks {
        Ticks::parse(stat).unwrap()
    }

    #[test]
    fn the_idle_part_of_all_processors() {
        assert_eq!(ticks(AFTER).idle_since(ticks(BEFORE)), Some(1.2));
        assert_eq!(ticks(BEFORE).idle_since(ticks(AFTER)), None, "backwards");
        assert_eq!(ticks(AFTER).idle_since(ticks(AFTER)), None, "at once");
        for stat in [
            "",
            "cpu \n",
            "cpu 1 2 3\ncpu0 1 2 3\n",
            "cpu 1 2 3 4 5 6 7 8\n",
            "cpu 1 2 3 18446744073709551615 5 6 7 8\ncpu0 1 2 3 4\n",
            "procs 5\n",
        ] {
            assert_eq!(Ticks::parse(stat), None, "{stat:?}");
        }
    }

    #[test]
    fn as_much_again_as_encoding_takes_is_plenty() {
        let of = |encoding: f64, idle: f64| {
            let spare = Spare::Measured { idle, encoding };
            (spare.is_plenty(), spare.is_little())
        };
        assert_eq!(of(0.8, 0.8), (true, false));
        assert_eq!(of(0.8, 0.7), (false, false));
        assert_eq!(of(0.8, 0.1), (false, true));
        assert_eq!(of(0.05, 0.0), (true, false), "next to nothing");
    }

    #[test]
    fn who_cannot_be_asked_keeps_nobody_from_anything() {
        let mut processors = Processors {
            stat: "/proc/no such file".into(),
            ..Processors::default()
        };
        let untold = processors.spare(clock::now(), Duration::ZERO);
        assert_eq!(untold, Spare::Untold);
        assert!(untold.is_plenty() && !untold.is_little());
        let unmeasured = Spare::Unmeasured;
        assert!(!unmeasured.is_plenty() && !unmeasured.is_little());
    }

    #[test]
    fn a_span_counts_for_as_long_as_it_is_of_now() {
        let dir = tempfile::tempdir().unwrap();
        let stat = dir.path().join("stat");
        let mut processors = Processors {
            stat: stat.clone(),
            ..Processors::default()
        };
        let begin = clock::now();
        let mut at = |after: Duration, encoding: Duration, text: &str| {
            std::fs::write(&stat, text).unwrap();
            processors.spare(begin + after, encoding)
        };
        let zero = Duration::ZERO;
        assert_eq!(at(zero, zero, BEFORE), Spare::Unmeasured);
        assert_eq!(at(SPAN / 2, zero, AFTER), Spare::Unmeasured, "too short");
        let measured = Spare::Measured {
            idle: 1.2,
            encoding: 0.5,
        };
        assert_eq!(at(SPAN, SPAN / 2, AFTER), measured);
        let soon = at(SPAN * 3 / 2, SPAN, BEFORE);
        assert_eq!(soon, measured, "not read again so soon");
        let later = SPAN + OLD;
        assert_eq!(at(later, SPAN, BEFORE), Spare::Unmeasured, "long ago");
        assert_eq!(at(later + SPAN, SPAN * 3 / 2, AFTER), measured);
    }

    #[test]
    fn this_machine_tells() {
        let stat = std::fs::read_to_string(Processors::default().stat).unwrap();
        let ticks = ticks(&stat);
        assert!(ticks.all >= ticks.idle && ticks.processors > 0, "{ticks:?}");
    }
}
