//! Links measured against their profiles: what no busy machine can spoil is asserted, the rest is printed.
//!
//! Namespaces need root. Without it these tests say so and pass, except with `CI=true`.

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
    skipped(Network::open(&plan, Some(backend)))
}

fn skipped<T>(result: Result<T, NetemError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error @ NetemError::Impossible(_)) => {
            let is_required = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty());
            assert!(!is_required, "required in CI: {error}");
            eprintln!("SKIPPED, needs root, iproute2 and /dev/net/tun: {error}");
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
    let Some(measured) = skipped(selftest::run(&options)) else {
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
fn tun_keeps_delay_and_rate() {
    measure(
        Backend::Tun,
        "delay 10ms rate 100mbit",
        "delay 20ms 2ms rate 50mbit",
    );
}

#[test]
fn tun_loses_repeats_and_reorders() {
    measure(
        Backend::Tun,
        "delay 5ms loss 3% duplicate 2% reorder 5%",
        "delay 5ms corrupt 4% loss 1%",
    );
}

#[test]
fn tun_carries_single_bytes() {
    measure(Backend::Tun, "segment 1", "segment 7");
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
        if let Some(network) = network(Backend::Tun, profile, profile) {
            content(&network, 3_000_000);
        }
    }
    let network = network(Backend::Proxy, "delay 1ms rate 500mbit", "segment 1").unwrap();
    content(&network, 3_000_000);
}

#[test]
fn a_cut_resets_both_ends_and_new_connections_work() {
    for backend in [Backend::Tun, Backend::Proxy] {
        let Some(network) = network(backend, "delay 1ms", "delay 1ms") else {
            continue;
        };
        let (mut near, mut far) = connected(&network);
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
        network.link("one", "other").unwrap().cut().unwrap();
        for stream in [&mut near, &mut far] {
            let ended = stream.read(&mut [0]);
            match backend {
                Backend::Proxy => assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}"),
                _ => assert_eq!(
                    ended.unwrap_err().kind(),
                    std::io::ErrorKind::ConnectionReset
                ),
            }
        }
        let (mut near, mut far) = connected(&network);
        near.write_all(b"y").unwrap();
        far.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn what_is_stalled_or_dropped_comes_later() {
    for backend in [Backend::Tun, Backend::Proxy] {
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
    for backend in [Backend::Tun, Backend::Proxy] {
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
