//! Criterion measured in the thread's CPU time: on a machine that others share, time spent waiting for a core says nothing about the
//! code. Linux only: `/proc/thread-self/schedstat`, whose first field counts nanoseconds on a core.

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};

/// CPU time of the thread that runs the bench. Work on other threads is not counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuTime;

fn on_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        on_cpu()
    }

    fn end(&self, start: Duration) -> Duration {
        on_cpu().saturating_sub(start)
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
