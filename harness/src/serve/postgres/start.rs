//! START_REPLICATION: may this session stream from this slot with these options, in the real server's words; and does the recording
//! hold what it asks for, in ours.

use super::Shared;
use super::command::{Options, is_on};
use super::error::Failure;
use super::lexer::{Token, tokens};
use super::publications::missing;
use super::slots::Held;

/// What a stream depends on besides the place that it begins at.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) held: Held,
    /// Comes instead of the first row: a server looks for publications only then.
    pub(super) missing: Option<Failure>,
}

/// Options of pgoutput that change which messages there are.
const PGOUTPUT_SWITCHES: [&str; 4] = ["binary", "streaming", "messages", "two_phase"];

/// Options of wal2json 2.5 that give messages their form, and whether they are on without being named.
const WAL2JSON_FORM: [(&str, bool); 15] = [
    ("format-version", false),
    ("include-lsn", false),
    ("include-pk", false),
    ("include-timestamp", false),
    ("include-transaction", true),
    ("include-types", true),
    ("include-typmod", true),
    ("include-xids", false),
    ("include-schemas", true),
    ("include-origin", false),
    ("include-type-oids", false),
    ("include-domain-data-type", false),
    ("include-column-positions", false),
    ("include-not-null", false),
    ("include-default", false),
];

/// Options of wal2json that choose tables and rows, or have no effect in format 2.
const WAL2JSON_OTHER: [&str; 9] = [
    "add-tables",
    "filter-tables",
    "filter-origins",
    "actions",
    "write-in-chunks",
    "pretty-print",
    "add-msg-prefixes",
    "filter-msg-prefixes",
    "include-unchanged-toast",
];

/// Known by wal2json from 2.6 on.
const NUMERIC_AS_STRING: &str = "numeric-data-types-as-string";

/// Acquires the slot for `session`, which is in `database`.
pub(super) fn check(
    shared: &Shared,
    database: &str,
    session: u32,
    slot: &str,
    options: &Options,
) -> Result<Start, Failure> {
    shared.check_wal_level()?;
    let held = shared.slots.acquire(slot, session)?;
    if held.slot.database != database {
        let what = format!("replication slot \"{slot}\" was not created in this database");
        return Err(Failure::new("55000", what));
    }
    let plugin = held.slot.plugin.clone();
    let missing = match plugin.as_str() {
        "pgoutput" => pgoutput(shared, options),
        "wal2json" => wal2json(shared, options).map(|()| None),
        _ => Ok(None),
    }
    .map_err(|failure| Failure {
        context: Some(format!(
            "slot \"{slot}\", output plugin \"{plugin}\", in the startup callback"
        )),
        ..failure
    })?;
    if plugin != shared.recorded.plugin {
        let what = format!(
            "this recording was made with plugin {}, and slot \"{slot}\" is of {plugin}",
            shared.recorded.plugin
        );
        return Err(Failure::new("XX000", what));
    }
    let missing = missing.map(|failure| Failure {
        context: Some(format!(
            "slot \"{slot}\", output plugin \"{plugin}\", in the change callback"
        )),
        ..failure
    });
    Ok(Start { held, missing })
}

fn value<'o>(options: &'o Options, wanted: &str) -> Option<Option<&'o str>> {
    let found = options.iter().find(|(name, _)| name == wanted);
    found.map(|(_, value)| value.as_deref())
}

fn unlike(name: &str, recorded: &str) -> Failure {
    let what = format!("this recording was made with {name} = '{recorded}'");
    Failure::new("XX000", what)
}

/// The failure that a missing publication leads to at the first row.
fn pgoutput(shared: &Shared, options: &Options) -> Result<Option<Failure>, Failure> {
    let of_16 = ["origin"];
    for (name, _) in options {
        let known = ["proto_version", "publication_names"].contains(&name.as_str())
            || PGOUTPUT_SWITCHES.contains(&name.as_str())
            || shared.major() >= 16 && of_16.contains(&name.as_str());
        if !known {
            let what = format!("unrecognized pgoutput option: {name}");
            return Err(Failure::new("XX000", what));
        }
    }
    let newest = if shared.major() >= 16 { 4 } else { 3 };
    let version = value(options, "proto_version").flatten().unwrap_or("0");
    let version: u32 = version
        .parse()
        .map_err(|_| Failure::new("22023", "invalid proto_version"))?;
    if !(1..=newest).contains(&version) {
        let what = match version {
            0 => format!(
                "client sent proto_version={version} but we only support protocol 1 or higher"
            ),
            _ => format!(
                "client sent proto_version={version} but we only support protocol {newest} or lower"
            ),
        };
        return Err(Failure::new("0A000", what));
    }
    let names = value(options, "publication_names").flatten();
    let names =
        names.ok_or_else(|| Failure::new("22023", "publication_names parameter missing"))?;
    let names = name_list(names)
        .ok_or_else(|| Failure::new("42602", "invalid publication_names syntax"))?;
    for switch in PGOUTPUT_SWITCHES {
        let recorded = shared.recorded.options.get(switch).map(String::as_str);
        let is_recorded =
            recorded.is_some_and(|on| on == "parallel" || is_on(Some(on)) == Some(true));
        let asked = value(options, switch);
        let is_asked = asked.is_some_and(|on| on == Some("parallel") || is_on(on) == Some(true));
        // Streaming that is allowed need not happen; what was recorded cannot be taken back, nor text become binary.
        if is_recorded && !is_asked || switch == "binary" && is_asked && !is_recorded {
            return Err(unlike(switch, recorded.unwrap_or("false")));
        }
    }
    if let Some(unknown) = names.iter().find(|name| !shared.publications.has(name)) {
        return Ok(Some(missing(unknown)));
    }
    match shared.publications.leaves_out(&names, &shared.film.tables) {
        None => Ok(None),
        Some((schema, table)) => {
            let what = format!(
                "this recording has rows of {schema}.{table}, which is in none of the publications {}: a replay server cannot leave them out",
                names.join(", ")
            );
            Err(Failure::new("XX000", what))
        }
    }
}

/// `"a", b`: names by SQL's rules.
fn name_list(text: &str) -> Option<Vec<String>> {
    let tokens = tokens(text)?;
    let names = tokens.split(|token| *token == Token::Symbol(','));
    let name = |part: &[Token]| match part {
        [name] => name.name().map(str::to_owned),
        _ => None,
    };
    names.map(name).collect()
}

fn wal2json(shared: &Shared, options: &Options) -> Result<(), Failure> {
    let recorded = &shared.recorded.options;
    for (name, value) in options {
        let known = WAL2JSON_FORM.iter().any(|(form, _)| form == name)
            || WAL2JSON_OTHER.contains(&name.as_str())
            || name == NUMERIC_AS_STRING && recorded.contains_key(NUMERIC_AS_STRING);
        if !known {
            let value = value.as_deref().unwrap_or("(null)");
            let what = format!("option \"{name}\" = \"{value}\" is unknown");
            return Err(Failure::new("22023", what));
        }
    }
    let forms = WAL2JSON_FORM
        .into_iter()
        .chain([(NUMERIC_AS_STRING, false)]);
    for (name, usual) in forms {
        let usual = if usual { "true" } else { "false" };
        let then = recorded.get(name).map_or(usual, String::as_str);
        let now = value(options, name).map_or(usual, |value| value.unwrap_or("true"));
        let same =
            then == now || is_on(Some(then)).is_some() && is_on(Some(then)) == is_on(Some(now));
        if !same {
            return Err(unlike(name, then));
        }
    }
    Ok(())
}
