//! Whether a scenario can be: what contradicts itself, and what this version has not.

use super::{BrokerKind, Deed, Expect, Fault, Kind, Link, LiveServer, Scenario, Source};

impl Expect {
    fn is_of_load(&self) -> bool {
        let limits = [
            self.commit_p50_ms_max,
            self.commit_p99_ms_max,
            self.due_p99_ms_max,
            self.acknowledged_p99_ms_max,
        ];
        limits.iter().any(Option::is_some) || self.is_over_links()
    }

    fn is_over_links(&self) -> bool {
        let limits = [
            self.commit_p50_over_round_trip_ms_max,
            self.commit_p99_over_round_trip_ms_max,
        ];
        limits.iter().any(Option::is_some)
    }
}

impl Scenario {
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_links()?;
        self.broker.check()?;
        if self.source.is_empty() {
            return Err("source: none is named".into());
        }
        for source in &self.source {
            match (&source.recording, source.server, source.rows) {
                (Some(_), None, None) | (None, Some(_), Some(_)) if self.load.is_none() => {}
                (None, Some(_), None) if self.load.is_some() => {}
                _ if self.load.is_some() => {
                    return Err("source: with `load`, `server` and no `rows`".into());
                }
                _ => return Err("source: either `recording`, or `server` and `rows`".into()),
            }
        }
        if let Some(load) = &self.load {
            load.check()?;
            if self.broker.kind != Kind::Embedded {
                return Err(
                    "load: broker.kind = \"kafka\" is not available with it in this version".into(),
                );
            }
            if self.source.len() > 1 {
                return Err("load: takes one source".into());
            }
            if !self.fault.is_empty() {
                return Err("fault: not available with `load` in this version".into());
            }
            if self.expect.times_limit_max.is_some() {
                return Err(
                    "expect: times_limit_max says nothing with `load`, which takes as long as it is offered; limit commits instead".into(),
                );
            }
        } else if self.expect.is_of_load() {
            return Err(
                "expect: commit_p50_ms_max, commit_p99_ms_max, due_p99_ms_max, acknowledged_p99_ms_max and those over the round trip need `load`"
                    .into(),
            );
        }
        let is_mariadb = |source: &Source| source.server == Some(LiveServer::Mariadb);
        if self.expect.acknowledged_p99_ms_max.is_some() && self.source.iter().any(is_mariadb) {
            return Err(
                "expect: acknowledged_p99_ms_max cannot be measured with MariaDB, which says whole seconds of a commit; commit_p99_ms_max is measured from outside".into(),
            );
        }
        let is_linked = self.is_emulated(Link::Source) || self.is_emulated(Link::Kafka);
        if self.expect.is_over_links() && !is_linked {
            return Err(
                "expect: commit_p50_over_round_trip_ms_max and commit_p99_over_round_trip_ms_max need [link.source] or [link.kafka]".into(),
            );
        }
        self.fault
            .iter()
            .try_for_each(|fault| self.check_fault(fault))
    }

    fn check_fault(&self, fault: &Fault) -> Result<(), String> {
        let is_of_packets = matches!(fault.deed, Deed::DropOneWay | Deed::Rate | Deed::OneByte);
        let is_of_link = is_of_packets || matches!(fault.deed, Deed::Cut | Deed::Stall);
        if is_of_packets && !self.is_emulated(fault.link) {
            return Err(
                "fault: drop_one_way, rate and one_byte need the link to be emulated: [link.kafka], [link.source] or [link.brokers]".into(),
            );
        }
        if is_of_link && fault.link == Link::Brokers && !self.is_emulated(Link::Brokers) {
            return Err("fault: link = \"brokers\" needs [link.brokers]".into());
        }
        if (fault.deed == Deed::Rate) != fault.rate_mbit.is_some_and(|rate| rate > 0.0) {
            return Err("fault: rate needs rate_mbit, and nothing else does".into());
        }
        if fault.way.is_some() && fault.deed != Deed::DropOneWay {
            return Err("fault: way belongs to drop_one_way".into());
        }
        if self.is_served(fault) && self.source.iter().any(|source| source.server.is_some()) {
            return Err(
                "fault: the link to a live server can be cut or stalled only where it is emulated, [link.source]"
                    .into(),
            );
        }
        let is_real = self.broker.kind == Kind::Kafka;
        if fault.deed == Deed::Cut
            && is_real
            && !self.is_served(fault)
            && !self.is_emulated(fault.link)
        {
            return Err("fault: connections to real brokers can only be cut on an emulated link, [link.kafka]; stall, restart_broker and move_leader need none".into());
        }
        if fault.deed == Deed::MoveLeader && self.broker.count < 2 {
            return Err("fault: move_leader needs broker.count of at least 2".into());
        }
        if fault.at_changes.is_some() == fault.every_changes.is_some() {
            return Err("fault: either at_changes or every_changes".into());
        }
        Ok(())
    }

    fn check_links(&self) -> Result<(), String> {
        let Some(link) = &self.link else {
            return Ok(());
        };
        if link.brokers.is_some() && self.broker.kind == Kind::Embedded {
            return Err("link.brokers: embedded brokers do not talk to each other; broker.kind = \"kafka\" for real ones".into());
        }
        if link.brokers.is_some() && self.broker.count < 2 {
            return Err("link.brokers: a single broker has no other to talk to; broker.count = 3 for several".into());
        }
        Ok(())
    }
}

impl BrokerKind {
    fn check(&self) -> Result<(), String> {
        if self.kind == Kind::Kafka && !matches!(self.count, 1 | 3) {
            return Err("broker.count: real brokers are 1 or 3".into());
        }
        let set = [
            ("warm_up_records", self.warm_up_records > 0),
            ("warm_up_requests", self.warm_up_requests > 0),
            ("existing_topics", self.existing_topics),
            ("properties", !self.properties.is_empty()),
        ];
        match set.iter().find(|(_, set)| *set) {
            Some((name, _)) if self.kind == Kind::Embedded => {
                Err(format!("broker.{name}: only for kind = \"kafka\""))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parsed;
    use super::*;

    #[test]
    fn what_is_not_available_says_so() {
        let refused = |text: &str| parsed(&format!("[[source]]\nrecording = \"x\"\n{text}"));
        for (text, named) in [
            ("[link.brokers]\ndelay_ms = 10", "link.brokers"),
            ("[link.kafka]\ndelay = 10", "delay"),
            (
                "[[fault]]\nat_changes = 1\ndo = \"rate\"\nrate_mbit = 1",
                "emulated",
            ),
            (
                "[link.source]\n[[fault]]\nat_changes = 1\ndo = \"rate\"",
                "rate_mbit",
            ),
            (
                "[link.source]\n[[fault]]\nat_changes = 1\ndo = \"cut\"\nway = \"to_engine\"",
                "way",
            ),
            (
                "[link.source]\n[[fault]]\nat_changes = 1\nlink = \"kafka\"\ndo = \"one_byte\"",
                "one_byte",
            ),
        ] {
            let error = refused(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        assert!(refused("[link.kafka]\ndelay_ms = 10").is_ok());
        let both = parsed("[[source]]\nrecording = \"x\"\nserver = \"mysql\"").unwrap_err();
        assert!(both.starts_with("source: either"), "{both}");
    }

    #[test]
    fn a_load_is_not_held_to_the_time_that_its_links_need() {
        let text = "[[source]]\nserver = \"mysql\"\n[load]\ncommits_per_second = 30\nseconds = 5\n[link.source]\nrate_mbit = 20\n";
        assert!(parsed(text).is_ok());
        let error = parsed(&format!("{text}[expect]\ntimes_limit_max = 1.2")).unwrap_err();
        assert!(error.contains("times_limit_max"), "{error}");
    }

    #[test]
    fn real_brokers_are_one_or_three() {
        let broker = |text: &str| parsed(&format!("[[source]]\nrecording = \"x\"\n{text}"));
        let kafka =
            broker("[broker]\nkind = \"kafka\"\ncount = 3\nwarm_up_records = 1000").unwrap();
        assert_eq!((kafka.broker.kind, kafka.broker.count), (Kind::Kafka, 3));
        for wrong in [
            "[broker]\nkind = \"kafka\"\ncount = 2",
            "[broker]\nkind = \"kafak\"",
            "[broker]\nwarm_up_records = 1",
            "[broker]\nwarm_up_requests = 1",
            "[broker]\nexisting_topics = true",
            "[broker.properties]\nnum.io.threads = 1",
            "[broker]\nkind = \"kafka\"\nproperties = { node.id = 1 }",
            "[broker]\nkind = \"kafka\"\n[[fault]]\nat_changes = 1\nlink = \"kafka\"\ndo = \"cut\"",
            "[[fault]]\nat_changes = 1\ndo = \"move_leader\"",
        ] {
            assert!(broker(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn links_of_real_brokers_want_real_brokers() {
        let scenario = |broker: &str, rest: &str| {
            parsed(&format!(
                "[[source]]\nrecording = \"x\"\n[broker]\n{broker}\n{rest}"
            ))
        };
        let three = "kind = \"kafka\"\ncount = 3\nproperties = { socket.send.buffer.bytes = -1 }";
        let both = "[link.kafka]\ndelay_ms = 10\n[link.brokers]\ndelay_ms = 10\n";
        let linked = scenario(three, both).unwrap();
        assert!(linked.is_emulated(Link::Kafka) && linked.is_emulated(Link::Brokers));
        let fault = |link: &str, deed: &str| {
            format!("{both}[[fault]]\nat_changes = 1\nlink = \"{link}\"\ndo = \"{deed}\"")
        };
        for possible in [
            "[link.kafka]\nrate_mbit = 1000",
            "[link.brokers]\nrate_mbit = 1000",
            "[link.source]\nrate_mbit = 1000",
            &fault("kafka", "cut"),
            &fault("brokers", "cut"),
            &fault("brokers", "drop_one_way"),
        ] {
            scenario(three, possible).unwrap();
        }
        let stalled = "[link.kafka]\n[[fault]]\nat_changes = 1\nlink = \"brokers\"\ndo = \"stall\"";
        for (broker, rest, named) in [
            ("kind = \"kafka\"", both, "link.brokers"),
            ("count = 3", both, "link.brokers"),
            (three, stalled, "link = \"brokers\""),
            (
                three,
                "[link.brokers]\n[[fault]]\nat_changes = 1\nlink = \"kafka\"\ndo = \"cut\"",
                "[link.kafka]",
            ),
        ] {
            let error = scenario(broker, rest).unwrap_err();
            assert!(error.contains(named), "{broker}, {rest}: {error}");
        }
    }

    #[test]
    fn a_live_server_is_behind_a_link_and_only_there_cut() {
        let live = "[[source]]\nserver = \"mysql\"\nrows = 1\n";
        let fault = "[[fault]]\nat_changes = 1\nlink = \"source\"\ndo = \"cut\"";
        let linked = format!("{live}[link.source]\ndelay_ms = 1\n{fault}");
        assert!(parsed(&linked).unwrap().is_emulated(Link::Source));
        let error = parsed(&format!("{live}[link.kafka]\ndelay_ms = 1\n{fault}")).unwrap_err();
        assert!(error.contains("[link.source]"), "{error}");
    }

    #[test]
    fn a_load_wants_one_live_server_that_holds_nothing() {
        let load = "[load]\ncommits_per_second = 10.0\nseconds = 2.0\n";
        let scenario = |text: &str| parsed(&format!("{text}{load}"));
        assert!(scenario("[[source]]\nserver = \"postgres\"\n").is_ok());
        for wrong in [
            "[[source]]\nrecording = \"x\"\n",
            "[[source]]\nserver = \"mysql\"\nrows = 10\n",
            "[[source]]\nserver = \"mysql\"\n[[source]]\nserver = \"postgres\"\n",
            "[[source]]\nserver = \"mysql\"\n[broker]\nkind = \"kafka\"\n",
            "[[source]]\nserver = \"mysql\"\n[[fault]]\nat_changes = 1\ndo = \"kill_engine\"\n",
        ] {
            assert!(scenario(wrong).is_err(), "{wrong}");
        }
        let alone = parsed("[[source]]\nrecording = \"x\"\n[expect]\ncommit_p50_ms_max = 1.0");
        assert!(alone.unwrap_err().contains("load"));
        let over = "[expect]\ncommit_p99_over_round_trip_ms_max = 1.0\n";
        let linked = format!("[[source]]\nserver = \"mysql\"\n{over}[link.kafka]\ndelay_ms = 1\n");
        assert!(scenario(&linked).is_ok());
        let own = |server: &str| {
            scenario(&format!(
                "[[source]]\nserver = \"{server}\"\n[expect]\nacknowledged_p99_ms_max = 20.0\n"
            ))
        };
        assert!(own("mysql").is_ok() && own("postgres").is_ok());
        assert!(own("mariadb").unwrap_err().contains("whole seconds"));
        let idle = linked.replace("server = \"mysql\"", "recording = \"x\"");
        assert!(parsed(&idle).unwrap_err().contains("load"));
        let unlinked = scenario(&format!("[[source]]\nserver = \"mysql\"\n{over}"));
        assert!(unlinked.unwrap_err().contains("[link.source]"));
        for wrong in [
            "seconds = 1.0",
            "seconds = 2.0\nwriters = 0",
            "seconds = 2.0\nrows_per_commit = 0",
            "seconds = 2.0\ncommits_per_second = 0.0",
            "seconds = 2.0\nbare_seconds = 0.5",
        ] {
            let text = format!("[[source]]\nserver = \"mysql\"\n[load]\n{wrong}");
            assert!(parsed(&text).is_err(), "{wrong}");
        }
    }
}
