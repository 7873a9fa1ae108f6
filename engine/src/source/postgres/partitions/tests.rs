//! Publications of a partitioned table, one in two levels, and what of it is selected.

use super::super::generated::Generated;
use super::super::server::{Answer, Role, Settings};
use super::super::unsent::Unsent;
use super::*;
use crate::config::{Keys, SlotSettings};

/// `log` has `log_1`, and `log_old` above `log_0`; `log_1` has no replica identity.
fn tables() -> Vec<UserTable> {
    let table = |oid, name: &str, above: &[u32]| UserTable {
        oid,
        schema: "public".into(),
        name: name.into(),
        partitioned: !name.ends_with(|last: char| last.is_ascii_digit()),
        is_partition: !above.is_empty(),
        above: above.into(),
        indices: Vec::new(),
        identity: 'd',
        has_index: name != "log_1",
        owned: true,
    };
    vec![
        table(1, "log", &[]),
        table(2, "log_old", &[1]),
        table(3, "log_0", &[2, 1]),
        table(4, "log_1", &[1]),
        UserTable {
            partitioned: false,
            ..table(5, "other", &[])
        },
    ]
}

fn publication(via_root: bool, all_tables: bool) -> Publication {
    Publication {
        all_tables,
        lacks: Vec::new(),
        truncates: true,
        via_root,
        owned: true,
    }
}

fn published(names: &[&str]) -> Vec<(String, String)> {
    let pair = |name: &&str| ("public".to_owned(), (*name).to_owned());
    names.iter().map(pair).collect()
}

/// What is said of `globs`; empty where nothing is.
fn said(plugin: Plugin, publication: Option<&Publication>, has: &[&str], globs: &[&str]) -> String {
    let facts = Facts {
        settings: &Settings::default(),
        role: &Role::default(),
        database: "shop",
        recovery: false,
        ours: &SlotSettings {
            plugin,
            ..SlotSettings::of("shop")
        },
        slot: None,
        slots: &Answer::default(),
        publication,
        published: &published(has),
        tables: &tables(),
        selection: &Selection::new(globs).unwrap(),
        truncates: false,
        generated: &Generated::default(),
        keys: &Keys::default(),
        unsent: &Unsent::default(),
    };
    match selected_in_vain(&facts).map(|found| found.outcome) {
        None => String::new(),
        Some(Outcome::Advice(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_partition_that_is_sent_as_its_root_is_selected_in_vain() {
    let by_root = publication(true, false);
    let said =
        |publication, has: &[&str], globs: &[&str]| said(Plugin::PgOutput, publication, has, globs);
    let all = publication(true, true);
    for (publication, has) in [
        (None, &[][..]),
        (Some(&by_root), &["log"]),
        // Not published yet: it would be by its root.
        (Some(&by_root), &["other"]),
        (Some(&all), &[]),
    ] {
        let text = said(publication, has, &["public.log_1"]);
        for words in [
            "public.log_1 under that of public.log",
            "write \"public.log\" in tables",
        ] {
            assert!(text.contains(words), "{text}");
        }
        let alternative =
            "ALTER PUBLICATION walbrook_shop SET (publish_via_partition_root = false)";
        assert_eq!(text.contains(alternative), publication.is_some(), "{text}");
        for globs in [
            &["public.log"][..],
            &["public.log*"],
            &["*.*"],
            &["public.other"],
        ] {
            assert_eq!(said(publication, has, globs), "", "{globs:?}");
        }
    }
    // The publication has what lies between, or the partition itself, and not the root.
    let text = said(Some(&by_root), &["log_old"], &["public.log_0"]);
    assert!(text.contains("under that of public.log_old"), "{text}");
    assert_eq!(said(Some(&by_root), &["log_old"], &["public.log_old"]), "");
    assert_eq!(said(Some(&by_root), &["log_0"], &["public.log_0"]), "");
}

#[test]
fn a_root_whose_partitions_are_sent_is_selected_in_vain() {
    let apart = publication(false, false);
    let leaves = ["log_0", "log_1"];
    for (plugin, publication, alternative) in [
        (
            Plugin::PgOutput,
            Some(&apart),
            "ALTER PUBLICATION walbrook_shop SET (publish_via_partition_root = true)",
        ),
        (Plugin::Wal2Json, None, "plugin = \"pgoutput\""),
    ] {
        let said = |globs: &[&str]| said(plugin, publication, &leaves, globs);
        // With what lies between it is said once.
        for globs in [&["public.log"][..], &["public.log", "public.log_old"]] {
            let text = said(globs);
            for words in [
                "nothing is captured of public.log (public.log_0, public.log_1);",
                "write \"public.log_0\", \"public.log_1\" in tables",
                alternative,
            ] {
                assert!(text.contains(words), "{text}");
            }
        }
        assert!(said(&["public.log_old"]).contains("of public.log_old (public.log_0)"));
        for globs in [
            &["public.log*"][..],
            &["public.log", "public.log_1"],
            &["public.log_1"],
            &["*.*"],
            &["public.other"],
        ] {
            assert_eq!(said(globs), "", "{globs:?}");
        }
    }
}

#[test]
fn partitions_are_asked_about_where_they_matter() {
    let matter = |tables: &[UserTable], globs: &[&str]| {
        super::matter(tables, &Selection::new(globs).unwrap())
    };
    let mut tables = tables();
    // One has no replica identity.
    assert!(matter(&tables, &["*.*"]));
    tables[3].has_index = true;
    assert!(!matter(&tables, &["*.*"]));
    assert!(!matter(&tables, &["public.other"]));
    assert!(matter(&tables, &["public.log"]));
    assert!(matter(&tables, &["public.log_1"]));
    // The indices matter, too, where they are not the primary key that comes from the root.
    assert_eq!(with_differing_identities(&tables), [0; 0]);
    tables[0].identity = 'f';
    assert!(matter(&tables, &["*.*"]));
    assert_eq!(with_differing_identities(&tables), [1, 2, 3, 4]);
    tables[3].identity = 'f';
    assert_eq!(with_differing_identities(&tables), [1, 2, 3]);
    tables[2].identity = 'f';
    assert_eq!(with_differing_identities(&tables), [0; 0]);
}

/// A partition that came without one: an application's statements on the root fail.
#[test]
fn a_published_partition_without_an_identity_is_named() {
    let tables = tables();
    let named = |publication: &Publication, has: &[&str], globs: &[&str]| {
        let selection = Selection::new(globs).unwrap();
        refusing(&tables, publication, &published(has), &selection)
    };
    let by_root = publication(true, false);
    assert_eq!(named(&by_root, &["log"], &["public.log"]), ["public.log_1"]);
    assert_eq!(
        named(&publication(true, true), &[], &["*.*"]),
        ["public.log_1"]
    );
    let apart = publication(false, false);
    assert_eq!(
        named(&apart, &["log_1"], &["public.log_*"]),
        ["public.log_1"]
    );
    // Not published, not captured, or only ever inserted into.
    assert_eq!(named(&by_root, &["other"], &["*.*"]), [""; 0]);
    assert_eq!(named(&by_root, &["log"], &["public.other"]), [""; 0]);
    let inserts = Publication {
        lacks: vec!["update", "delete"],
        ..publication(true, false)
    };
    assert_eq!(named(&inserts, &["log"], &["*.*"]), [""; 0]);
}
