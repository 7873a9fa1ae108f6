//! Made-up reports, for tests of what reads them.

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};

use super::document::{
    Document, Fault, Figures, LinkOf, Links, Load, OverLinks, Percentiles, SourceOf, Station,
    Stations, Timing, Way,
};
use super::timeline::Timeline;

/// A histogram whose values grow with `scale`, as text.
pub(crate) fn histogram(scale: f64) -> String {
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    (1..20_000u64).for_each(|n| {
        let value = 2000.0 + (n * n) as f64 / 9000.0 + (n / 19_900 * 9000) as f64;
        histogram.record((value * scale) as u64).unwrap();
    });
    let mut bytes = Vec::new();
    V2Serializer::new()
        .serialize(&histogram, &mut bytes)
        .unwrap();
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

/// A run at `rate` changes per second.
pub(crate) fn figures(rate: f64) -> Figures {
    Figures {
        changes: 1_000_000,
        records: 1_250_000,
        bytes_in: 57_240_263,
        bytes_out: 81_000_000,
        seconds: 1e6 / rate,
        changes_per_second: rate,
        cpu_seconds: 0.52 * 2e6 / rate,
        rss_max_bytes: 48 << 20,
        latency_ms: Some(Percentiles {
            p50: 8.0,
            p90: 15.0,
            p99: 21.0,
            p999: 25.0,
            max: 26.0,
        }),
        histogram: Some(histogram(2e6 / rate)),
        commit_latency_ms: None,
        commit_histogram: None,
        load: None,
        stations: None,
        timing: Some(Timing {
            clock_reads: 1465,
            ns_per_read: 29.0,
            cpu_share: 4.7e-5,
        }),
        links: None,
        bare_changes_per_second: None,
    }
}

/// A report of so many runs around `rate`, the middle one exactly there.
pub(crate) fn document(runs: u32, rate: f64) -> Document {
    let of = |run: u32| rate * (1.0 + 0.01 * (f64::from(run) - f64::from(runs / 2)));
    let seconds = 1e6 / rate;
    let at = |n: u32| f64::from(n) / 100.0 * seconds;
    Document {
        version: "0.1.0".into(),
        machine: "A <machine>, 2 cores".into(),
        commit: "0123456789ab".into(),
        build: None,
        scenario: "mysql-1m".into(),
        set: Vec::new(),
        settings: None,
        source: "mysql-9.7-1m".into(),
        sources: Vec::new(),
        broker: "embedded broker".into(),
        figures: figures(rate),
        verified: true,
        failures: Vec::new(),
        unmet: Vec::new(),
        faults: Vec::new(),
        runs: (0..runs).map(|run| figures(of(run))).collect(),
        timeline: Timeline {
            arrivals: (0..=100)
                .map(|n| (at(n), u64::from(n) * 12_500 + u64::from(n % 7) * 900))
                .collect(),
            usage: (0..=100)
                .map(|n| (at(n), at(n) * 1.1, (20 << 20) + u64::from(n) * 250_000))
                .collect(),
        },
    }
}

/// Two sources at the same time, of one of which less is known.
pub(crate) fn both() -> Document {
    let mut document = document(3, 2e6);
    document.scenario = "both".into();
    document.source = "mysql-9.7-1m + live postgres".into();
    let of = |source: &str, server: &str, changes: u64, seconds: Option<f64>| SourceOf {
        source: source.into(),
        server: server.into(),
        topic: format!("{source}.events"),
        changes: Some(changes),
        records: Some(changes / 4 * 5),
        bytes_in: seconds.map(|_| 53_640_000),
        seconds,
        changes_per_second: seconds.map(|seconds| changes as f64 / seconds),
        io: seconds.map(|_| "uring".into()),
    };
    document.sources = vec![
        of("mysql-9.7-1m", "mysql 9.7.4", 600_000, Some(0.4)),
        of("live postgres", "postgres 15.18", 400_000, None),
    ];
    document
}

/// A run that was killed on the way and went wrong.
pub(crate) fn killed() -> Document {
    let mut document = document(1, 2e6);
    document.verified = false;
    document.failures = vec!["changes: expected 1 & found 2".into()];
    document.faults = vec![Fault {
        deed: "kill_engine".into(),
        link: None,
        at_changes: 400_000,
        at_seconds: Some(0.2),
    }];
    for figures in document.runs.iter_mut().chain([&mut document.figures]) {
        figures.histogram = None;
        figures.latency_ms = None;
        figures.timing = None;
    }
    document
}

/// A run over an emulated link, with everything that a report can hold.
pub(crate) fn linked() -> Document {
    let mut document = document(3, 5e5);
    let way = |profile: &str, bytes| Way {
        profile: profile.into(),
        bytes,
        packets: 50_000,
        lost: 480,
        overflowed: 0,
    };
    let links = Links {
        backend: "tun".into(),
        refused: vec!["tc: no sch_netem".into()],
        links: vec![LinkOf {
            host: "kafka 1".into(),
            seen_from: None,
            to_engine: way("delay 10ms rate 1gbit", 900_000),
            from_engine: way("delay 10ms rate 1gbit loss 1%", 84_000_000),
        }],
        limit_seconds: Some(1.6),
        times_limit: Some(1.25),
    };
    let station = |ms: f64| Station {
        ms: Percentiles {
            p50: ms,
            p90: ms * 2.0,
            p99: ms * 3.0,
            p999: ms * 4.0,
            max: ms * 5.0,
        },
    };
    let stations = Stations {
        decoded: station(0.4),
        encoded: station(1.2),
        sent: station(0.1),
        acknowledged: station(20.3),
    };
    for figures in document.runs.iter_mut().chain([&mut document.figures]) {
        figures.links = Some(links.clone());
        figures.stations = Some(stations.clone());
    }
    document
}

/// A run beside which a load was offered to a live server.
pub(crate) fn loaded() -> Document {
    let mut document = document(3, 5e4);
    for figures in document.runs.iter_mut().chain([&mut document.figures]) {
        figures.commit_histogram = Some(histogram(0.3));
        figures.commit_latency_ms = figures.latency_ms;
        figures.load = Some(Load {
            offered_changes_per_second: Some(5e4),
            committed_changes_per_second: 49_900.0,
            rows_per_commit: 10,
            writers: 4,
            offered_seconds: Some(16.0),
            due_latency_ms: figures.latency_ms.map(|sent| Percentiles {
                p50: sent.p50 + 0.5,
                p99: sent.p99 + 9.0,
                p999: sent.p999 + 30.0,
                max: sent.max + 40.0,
                ..sent
            }),
            due_histogram: Some(histogram(0.5)),
            over_links: Some(OverLinks {
                round_trip_ms: 30.25,
                commit_ms: figures.latency_ms,
            }),
            bare_histogram: Some(histogram(0.1)),
        });
    }
    document
}
