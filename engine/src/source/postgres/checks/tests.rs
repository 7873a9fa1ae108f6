//! What servers are judged to lack.

use super::*;

fn slot() -> Slot {
    Slot {
        name: "walbrook_shop".into(),
        plugin: Some("pgoutput".into()),
        database: Some("shop".into()),
        active_pid: None,
        active: false,
        confirmed: None,
        wal_status: Some("reserved".into()),
        invalidation: None,
        failover: false,
        synced: false,
    }
}

/// wal2json's text is converted by nobody.
#[test]
fn text_is_utf_8_or_the_start_says_so() {
    let judged = |encoding: &str, plugin, has_slot| {
        let settings = Settings::read(&Answer {
            columns: vec!["name".into(), "setting".into()],
            rows: vec![vec![Some("server_encoding".into()), Some(encoding.into())]],
        });
        let found = encoding_of(&settings, plugin, has_slot);
        found.expect("a setting").outcome
    };
    for plugin in [Plugin::PgOutput, Plugin::Wal2Json] {
        assert_eq!(judged("UTF8", plugin, false), Outcome::Met);
        assert!(matches!(
            judged("SQL_ASCII", plugin, false),
            Outcome::Advice(_)
        ));
    }
    assert_eq!(judged("LATIN1", Plugin::PgOutput, false), Outcome::Met);
    for (has_slot, expected) in [(false, "converts it"), (true, "with another slot = …")] {
        let Outcome::Missing(text) = judged("LATIN1", Plugin::Wal2Json, has_slot) else {
            panic!("LATIN1 taken for UTF-8");
        };
        assert!(text.contains("LATIN1; set plugin = \"pgoutput\""), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}

/// Facts of a server with this version, and what `change` makes of them.
pub(in crate::source::postgres) fn judged<T>(
    major: &str,
    change: impl FnOnce(&mut Facts<'_>) -> T,
) -> T {
    let number = format!("{major}0001");
    let settings = Settings::read(&pairs(&[("server_version_num", &*number)]));
    let ours = SlotSettings::of("shop");
    let generated = Generated::default();
    change(&mut Facts {
        settings: &settings,
        role: &Role::default(),
        database: "shop",
        recovery: false,
        ours: &ours,
        slot: None,
        slots: &Answer::default(),
        publication: None,
        published: &[],
        tables: &[],
        selection: &Selection::everything(),
        truncates: false,
        generated: &generated,
        keys: &Keys::default(),
        unsent: &Unsent::default(),
    })
}

fn pairs(settings: &[(&str, &str)]) -> Answer {
    Answer {
        columns: vec!["name".into(), "setting".into()],
        rows: (settings.iter())
            .map(|(name, value)| vec![Some((*name).into()), Some((*value).into())])
            .collect(),
    }
}

#[test]
fn a_standby_needs_a_version_that_decodes_there() {
    let outcome = |major: &str, recovery| {
        judged(major, |facts| {
            facts.recovery = recovery;
            standby(facts).map(|requirement| requirement.outcome)
        })
    };
    assert_eq!(outcome("15", false), None);
    assert_eq!(outcome("16", true), Some(Outcome::Met));
    let Some(Outcome::Missing(text)) = outcome("15", true) else {
        panic!("taken for able");
    };
    assert!(text.contains("connect to the primary"), "{text}");
}

#[test]
fn a_slot_that_stays_behind_is_named_where_there_are_standbys() {
    let said = |major: &str, failover: bool, kinds: &[&str]| {
        let slots = Answer {
            columns: vec!["slot_type".into()],
            rows: (kinds.iter())
                .map(|kind| vec![Some((*kind).into())])
                .collect(),
        };
        let ours = Slot { failover, ..slot() };
        judged(major, |facts| {
            let facts = Facts {
                slot: Some(&ours),
                slots: &slots,
                ..*facts
            };
            super::failover(&facts).map(|requirement| requirement.outcome)
        })
    };
    let both = ["logical", "physical"];
    assert_eq!(said("16", false, &both), None);
    assert_eq!(said("17", false, &both[..1]), None);
    assert_eq!(said("17", true, &both), Some(Outcome::Met));
    let Some(Outcome::Advice(text)) = said("17", false, &both) else {
        panic!("not named");
    };
    assert!(
        text.contains("ALTER_REPLICATION_SLOT walbrook_shop"),
        "{text}"
    );
}

#[test]
fn a_slot_that_may_idle_only_so_long_is_advised_against() {
    let said = |value: Option<&str>| {
        let value = value.map(|value| ("idle_replication_slot_timeout", value));
        idling(&Settings::read(&pairs(value.as_slice()))).map(|it| it.outcome)
    };
    assert_eq!(said(None), None);
    assert_eq!(said(Some("0")), Some(Outcome::Met));
    let Some(Outcome::Advice(text)) = said(Some("3600")) else {
        panic!("not named");
    };
    assert!(text.contains("is 3600 s"), "{text}");
}

/// Rows are lost where they are left out, not where the server refuses them.
#[test]
fn tables_that_wal2json_leaves_rows_out_of_are_a_reason_to_halt() {
    use OnUnpublished::{Halt, Warn};
    use Plugin::{PgOutput, Wal2Json};

    let tables = [UserTable {
        oid: 1,
        schema: "s".into(),
        name: "log".into(),
        partitioned: false,
        is_partition: false,
        above: Vec::new(),
        indices: Vec::new(),
        identity: 'd',
        has_index: false,
        owned: true,
    }];
    let published = [("s".to_owned(), "log".to_owned())];
    let publication = Publication {
        all_tables: false,
        lacks: Vec::new(),
        truncates: true,
        via_root: true,
        owned: true,
    };
    let outcome = |plugin, on_unpublished| {
        let ours = SlotSettings {
            plugin,
            on_unpublished,
            ..SlotSettings::of("shop")
        };
        judged("15", |facts| {
            let facts = Facts {
                ours: &ours,
                tables: &tables,
                publication: Some(&publication),
                published: &published,
                ..*facts
            };
            without_any(&facts).outcome
        })
    };
    for (plugin, on_unpublished) in [(PgOutput, Warn), (PgOutput, Halt), (Wal2Json, Warn)] {
        let outcome = outcome(plugin, on_unpublished);
        assert!(matches!(outcome, Outcome::Advice(_)), "{outcome:?}");
    }
    assert!(matches!(outcome(Wal2Json, Halt), Outcome::Missing(_)));
}

#[test]
fn each_way_that_a_slot_is_not_ours_is_named() {
    let ours = SlotSettings::of("shop");
    assert_eq!(usable(&slot(), &ours, "shop", false), Ok(()));
    let cases: [(Slot, &str); 8] = [
        (
            Slot {
                plugin: None,
                ..slot()
            },
            "physical",
        ),
        (
            Slot {
                plugin: Some("wal2json".into()),
                ..slot()
            },
            "decodes with wal2json",
        ),
        (
            Slot {
                database: Some("other".into()),
                ..slot()
            },
            "belongs to database other",
        ),
        (
            Slot {
                active: true,
                active_pid: Some("77".into()),
                confirmed: Some(protocol::postgres::Lsn(1)),
                ..slot()
            },
            "somebody reads from it (server process 77)",
        ),
        (
            Slot {
                active: true,
                active_pid: Some("77".into()),
                ..slot()
            },
            "server process 77 is still making it",
        ),
        (
            Slot {
                wal_status: Some("lost".into()),
                ..slot()
            },
            "max_slot_wal_keep_size",
        ),
        (
            Slot {
                invalidation: Some("wal_removed".into()),
                ..slot()
            },
            "invalidated (wal_removed)",
        ),
        (
            Slot {
                synced: true,
                ..slot()
            },
            "kept here for a failover",
        ),
    ];
    for (slot, words) in cases {
        let error = usable(&slot, &ours, "shop", true).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}
