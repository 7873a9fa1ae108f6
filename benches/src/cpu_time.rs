//! Criterion measured in CPU time: on a machine that others share, time spent waiting for a core says nothing about the code.

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use nix::time::ClockId;

/// CPU time, user and system.
#[derive(Debug, Clone, Copy)]
pub enum CpuTime {
    /// Of the thread that runs the bench; work on other threads is not counted.
    Thread,
    /// Of the whole process: for work that is spread over threads.
    Process,
    /// Of the whole process but the thread of this id: for work whose other side is beside it.
    ProcessBut(i32),
}

impl CpuTime {
    fn now(self) -> Duration {
        let clock = match self {
            Self::Thread => ClockId::CLOCK_THREAD_CPUTIME_ID,
            Self::Process | Self::ProcessBut(_) => ClockId::CLOCK_PROCESS_CPUTIME_ID,
        };
        let time = Duration::from(clock.now().expect("a clock that every Linux has"));
        match self {
            Self::ProcessBut(thread) => time.saturating_sub(on_cpu(thread)),
            Self::Thread | Self::Process => time,
        }
    }
}

/// What a running thread of this process has used.
fn on_cpu(thread: i32) -> Duration {
    let path = format!("/proc/self/task/{thread}/schedstat");
    let stat = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("proc_pid_schedstat: nanoseconds on a processor first"))
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        self.now()
    }

    fn end(&self, start: Duration) -> Duration {
        self.now().saturating_sub(start)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}
