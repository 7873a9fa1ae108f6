//! Why two reports of a scenario are no measure of each other: what was run, with what, and on what.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::machine;
use crate::report::document::{Document, Links, Load};

/// Settings that differ and are named; the rest is counted.
const NAMED_MAX: usize = 6;

/// Why `after` is no measure of `before`; a line each, none where it is one.
#[must_use]
pub(super) fn obstacles(before: &Document, after: &Document) -> Vec<String> {
    let mut obstacles = Vec::new();
    let mut differ = |what: &str, old: &str, new: &str| {
        if old != new {
            obstacles.push(format!("{what}: {old} before, {new} after"));
        }
    };
    differ("different scenarios", &before.scenario, &after.scenario);
    if !is_same_source(&before.source, &after.source) {
        differ("different sources", &before.source, &after.source);
    }
    // Older reports do not say.
    if !before.broker.is_empty() && !after.broker.is_empty() {
        differ("different brokers", &before.broker, &after.broker);
    }
    if let (Some(old), Some(new)) = (&before.build, &after.build) {
        differ("different builds of the engine", old, new);
    }
    let links = [before, after].map(|document| document.figures.links.as_ref());
    let [old, new] = links.map(|links| links.map_or("none", |links| links.backend.as_str()));
    differ("links emulated otherwise", old, new);
    if let [Some(old), Some(new)] = links {
        differ("different links", &profiles(old), &profiles(new));
    }
    if let Some((old, new)) = machine::difference(&before.machine, &after.machine) {
        differ("different machines", old, new);
    }
    let loads = [before, after].map(|document| document.figures.load.as_ref());
    let [old, new] = loads.map(|load| load.map_or("none".to_owned(), offer));
    differ("different loads", &old, &new);
    if let [Some(old), Some(new)] = loads {
        // Older reports do not say.
        if let (Some(old), Some(new)) = (old.offered_seconds, new.offered_seconds) {
            differ("loads of different length", &seconds(old), &seconds(new));
        }
    }
    // Where as many were offered as the server takes, how many it took is what was measured.
    let is_open =
        |load: Option<&Load>| load.is_some_and(|load| load.offered_changes_per_second.is_none());
    if !loads.into_iter().all(is_open) {
        differ(
            "different numbers of changes",
            &before.figures.changes.to_string(),
            &after.figures.changes.to_string(),
        );
    }
    obstacles.extend(settings(before, after));
    for (side, document) in [("before", before), ("after", after)] {
        if !document.verified {
            let why = document.failures.first().map_or("", String::as_str);
            obstacles.push(format!("the report {side} is not verified: {why}"));
        }
    }
    obstacles
}

/// What was run otherwise, setting by setting, as far as both say: older reports do not.
fn settings(before: &Document, after: &Document) -> Option<String> {
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    flatten(before.settings.as_ref()?, "", &mut old);
    flatten(after.settings.as_ref()?, "", &mut new);
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let shown = |value: Option<&String>| value.map_or("none".to_owned(), String::clone);
    let mut differences: Vec<String> = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| {
            let (old, new) = (shown(old.get(name)), shown(new.get(name)));
            format!("{name} {old} before, {new} after")
        })
        .collect();
    let unnamed = differences.len().saturating_sub(NAMED_MAX);
    if unnamed > 0 {
        differences.truncate(NAMED_MAX);
        differences.push(format!("and {unnamed} more"));
    }
    (!differences.is_empty()).then(|| format!("different settings: {}", differences.join("; ")))
}

/// Puts the values of `value` into `flat` by their names, `fault[0].at_changes`, as JSON. An empty table is as good as none.
fn flatten(value: &Value, name: &str, flat: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                let name = match name.is_empty() {
                    true => key.clone(),
                    false => format!("{name}.{key}"),
                };
                flatten(value, &name, flat);
            }
        }
        Value::Array(tables) if tables.iter().any(Value::is_object) => {
            for (number, value) in tables.iter().enumerate() {
                flatten(value, &format!("{name}[{number}]"), flat);
            }
        }
        _ => {
            flat.insert(name.to_owned(), value.to_string());
        }
    }
}

/// Whether these are the same, as far as both say: older reports do not say which live server theirs was.
fn is_same_source(old: &str, new: &str) -> bool {
    const UNNAMED: &str = "live server";
    let is_live = |one: &str| one.starts_with("live ");
    let is_same = |(old, new): (&str, &str)| {
        let is_unnamed = old == UNNAMED || new == UNNAMED;
        old == new || (is_unnamed && is_live(old) && is_live(new))
    };
    let (old, new) = (old.split(" + "), new.split(" + "));
    old.clone().count() == new.clone().count() && old.zip(new).all(is_same)
}

/// What was offered.
fn offer(load: &Load) -> String {
    let rate = match load.offered_changes_per_second {
        Some(rate) => format!("{rate} changes/s"),
        None => "as many changes as the server takes".to_owned(),
    };
    let (rows, writers) = (load.rows_per_commit, load.writers);
    format!("{rate}, {rows} a commit, by {writers} writers")
}

fn seconds(length: f64) -> String {
    format!("{length} s")
}

/// What the links were told to be like.
fn profiles(links: &Links) -> String {
    let links = links.links.iter().map(|link| {
        let (to, from) = (&link.to_engine.profile, &link.from_engine.profile);
        let one = link.seen_from.as_deref().unwrap_or("the engine");
        format!("{}: to {one} {to}, from it {from}", link.host)
    });
    links.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn links_of_another_make_or_profile_are_no_measure() {
        let obstacles_with = |change: fn(&mut Links)| {
            let mut after = samples::linked();
            after.figures.links.as_mut().map(change).unwrap();
            obstacles(&samples::linked(), &after)
        };
        assert_eq!(obstacles_with(|_| {}), [""; 0]);
        let proxy = obstacles_with(|links| links.backend = "proxy".into());
        assert_eq!(proxy, ["links emulated otherwise: tun before, proxy after"]);
        let slow = obstacles_with(|links| links.links[0].from_engine.profile = "delay 1s".into());
        assert_eq!(slow.len(), 1, "{slow:?}");
        assert!(slow[0].starts_with("different links: ") && slow[0].contains("delay 1s after"));
        // Bytes and losses are what was measured.
        let more = obstacles_with(|links| links.links[0].to_engine.bytes += 1);
        assert_eq!(more, [""; 0]);
    }

    #[test]
    fn links_or_a_load_on_one_side_alone_are_an_obstacle() {
        let mut plain = samples::linked();
        plain.figures.links = None;
        let without = obstacles(&samples::linked(), &plain);
        assert_eq!(
            without,
            ["links emulated otherwise: tun before, none after"]
        );
        let with = obstacles(&plain, &samples::linked());
        assert_eq!(with, ["links emulated otherwise: none before, tun after"]);
        let mut idle = samples::loaded();
        idle.figures.load = None;
        let offer = "50000 changes/s, 10 a commit, by 4 writers";
        let expected = format!("different loads: {offer} before, none after");
        assert_eq!(obstacles(&samples::loaded(), &idle), [expected]);
        let expected = format!("different loads: none before, {offer} after");
        assert_eq!(obstacles(&idle, &samples::loaded()), [expected]);
    }

    #[test]
    fn another_generation_of_processor_is_another_machine() {
        let of = |machine: &str| {
            let mut document = samples::document(5, 2e6);
            document.machine = format!("{machine}, 2 cores, Linux 6.1");
            document
        };
        let [old, new] = [1, 17].map(|model| format!("A (family 25 model {model} stepping 1)"));
        let expected = format!("different machines: {old}, 2 cores before, {new}, 2 cores after");
        assert_eq!(obstacles(&of(&old), &of(&new)), [expected]);
        // Older reports do not say.
        assert_eq!(obstacles(&of("A"), &of(&new)), [""; 0]);
    }

    #[test]
    fn a_debug_build_is_no_measure_of_a_release_build() {
        let of = |build: Option<&str>| {
            let mut document = samples::document(5, 2e6);
            document.build = build.map(str::to_owned);
            document
        };
        let other = obstacles(&of(Some("release")), &of(Some("debug")));
        assert_eq!(
            other,
            ["different builds of the engine: release before, debug after"]
        );
        for older in [None, Some("release")] {
            assert_eq!(obstacles(&of(older), &of(Some("release"))), [""; 0]);
        }
    }

    #[test]
    fn other_settings_are_other_work_and_named() {
        let with = |settings: Value| {
            let mut document = samples::document(5, 2e6);
            document.settings = Some(settings);
            document
        };
        let of = |old: Value, new: Value| obstacles(&with(old), &with(new));
        let plain = || serde_json::json!({ "source": [{ "recording": "x" }], "walbrook": {} });
        assert_eq!(of(plain(), plain()), [""; 0]);
        let mut uring = plain();
        uring["walbrook"] = serde_json::json!({ "engine": { "io": "uring" } });
        assert_eq!(
            of(plain(), uring.clone()),
            ["different settings: walbrook.engine.io none before, \"uring\" after"]
        );
        let mut faulty = plain();
        faulty["fault"] = serde_json::json!([{ "at_changes": 5, "do": "kill_engine" }]);
        let mut later = faulty.clone();
        later["fault"][0]["at_changes"] = 7.into();
        assert_eq!(
            of(faulty.clone(), later),
            ["different settings: fault[0].at_changes 5 before, 7 after"]
        );
        let both = of(faulty, uring);
        assert_eq!(both[0].matches(" before, ").count(), 3, "{both:?}");
        let many = |value: usize| {
            let fields = ["a", "b", "c", "d", "e", "f", "g", "h"];
            Value::from_iter(fields.map(|name| (name, value)))
        };
        let many = of(many(1), many(2));
        assert!(
            many[0].ends_with("; f 1 before, 2 after; and 2 more"),
            "{many:?}"
        );
        // Older reports do not say.
        let older = samples::document(5, 2e6);
        assert_eq!(obstacles(&older, &with(plain())), [""; 0]);
        assert_eq!(obstacles(&with(plain()), &older), [""; 0]);
    }

    #[test]
    fn sources_are_the_same_where_older_reports_do_not_say() {
        let obstacles_of = |old: &str, new: &str| {
            let (mut before, mut after) = (samples::both(), samples::both());
            (before.source, after.source) = (old.into(), new.into());
            obstacles(&before, &after)
        };
        for (old, new) in [
            ("live server", "live mysql"),
            ("live mysql", "live mysql"),
            ("mysql-9.7-1m + live server", "mysql-9.7-1m + live postgres"),
        ] {
            assert_eq!(obstacles_of(old, new), [""; 0], "{old}, {new}");
        }
        for (old, new) in [
            ("live mysql", "live postgres"),
            ("live server", "mysql-9.7-1m"),
            ("mysql-9.7-1m", "mysql-9.7-1m + postgres-15-1m"),
            ("mysql-9.7-1m + live server", "mysql-9.7-20k + live mysql"),
        ] {
            let expected = format!("different sources: {old} before, {new} after");
            assert_eq!(obstacles_of(old, new), [expected]);
        }
    }
}
