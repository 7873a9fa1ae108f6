//! The kernel's own emulation: a veth pair per host, joined by a bridge in a namespace of its own, and at each host's end a netem queue
//! per other host.
//!
//! ```text
//! host a: link0 ── prio ─┬─ 1:2 netem (to a)            switch: bridge0
//!                        ├─ 1:3 netem (to b) ─ veth ───────── port0, port1, …
//!                        └─ 1:1 everybody else
//! ```
//! Source: tc-netem(8), tc-prio(8), tc-u32(8). The kernel's chance takes no seed before iproute2 6.6, and a direction cannot be held:
//! while it is stalled, packets are lost.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use crate::limits::{MTU, RATE_MAX};
use crate::namespace::{Namespace, tool};
use crate::profile::LinkProfile;
use crate::shaper::Counters;
use crate::{NetemError, network};

const DEVICE: &str = "link0";
const BRIDGE: &str = "bridge0";
/// What the kernel counts of a packet before its IP header.
const ETHERNET: u64 = 14;
/// Packets in a netem queue at least: the limit counts those that are only delayed, too.
const PACKETS_MIN: usize = 1000;
/// How long an end of a connection may take to hear that it is no more.
const PATIENCE: Duration = Duration::from_millis(500);
/// Where there is a delay and no rate to reckon by.
const PACKETS_UNLIMITED: usize = 100_000;

/// The hosts' interfaces; they vanish with their namespaces.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Namespace and address of each host.
    hosts: Vec<(String, Ipv4Addr)>,
    _switch: Namespace,
}

/// Whether the kernel has netem and can cut connections, tried in a namespace.
///
/// # Errors
/// What tc says; that connections stay.
pub(crate) fn probe(namespace: &Namespace) -> Result<(), NetemError> {
    let add = format!("qdisc add dev lo root netem delay 1ms rate 1000mbit limit {PACKETS_MIN}");
    run(namespace.name(), &add)?;
    probe_cut(namespace)
}

/// Whether `ss -K` ends a connection, tried on one over loopback: it succeeds also where the kernel cannot.
fn probe_cut(namespace: &Namespace) -> Result<(), NetemError> {
    let failed = |error| NetemError::system(&"trying to end a connection", error);
    let ends = namespace.within(ends).and_then(|ends| ends);
    let (near, _far) = ends.map_err(failed)?;
    let localhost = Ipv4Addr::LOCALHOST.to_string();
    let command = ["-N", namespace.name(), "-K", "dst", &localhost];
    tool("ss", &command)?;
    match is_ended(near, PATIENCE).map_err(failed)? {
        true => Ok(()),
        false => Err(NetemError::Command {
            command: format!("ss {}", command.join(" ")),
            reason: "the connection stays, so this kernel lacks CONFIG_INET_DIAG_DESTROY and links cannot be cut".to_owned(),
        }),
    }
}

/// A connection over loopback.
fn ends() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    Ok((near, listener.accept()?.0))
}

/// Whether a connection over which nothing is sent was ended, by a reset or by `ss -K`, which says "aborted" on its own side; waited for so
/// long at most.
pub(crate) fn is_ended(mut end: TcpStream, patience: Duration) -> io::Result<bool> {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset};
    end.set_read_timeout(Some(patience))?;
    let read = end.read(&mut [0]).map_err(|error| error.kind());
    Ok(matches!(read, Err(ConnectionReset | ConnectionAborted)))
}

/// Why kernel netem cannot do this profile on a link among so many hosts. Newer kernels refuse a queue that duplicates beside another netem
/// queue of its interface, and there is one for each of the other hosts: sch_netem.c, `check_netem_in_tree`.
pub(crate) fn refuses(profile: &LinkProfile, hosts: usize) -> Option<String> {
    if profile.segment_bytes.is_some() {
        return Some("kernel netem cannot cut segments (segment)".to_owned());
    }
    (profile.duplicate > 0.0 && hosts > 2).then(|| {
        "kernel netem repeats packets (duplicate) only where there are two hosts".to_owned()
    })
}

fn run(namespace: &str, command: &str) -> Result<String, NetemError> {
    let words: Vec<&str> = ["-n", namespace]
        .into_iter()
        .chain(command.split_whitespace())
        .collect();
    tool("tc", &words)
}

impl Kernel {
    pub(crate) fn start(
        hosts: &[(&Namespace, Ipv4Addr)],
        switch: Namespace,
    ) -> Result<Self, NetemError> {
        switch.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        switch.ip(&["link", "set", BRIDGE, "up"])?;
        for (number, (namespace, address)) in hosts.iter().enumerate() {
            wire(namespace, *address, &switch, number)?;
            let others = hosts
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != number);
            let others: Vec<(usize, Ipv4Addr)> = others
                .map(|(other, (_, address))| (other, *address))
                .collect();
            for command in queues(hosts.len(), &others) {
                run(namespace.name(), &command)?;
            }
        }
        let named = hosts.iter();
        Ok(Self {
            hosts: named
                .map(|(namespace, address)| (namespace.name().to_owned(), *address))
                .collect(),
            _switch: switch,
        })
    }

    pub(crate) fn set(
        &self,
        from: usize,
        to: usize,
        profile: &LinkProfile,
    ) -> Result<(), NetemError> {
        run(&self.hosts[from].0, &change(to, profile)).map(drop)
    }

    /// What passed one direction. The kernel counts what was lost together with what did not fit.
    pub(crate) fn counters(&self, from: usize, to: usize) -> Result<Counters, NetemError> {
        let text = run(&self.hosts[from].0, &format!("-s qdisc show dev {DEVICE}"))?;
        counted(&text, to).ok_or_else(|| NetemError::Command {
            command: "tc -s qdisc show".to_owned(),
            reason: format!("no figures of the queue {}", handle(to)),
        })
    }

    /// Ends every TCP connection between two hosts; [`probe`] has seen that the kernel can.
    ///
    /// # Errors
    /// What ss says.
    pub(crate) fn cut(&self, one: usize, other: usize) -> Result<(), NetemError> {
        for (here, there) in [(one, other), (other, one)] {
            let address = self.hosts[there].1.to_string();
            tool("ss", &["-N", &self.hosts[here].0, "-K", "dst", &address])?;
        }
        Ok(())
    }
}

/// Lays the veth pair from a host to the switch. The kernel hands a segment of many packets to netem in one piece, which then loses or repeats
/// all of them at once: so there are to be none. And a packet is received by the processor that took it from the queue, where it is overtaken
/// by what another one took: so one receives them all. Source: ip-link(8), `gso_max_segs`; Documentation/networking/scaling.rst, "RPS".
fn wire(
    host: &Namespace,
    address: Ipv4Addr,
    switch: &Namespace,
    number: usize,
) -> Result<(), NetemError> {
    let port = format!("port{number}");
    let peer = ["peer", "name", &port, "netns", switch.name()];
    host.ip(&[&["link", "add", DEVICE, "type", "veth"], &peer[..]].concat())?;
    host.ip(&["link", "set", DEVICE, "gso_max_segs", "1"])?;
    switch.ip(&["link", "set", &port, "gso_max_segs", "1"])?;
    let with_prefix = format!("{address}/{}", network::PREFIX_BITS);
    host.ip(&["address", "add", &with_prefix, "dev", DEVICE])?;
    host.ip(&["link", "set", DEVICE, "up"])?;
    switch.ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
    // A kernel for one processor has no such file.
    let file = receivers(&port);
    let steer = format!("! test -e {file} || echo 1 > {file}");
    tool("ip", &["netns", "exec", switch.name(), "sh", "-c", &steer])?;
    Ok(())
}

/// Says which processors receive what comes out of an interface, as a mask. Only `ip netns exec` shows a namespace's own.
fn receivers(device: &str) -> String {
    format!("/sys/class/net/{device}/queues/rx-0/rps_cpus")
}

/// The minor number of the class towards a host.
fn band(to: usize) -> String {
    format!("{:x}", to + 2)
}

/// The handle of the netem queue towards a host.
fn handle(to: usize) -> String {
    format!("{:x}:", 0x10 + to)
}

/// The commands that give an interface a queue for each of the other hosts.
fn queues(hosts: usize, others: &[(usize, Ipv4Addr)]) -> Vec<String> {
    let first_band = ["0"; 16].join(" ");
    let bands = hosts + 1;
    let mut commands = vec![format!(
        "qdisc add dev {DEVICE} root handle 1: prio bands {bands} priomap {first_band}"
    )];
    for (to, address) in others {
        let (band, handle) = (band(*to), handle(*to));
        commands.push(format!(
            "qdisc add dev {DEVICE} parent 1:{band} handle {handle} netem limit {PACKETS_MIN}"
        ));
        commands.push(format!(
            "filter add dev {DEVICE} parent 1: protocol ip prio 1 u32 match ip dst {address}/32 flowid 1:{band}"
        ));
    }
    commands
}

/// The command that gives the direction to a host another profile.
fn change(to: usize, profile: &LinkProfile) -> String {
    let (band, handle) = (band(to), handle(to));
    format!(
        "qdisc change dev {DEVICE} parent 1:{band} handle {handle} netem {}",
        netem(profile)
    )
}

/// A profile as tc writes it, with what it does not ask for as 0: a change leaves as they were the rate and the chance of a flipped bit that
/// it does not name (sch_netem.c, `netem_change`), and a rate of 0 is none (`netem_enqueue`).
fn netem(profile: &LinkProfile) -> String {
    let mut words = vec![format!("limit {}", packets(profile))];
    let microseconds = |time: std::time::Duration| format!("{}us", time.as_micros());
    if !profile.delay.is_zero() {
        words.push(format!("delay {}", microseconds(profile.delay)));
        if !profile.jitter.is_zero() {
            words.push(microseconds(profile.jitter));
        }
    }
    for (word, part) in [
        ("loss random", profile.loss),
        ("duplicate", profile.duplicate),
        ("corrupt", profile.corrupt),
        ("reorder", profile.reorder),
    ] {
        words.push(format!("{word} {:.4}%", part * 100.0));
    }
    // Jitter alone changes the order of packets. With a rate each is due after the one before: sch_netem.c, netem_enqueue.
    let for_order = (!profile.jitter.is_zero()).then_some(RATE_MAX);
    words.push(match profile.rate_bits.or(for_order) {
        // Over IP packets.
        Some(rate) => format!("rate {rate}bit -{ETHERNET}"),
        None => "rate 0bit".to_owned(),
    });
    words.join(" ")
}

/// What may be in the queue: what waits and what is on its way.
fn packets(profile: &LinkProfile) -> usize {
    match profile.rate_bits {
        None => PACKETS_UNLIMITED,
        Some(rate) => {
            let way = (profile.delay + profile.jitter).as_secs_f64() * rate as f64 / 8.0;
            ((profile.queue() + way as usize) / MTU).max(PACKETS_MIN)
        }
    }
}

/// Reads the figures of a queue out of `tc -s qdisc show`.
fn counted(text: &str, to: usize) -> Option<Counters> {
    let start = format!("qdisc netem {} ", handle(to));
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&start));
    let sent = lines.nth(1)?.trim().strip_prefix("Sent ")?;
    let mut words = sent.split_whitespace();
    let bytes: u64 = words.next()?.parse().ok()?;
    let packets: u64 = words.nth(1)?.parse().ok()?;
    let dropped = sent.split_once("(dropped ")?.1;
    let dropped = dropped.split(',').next()?.parse().ok()?;
    Some(Counters {
        packets: packets + dropped,
        bytes: bytes.saturating_sub(packets * ETHERNET),
        lost: dropped,
        ..Counters::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_what_the_manual_says() {
        let others = [(1, Ipv4Addr::new(10, 89, 0, 2))];
        assert_eq!(
            queues(2, &others),
            [
                "qdisc add dev link0 root handle 1: prio bands 3 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
                "qdisc add dev link0 parent 1:3 handle 11: netem limit 1000",
                "filter add dev link0 parent 1: protocol ip prio 1 u32 match ip dst 10.89.0.2/32 flowid 1:3",
            ]
        );
        let profile: LinkProfile = "delay 10ms 1ms rate 1000mbit loss 1% reorder 25%"
            .parse()
            .unwrap();
        assert_eq!(
            change(1, &profile),
            "qdisc change dev link0 parent 1:3 handle 11: netem limit 2583 delay 10000us 1000us loss random 1.0000% \
             duplicate 0.0000% corrupt 0.0000% reorder 25.0000% rate 1000000000bit -14"
        );
    }

    /// As after a fault: the kernel keeps the rate of before, and the flipped bits, until a command says otherwise.
    #[test]
    fn what_a_profile_does_not_ask_for_is_taken_back() {
        let none =
            "loss random 0.0000% duplicate 0.0000% corrupt 0.0000% reorder 0.0000% rate 0bit";
        assert_eq!(
            netem(&"delay 1ms".parse().unwrap()),
            format!("limit {PACKETS_UNLIMITED} delay 1000us {none}")
        );
        assert_eq!(
            netem(&LinkProfile::default()),
            format!("limit {PACKETS_UNLIMITED} {none}")
        );
    }

    #[test]
    fn what_the_kernel_cannot_do_is_refused() {
        let refused = |profile: &str, hosts| refuses(&profile.parse().unwrap(), hosts);
        assert!(refused("segment 1", 2).unwrap().contains("segment"));
        assert!(refused("duplicate 1%", 3).unwrap().contains("duplicate"));
        assert_eq!(refused("duplicate 1%", 2), None);
        assert_eq!(
            refused("delay 5ms 1ms rate 1mbit loss 1% corrupt 1% reorder 1%", 15),
            None
        );
    }

    /// tc reads a command before it asks the kernel, which may then lack netem.
    #[test]
    fn tc_understands_every_profile() {
        let Some(namespace) = namespace("words") else {
            return;
        };
        for profile in [
            "unshaped",
            "delay 1ms",
            "delay 60s 60s rate 1kbit queue 1500",
            "delay 5ms 1ms loss 100% duplicate 0.1% corrupt 0.01% reorder 25%",
            "rate 1000gbit queue 1000mib",
        ] {
            let words = netem(&profile.parse().unwrap());
            let added = run(
                namespace.name(),
                &format!("qdisc add dev lo root netem {words}"),
            );
            if let Err(error) = added {
                let said = error.to_string();
                assert!(said.contains("qdisc kind is unknown"), "{profile}: {said}");
                continue;
            }
            run(namespace.name(), "qdisc del dev lo root").unwrap();
        }
    }

    #[test]
    fn jitter_comes_with_a_rate_so_that_packets_stay_in_order() {
        let written = |profile: &str| netem(&profile.parse().unwrap());
        let jitter = written("delay 5ms 1ms");
        assert!(jitter.contains(" delay 5000us 1000us "), "{jitter}");
        assert!(jitter.ends_with(" rate 1000000000000bit -14"), "{jitter}");
        assert!(written("delay 5ms 1ms rate 8mbit").ends_with(" rate 8000000bit -14"));
        assert!(written("delay 5ms").ends_with(" rate 0bit"));
    }

    #[test]
    fn a_connection_that_was_reset_is_told_from_one_that_stays() {
        let (near, far) = ends().unwrap();
        assert!(!is_ended(near, PATIENCE).unwrap());
        drop(far);
        let (near, far) = ends().unwrap();
        let reset = socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO));
        reset.unwrap();
        drop(far);
        assert!(is_ended(near, PATIENCE).unwrap());
    }

    /// A namespace of this test's own; says loudly where there can be none.
    fn namespace(name: &str) -> Option<Namespace> {
        let made = Namespace::create(&format!("{}-{name}", crate::namespace::network_name()));
        if let Err(error) = &made {
            let is_required = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty());
            assert!(!is_required, "required in CI: {error}");
            eprintln!("SKIPPED, needs root and iproute2: {error}");
        }
        made.ok()
    }

    #[test]
    fn whether_connections_can_be_cut_is_as_the_kernel_was_configured() {
        let Some(namespace) = namespace("cut") else {
            return;
        };
        let found = probe_cut(&namespace);
        if let Err(error) = &found {
            let named = error.to_string();
            assert!(named.contains("CONFIG_INET_DIAG_DESTROY"), "{named}");
        }
        let config = std::process::Command::new("zcat")
            .arg("/proc/config.gz")
            .output()
            .unwrap();
        if !config.status.success() {
            eprintln!("SKIPPED: the kernel does not show its configuration");
            return;
        }
        let config = String::from_utf8(config.stdout).unwrap();
        let can = config
            .lines()
            .any(|line| line == "CONFIG_INET_DIAG_DESTROY=y");
        assert_eq!(found.is_ok(), can, "{found:?}");
    }

    #[test]
    fn netem_is_handed_single_packets_and_one_processor_receives_them() {
        let (Some(host), Some(switch)) = (namespace("host"), namespace("switch")) else {
            return;
        };
        switch
            .ip(&["link", "add", BRIDGE, "type", "bridge"])
            .unwrap();
        wire(&host, Ipv4Addr::new(10, 89, 0, 1), &switch, 0).unwrap();
        for (namespace, device) in [(&host, DEVICE), (&switch, "port0")] {
            let shown = namespace
                .ip(&["-d", "link", "show", "dev", device])
                .unwrap();
            assert!(shown.contains("gso_max_segs 1 "), "{shown}");
        }
        let mask = ["netns", "exec", switch.name(), "cat", &receivers("port0")];
        let mask = tool("ip", &mask).unwrap().trim().replace(',', "");
        assert_eq!(u128::from_str_radix(&mask, 16), Ok(1), "{mask}");
    }

    #[test]
    fn figures_are_read() {
        let text = "qdisc prio 1: root refcnt 2 bands 3 priomap 0 0\n Sent 9 bytes 9 pkt (dropped 9, overlimits 0 requeues 0)\n\
            qdisc netem 10: parent 1:2 limit 1000\n Sent 1 bytes 1 pkt (dropped 1, overlimits 0 requeues 0)\n backlog 0b 0p requeues 0\n\
            qdisc netem 11: parent 1:3 limit 1000 delay 10ms\n Sent 1234 bytes 17 pkt (dropped 3, overlimits 0 requeues 0)\n";
        let counters = counted(text, 1).unwrap();
        assert_eq!(
            (counters.bytes, counters.packets, counters.lost),
            (1234 - 17 * 14, 20, 3),
            "bytes of IP packets"
        );
        assert_eq!(counted(text, 2), None);
    }
}
