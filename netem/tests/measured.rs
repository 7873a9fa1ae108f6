//! Links measured against their profiles: what no busy machine can spoil is asserted, the rest is printed.
//!
//! Namespaces need root. Without it these tests say so and pass, except with `CI=true`. Of `tc` they say so also there: no kernel needs to have
//! netem.

use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use netem::limits::MTU;
use netem::selftest::{self, Options};
use netem::{Backend, Direction, LinkPlan, LinkProfile, NetemError, Network, Plan, Relay};

/// Opens a network of two hosts, or says why not.
fn network(backend: Backend, forth: &str, back: &str) -> Option<Network> {
    let plan = Plan {
        hosts: vec!["one".to_owned(), "other".to_owned()],
        links: vec![LinkPlan {
            one: "one".to_owned(),
            other: "other".to_owned(),
            forth: forth.parse().unwrap(),
            back: back.parse().unwrap(),
        }],
        seed: 1,
    };
    skipped(backend, Network::open(&plan, Some(backend)))
}

fn skipped<T>(backend: Backend, result: Result<T, NetemError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error @ NetemError::Impossible(_)) => {
            let is_ci = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty());
            let is_required = is_ci && backend != Backend::Tc;
            assert!(!is_required, "required in CI: {error}");
            let needed = match backend {
                Backend::Tc => "a kernel with netem",
                _ => "/dev/net/tun",
            };
            eprintln!("SKIPPED {backend}, needs root, iproute2 and {needed}: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn measure(backend: Backend, forth: &str, back: &str) {
    let (forth, back): (LinkProfile, LinkProfile) = (forth.parse().unwrap(), back.parse().unwrap());
    let options = Options {
        forth: forth.clone(),
        back: back.clone(),
        backend: Some(backend),
        seed: 7,
        bulk: Duration::from_millis(1500),
        datagrams: 5_000,
    };
    let Some(measured) = skipped(backend, selftest::run(&options)) else {
        return;
    };
    let findings = measured.judge(&forth, &back, None);
    for finding in &findings {
        println!("{backend} {forth} / {back}: {finding:?}");
    }
    let failed: Vec<_> = (findings.iter())
        .filter(|finding| finding.holds == Some(false))
        .collect();
    assert!(failed.is_empty(), "seed 7: {failed:#?}");
}

#[test]
fn packets_keep_delay_and_rate() {
    for backend in [Backend::Tc, Backend::Tun] {
        measure(
            backend,
            "delay 10ms rate 100mbit",
            "delay 20ms 2ms rate 50mbit",
        );
    }
}

#[test]
fn packets_are_lost_repeated_and_reordered() {
    for backend in [Backend::Tc, Backend::Tun] {
        measure(
            backend,
            "delay 5ms loss 3% duplicate 2% reorder 5%",
            "delay 5ms corrupt 4% loss 1%",
        );
    }
}

#[test]
fn tun_carries_single_bytes() {
    measure(Backend::Tun, "segment 1", "segment 7");
    for (profile, most) in [("segment 1", 1), ("segment 7", 7)] {
        let Some(network) = network(Backend::Tun, profile, "unshaped") else {
            return;
        };
        const BYTES: usize = 7_000;
        content(&network, BYTES);
        let link = network.link("one", "other").unwrap();
        let counters = link.counters(Direction::Forth).unwrap();
        let least = (BYTES / most) as u64;
        assert!(counters.packets >= least, "{profile}: {counters:?}");
    }
}

/// What an unshaped link carries per second is for `harness netem --at-least` on an idle machine; what it is fast by holds on any: a read and a
/// write take a segment of many packets.
#[test]
fn tun_carries_many_packets_at_once() {
    let Some(network) = network(Backend::Tun, "unshaped", "unshaped") else {
        return;
    };
    content(&network, 30_000_000);
    let counters = network
        .link("one", "other")
        .unwrap()
        .counters(Direction::Forth)
        .unwrap();
    assert!(counters.bytes > 30_000_000, "{counters:?}");
    let each = counters.bytes / counters.segments;
    println!("{each} bytes a segment, {} packets", counters.packets);
    assert!(each > 8 * MTU as u64, "{each} bytes: {counters:?}");
}

#[test]
fn the_proxy_keeps_delay_and_rate() {
    measure(
        Backend::Proxy,
        "delay 10ms rate 100mbit",
        "delay 20ms 2ms rate 50mbit segment 1000",
    );
}

/// A connection over the link: its ends on the one host and on the other.
fn connected(network: &Network) -> (std::net::TcpStream, std::net::TcpStream) {
    let door = network.door("one", "other", 7).unwrap();
    let listener = door.host().listen(door.listen()).unwrap();
    door.lead_to(listener.local_addr().unwrap());
    let near = network
        .host("one")
        .unwrap()
        .connect(door.address())
        .unwrap();
    let (far, _) = listener.accept().unwrap();
    for stream in [&near, &far] {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
    }
    (near, far)
}

/// Sends numbered bytes through and looks at each of them.
fn content(network: &Network, bytes: usize) {
    let (mut near, mut far) = connected(network);
    let sent: Vec<u8> = (0..bytes).map(|n| (n * 31 + n / 251) as u8).collect();
    let received = std::thread::scope(|scope| {
        scope.spawn(|| {
            near.write_all(&sent).unwrap();
            near.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        received
    });
    assert!(
        received == sent,
        "{} of {} bytes",
        received.len(),
        sent.len()
    );
}

#[test]
fn content_arrives_whatever_happens_to_packets() {
    for profile in [
        "unshaped",
        "delay 1ms rate 500mbit queue 20000",
        "delay 1ms loss 2% duplicate 2% corrupt 2% reorder 2%",
        "segment 100",
    ] {
        // Which cuts no segments.
        let is_for_tc = !profile.contains("segment");
        for backend in [Backend::Tc, Backend::Tun] {
            if (backend == Backend::Tun || is_for_tc)
                && let Some(network) = network(backend, profile, profile)
            {
                content(&network, 3_000_000);
            }
        }
    }
    let network = network(Backend::Proxy, "delay 1ms rate 500mbit", "segment 1").unwrap();
    content(&network, 3_000_000);
}

#[test]
fn a_cut_resets_both_ends_and_new_connections_work() {
    for backend in Backend::ALL {
        let Some(network) = network(backend, "delay 1ms", "delay 1ms") else {
            continue;
        };
        let (mut near, mut far) = connected(&network);
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
        network.link("one", "other").unwrap().cut().unwrap();
        for stream in [&mut near, &mut far] {
            let ended = stream.read(&mut [0]);
            let is_ended = match backend {
                Backend::Proxy => matches!(ended, Ok(0) | Err(_)),
                Backend::Tun => ended.as_ref().is_err_and(|e| e.kind() == ConnectionReset),
                // An end that `ss -K` has ended itself says so.
                Backend::Tc => ended
                    .as_ref()
                    .is_err_and(|e| matches!(e.kind(), ConnectionReset | ConnectionAborted)),
            };
            assert!(is_ended, "{backend}: {ended:?}");
        }
        let (mut near, mut far) = connected(&network);
        near.write_all(b"y").unwrap();
        far.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn what_is_stalled_or_dropped_comes_later() {
    for backend in Backend::ALL {
        let Some(network) = network(backend, "delay 1ms", "delay 1ms") else {
            continue;
        };
        let link = network.link("one", "other").unwrap();
        let (mut near, mut far) = connected(&network);
        far.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        for is_dropped in [false, true] {
            let hold = |is_held| match is_dropped {
                true => link.down(Direction::Forth, is_held).unwrap(),
                false => link.stall(Direction::Forth, is_held).unwrap(),
            };
            hold(true);
            near.write_all(b"x").unwrap();
            assert!(
                far.read(&mut [0]).is_err(),
                "{backend}: it came nevertheless"
            );
            // The other way is open.
            far.write_all(b"y").unwrap();
            near.read_exact(&mut [0]).unwrap();
            hold(false);
            far.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            far.read_exact(&mut [0]).unwrap();
            far.set_read_timeout(Some(Duration::from_millis(100)))
                .unwrap();
        }
    }
}

#[test]
fn a_profile_changes_on_the_way() {
    for backend in Backend::ALL {
        let Some(network) = network(backend, "unshaped", "unshaped") else {
            continue;
        };
        let link = network.link("one", "other").unwrap();
        let (mut near, mut far) = connected(&network);
        link.set(Direction::Forth, "delay 150ms".parse().unwrap())
            .unwrap();
        let start = Instant::now();
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(150), "{backend}");
        link.slow(Direction::Forth, Some(1_000_000)).unwrap();
        let start = Instant::now();
        // 25,000 bytes are 200 ms of 1 Mbit/s, of which the first arrive after the delay.
        near.write_all(&[0; 25_000]).unwrap();
        far.read_exact(&mut [0; 25_000]).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(300), "{backend}");
        let counters = link.counters(Direction::Forth).unwrap();
        assert!(counters.bytes >= 25_001, "{backend}: {counters:?}");
        let refused = link.set(
            Direction::Forth,
            "rate 1bit".parse().unwrap_or_else(|_| LinkProfile {
                loss: 2.0,
                ..LinkProfile::default()
            }),
        );
        assert!(refused.is_err());
    }
}

#[test]
fn nothing_of_a_fault_stays_on_the_link() {
    const BYTES: usize = 25_000;
    const AT_1_MBIT: Duration = Duration::from_millis(200);
    for backend in Backend::ALL {
        let Some(network) = network(backend, "delay 1ms", "delay 1ms") else {
            continue;
        };
        let link = network.link("one", "other").unwrap();
        let (mut near, mut far) = connected(&network);
        let mut pass = || {
            let start = Instant::now();
            near.write_all(&[0; BYTES]).unwrap();
            far.read_exact(&mut [0; BYTES]).unwrap();
            start.elapsed()
        };
        link.slow(Direction::Forth, Some(1_000_000)).unwrap();
        assert!(pass() >= AT_1_MBIT, "{backend}");
        link.slow(Direction::Forth, None).unwrap();
        // However busy the machine is: a rate that stays makes it as slow every time.
        let start = Instant::now();
        while pass() >= AT_1_MBIT {
            assert!(start.elapsed() < Duration::from_secs(60), "{backend}: slow");
        }
        if backend == Backend::Proxy {
            continue;
        }
        for trouble in ["corrupt 100%", "loss 100%", "delay 1ms reorder 100%"] {
            link.set(Direction::Forth, trouble.parse().unwrap())
                .unwrap();
            link.set(Direction::Forth, "delay 1ms".parse().unwrap())
                .unwrap();
            pass();
        }
    }
}

#[test]
fn namespaces_go_with_their_network_and_are_seen_from_outside_by_a_relay() {
    let Some(network) = network(Backend::Tun, "unshaped", "unshaped") else {
        return;
    };
    let host = network.host("other").unwrap().clone();
    let name = host.namespace().unwrap().to_owned();
    let exists = || std::path::Path::new("/run/netns").join(&name).exists();
    assert!(exists());
    let listener = host.listen((host.address(), 80).into()).unwrap();
    let relay = Relay::into_host(&host, listener.local_addr().unwrap()).unwrap();
    let mut near = std::net::TcpStream::connect(relay.address()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    near.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    far.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    let child = host.spawn(
        std::process::Command::new("ip")
            .args(["-o", "-4", "address"])
            .stdout(std::process::Stdio::piped()),
    );
    let output = child.unwrap().wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(&host.address().to_string()), "{text}");
    drop((relay, listener, near, far, network));
    assert!(exists(), "a host that is still held");
    drop(host);
    // The relay's own threads hold the host until they have seen their connections end.
    let start = Instant::now();
    while exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "{name} stays");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a killed process left behind under its own number.
#[test]
fn the_next_network_removes_what_a_dead_process_left() {
    if network(Backend::Tun, "unshaped", "unshaped").is_none() {
        return;
    }
    let mut dead = std::process::Command::new("true").spawn().unwrap();
    let number = dead.id();
    dead.wait().unwrap();
    let left = format!("walbrook-{number}-0-x");
    let made = std::process::Command::new("ip")
        .args(["netns", "add", &left])
        .status();
    assert!(made.unwrap().success());
    let _network = network(Backend::Tun, "unshaped", "unshaped").unwrap();
    assert!(!std::path::Path::new("/run/netns").join(&left).exists());
}

/// As in a container that was started again, in which process numbers begin anew: this test starts itself, and the process that it starts
/// finds names of its own number.
#[test]
fn the_first_network_removes_what_a_namesake_left() {
    const IS_STARTED: &str = "NETEM_TEST_IS_STARTED";
    if std::env::var_os(IS_STARTED).is_some() {
        // Until the names are there.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        let first = network(Backend::Tun, "unshaped", "unshaped").unwrap();
        let name = first.host("one").unwrap().namespace().unwrap().to_owned();
        // The one that is there belongs to nobody else.
        let _second = network(Backend::Tun, "unshaped", "unshaped").unwrap();
        assert!(std::path::Path::new("/run/netns").join(name).exists());
        return;
    }
    if network(Backend::Tun, "unshaped", "unshaped").is_none() {
        return;
    }
    let mut started = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_first_network_removes_what_a_namesake_left"])
        .arg("--nocapture")
        .env(IS_STARTED, "1")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let own = started.id();
    let left: Vec<String> = (0..4)
        .flat_map(|number| {
            ["", "-one", "-other"].map(|host| format!("walbrook-{own}-{number}{host}"))
        })
        .collect();
    for name in &left {
        let made = std::process::Command::new("ip")
            .args(["netns", "add", name])
            .status();
        assert!(made.unwrap().success());
    }
    drop(started.stdin.take());
    assert!(started.wait().unwrap().success());
    for name in left {
        let path = std::path::Path::new("/run/netns").join(&name);
        assert!(!path.exists(), "{name} stays");
    }
}
