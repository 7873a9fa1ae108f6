//! What a server must have for its changes to be captured whole, and the statement that mends what it lacks.

use protocol::mysql::gtid::Flavour;

use super::server::{Answer, Variables};
use crate::source::{Outcome, Requirement, SourceError};

/// What [`requirements`] judges: answers of one server to our user.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// The server's variables.
    pub(super) variables: &'a Variables,
    /// The answer to SHOW GRANTS.
    pub(super) grants: &'a Answer,
    /// Our user, for the statements.
    pub(super) user: &'a str,
    /// The id that we register with.
    pub(super) server_id: u32,
    /// Whether the binary log's status could be asked (`Err`: the server's words).
    pub(super) status: Result<bool, &'a str>,
}

/// Every requirement in the order that an operator would look at them.
pub(super) fn requirements(facts: &Facts<'_>) -> Vec<Requirement> {
    let variables = facts.variables;
    let mut list = vec![log_bin(facts), format(variables), image(variables)];
    list.extend(metadata(variables));
    list.extend(value_options(variables));
    list.push(server_id(facts));
    list.push(gtids(variables));
    list.push(replication_grant(facts));
    list.push(status_grant(facts));
    list.extend(select_grant(facts));
    list
}

/// The first missing requirement as an error.
pub(super) fn refuse(requirements: &[Requirement]) -> Result<(), SourceError> {
    let missing: Vec<String> = requirements
        .iter()
        .filter_map(|requirement| match &requirement.outcome {
            Outcome::Missing(mend) => Some(format!("{}: {mend}", requirement.what)),
            _ => None,
        })
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(SourceError::halt(format!(
            "the server cannot be captured: {}",
            missing.join("; ")
        ))),
    }
}

fn requirement(what: impl Into<String>, outcome: Outcome) -> Requirement {
    Requirement {
        what: what.into(),
        outcome,
    }
}

/// How a variable is set for good.
fn set(variables: &Variables, name: &str, value: &str) -> String {
    match variables.flavour() {
        Flavour::MySql => format!("run SET PERSIST {name} = {value}"),
        Flavour::MariaDb => {
            format!("run SET GLOBAL {name} = {value} and write it into the server's configuration")
        }
    }
}

fn log_bin(facts: &Facts<'_>) -> Requirement {
    let outcome = match facts.variables.is("log_bin", "ON") {
        true => Outcome::Met,
        false => Outcome::Missing(
            "the binary log is off; start the server with log_bin = binlog in [mysqld]".into(),
        ),
    };
    requirement("log_bin is ON", outcome)
}

fn format(variables: &Variables) -> Requirement {
    let outcome = match variables.text("binlog_format") {
        // MySQL removed the variable's other values first, then is to remove the variable: absent means ROW.
        None => Outcome::Met,
        Some(value) if value.eq_ignore_ascii_case("ROW") => Outcome::Met,
        Some(value) => Outcome::Missing(format!(
            "it is {value}; {}, and reconnect the sessions that write",
            set(variables, "binlog_format", "ROW")
        )),
    };
    requirement("binlog_format is ROW", outcome)
}

fn image(variables: &Variables) -> Requirement {
    let outcome = match variables.text("binlog_row_image") {
        Some(value) if value.eq_ignore_ascii_case("FULL") => Outcome::Met,
        // MariaDB from 11.4 on: images before have every column, and those after what has changed; the rest is copied.
        Some(value) if value.eq_ignore_ascii_case("FULL_NODUP") => Outcome::Met,
        // Servers without the variable write everything.
        None => Outcome::Met,
        Some(value) => Outcome::Advice(format!(
            "it is {value}: columns that a statement did not touch are null in the records and named in the header \
             \"unchanged\"; {}",
            set(variables, "binlog_row_image", "FULL")
        )),
    };
    requirement("binlog_row_image is FULL", outcome)
}

fn metadata(variables: &Variables) -> Option<Requirement> {
    let outcome = match variables.text("binlog_row_metadata") {
        Some(value) if value.eq_ignore_ascii_case("FULL") => Outcome::Met,
        Some(value) => Outcome::Advice(format!(
            "it is {value}: names and keys of columns are asked from information_schema, which cannot be done for changes \
             that are older than the table's last ALTER; {}",
            set(variables, "binlog_row_metadata", "FULL")
        )),
        None => Outcome::Advice(
            "the server does not have it: names and keys of columns are asked from information_schema, which cannot be done \
             for changes that are older than the table's last ALTER"
                .into(),
        ),
    };
    Some(requirement("binlog_row_metadata is FULL", outcome))
}

fn value_options(variables: &Variables) -> Option<Requirement> {
    let value = variables.text("binlog_row_value_options")?;
    // Partial JSON is read, and applied to the image before. NOBLOB leaves no JSON out of that.
    let outcome = match value.is_empty() || !variables.is("binlog_row_image", "MINIMAL") {
        true => Outcome::Met,
        false => Outcome::Missing(format!(
            "it is {value} while binlog_row_image is MINIMAL: partial JSON updates lack what they apply to, and the first one would halt; {}, \
             and reconnect the sessions that write",
            set(variables, "binlog_row_value_options", "''")
        )),
    };
    Some(requirement(
        "binlog_row_value_options loses nothing",
        outcome,
    ))
}

fn server_id(facts: &Facts<'_>) -> Requirement {
    let ours = facts.server_id;
    let outcome = match facts.variables.text("server_id") {
        Some("0") => Outcome::Missing(format!(
            "it is 0, with which no replica is served; {}",
            set(facts.variables, "server_id", "1")
        )),
        Some(id) if id == ours.to_string() => Outcome::Missing(format!(
            "we would register with the server's own id {ours}; set server_id of the source to another number"
        )),
        _ => Outcome::Met,
    };
    requirement("server_id is set and not ours", outcome)
}

fn gtids(variables: &Variables) -> Requirement {
    let outcome = match variables.has_gtids() {
        true => Outcome::Met,
        false => Outcome::Advice(format!(
            "gtid_mode is {}: a position is a file and an offset of this very server, and nothing can go on after a \
             failover to another one",
            variables
                .text("gtid_mode")
                .unwrap_or("unknown to the server")
        )),
    };
    requirement("transactions have GTIDs", outcome)
}

/// The privileges that SHOW GRANTS lists for everything (`ON *.*`), upper case. `None`: a role may hold more.
fn global_privileges(grants: &Answer) -> (Vec<String>, bool) {
    let mut privileges = Vec::new();
    let mut roles = false;
    for line in grants.iter().filter_map(|row| row.first()?.as_deref()) {
        let upper = line.to_ascii_uppercase();
        let Some(rest) = upper.strip_prefix("GRANT ") else {
            continue;
        };
        match rest.split_once(" ON *.* ") {
            Some((list, _)) => privileges.extend(split_privileges(list)),
            None if !rest.contains(" ON ") => roles = true,
            None => {}
        }
    }
    (privileges, roles)
}

/// Splits at commas outside parentheses: `SELECT (a, b), INSERT`.
fn split_privileges(list: &str) -> Vec<String> {
    let mut depth = 0_i32;
    list.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(|part| part.trim().to_owned())
    .collect()
}

fn granted(facts: &Facts<'_>, names: &[&str]) -> Option<bool> {
    let (privileges, roles) = global_privileges(facts.grants);
    let has = |name: &&str| privileges.iter().any(|privilege| privilege == name);
    match has(&"ALL PRIVILEGES") || has(&"ALL") || names.iter().any(has) {
        true => Some(true),
        // What a role grants is not listed unless it is active.
        false if roles => None,
        false => Some(false),
    }
}

fn replication_grant(facts: &Facts<'_>) -> Requirement {
    let outcome = match granted(facts, &["REPLICATION SLAVE", "REPLICATION REPLICA"]) {
        Some(true) => Outcome::Met,
        Some(false) => Outcome::Missing(format!(
            "run GRANT REPLICATION SLAVE ON *.* TO '{}'@'%'",
            facts.user
        )),
        None => Outcome::Advice(format!(
            "not granted directly; unless an active role has it, run GRANT REPLICATION SLAVE ON *.* TO '{}'@'%'",
            facts.user
        )),
    };
    requirement("the user may replicate", outcome)
}

fn status_grant(facts: &Facts<'_>) -> Requirement {
    let what = "the user may ask where the binary log stands";
    let privilege = match facts.variables.flavour() {
        Flavour::MySql => "REPLICATION CLIENT",
        Flavour::MariaDb => "BINLOG MONITOR",
    };
    let outcome = match facts.status {
        Ok(_) => Outcome::Met,
        Err(said) => Outcome::Missing(format!(
            "the server said \"{said}\"; run GRANT {privilege} ON *.* TO '{}'@'%'",
            facts.user
        )),
    };
    requirement(what, outcome)
}

/// information_schema shows a table only to who has some privilege on it, and is needed where the binlog says too little.
fn select_grant(facts: &Facts<'_>) -> Option<Requirement> {
    let full = facts.variables.is("binlog_row_metadata", "FULL");
    if full && facts.variables.flavour() == Flavour::MySql {
        return None;
    }
    let outcome = match granted(facts, &["SELECT"]) {
        Some(true) => Outcome::Met,
        _ => Outcome::Advice(format!(
            "information_schema shows only tables that the user may read; unless the captured ones are granted by name, run \
             GRANT SELECT ON *.* TO '{}'@'%'",
            facts.user
        )),
    };
    Some(requirement("the user sees the tables' columns", outcome))
}

#[cfg(test)]
mod tests {
    use super::super::server::answer;
    use super::*;

    fn judged(variables: &[&[&str]], grants: &[&[&str]]) -> Vec<Requirement> {
        requirements(&Facts {
            variables: &Variables::read(answer(variables)),
            grants: &answer(grants),
            user: "cdc",
            server_id: 85_744,
            status: Ok(true),
        })
    }

    fn open(list: &[Requirement]) -> Vec<String> {
        let line = |requirement: &Requirement| match &requirement.outcome {
            Outcome::Met => None,
            Outcome::Advice(text) => Some(format!("advice: {}: {text}", requirement.what)),
            Outcome::Missing(text) => Some(format!("missing: {}: {text}", requirement.what)),
        };
        list.iter().filter_map(line).collect()
    }

    const GOOD: &[&[&str]] = &[
        &["version", "9.7.0"],
        &["server_id", "1"],
        &["log_bin", "ON"],
        &["binlog_format", "ROW"],
        &["binlog_row_image", "FULL"],
        &["binlog_row_metadata", "FULL"],
        &["binlog_row_value_options", ""],
        &["gtid_mode", "ON"],
    ];

    #[test]
    fn a_server_that_has_everything() {
        for grant in [
            "GRANT ALL PRIVILEGES ON *.* TO 'cdc'@'%' WITH GRANT OPTION",
            "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `cdc`@`%`",
            "GRANT SELECT (a, b), REPLICATION SLAVE ON *.* TO `cdc`@`%`",
        ] {
            assert_eq!(
                open(&judged(GOOD, &[&[grant]])),
                Vec::<String>::new(),
                "{grant}"
            );
        }
    }

    #[test]
    fn each_failure_says_what_mends_it() {
        let bad: &[&[&str]] = &[
            &["version", "8.4.0"],
            &["server_id", "85744"],
            &["log_bin", "OFF"],
            &["binlog_format", "STATEMENT"],
            &["binlog_row_image", "MINIMAL"],
            &["binlog_row_metadata", "MINIMAL"],
            &["binlog_row_value_options", "PARTIAL_JSON"],
            &["gtid_mode", "OFF"],
        ];
        let list = judged(bad, &[&["GRANT USAGE ON *.* TO `cdc`@`%`"]]);
        let text = open(&list).join("\n");
        for part in [
            "start the server with log_bin = binlog",
            "SET PERSIST binlog_format = ROW",
            "SET PERSIST binlog_row_image = FULL",
            "SET PERSIST binlog_row_metadata = FULL",
            "SET PERSIST binlog_row_value_options = ''",
            "set server_id of the source to another number",
            "gtid_mode is OFF",
            "GRANT REPLICATION SLAVE ON *.* TO 'cdc'@'%'",
            "GRANT SELECT ON *.* TO 'cdc'@'%'",
        ] {
            assert!(text.contains(part), "{part} not in\n{text}");
        }
        let error = refuse(&list).unwrap_err().to_string();
        assert!(
            error.contains("binlog_format is ROW") && error.contains("log_bin is ON"),
            "{error}"
        );
        assert!(error.contains("the first one would halt"), "{error}");
        assert!(!error.contains("binlog_row_metadata"), "{error}");
    }

    #[test]
    fn images_that_lack_nothing_are_enough() {
        let open_with = |image: &str, options: &str| {
            let image = ["binlog_row_image", image];
            let options = ["binlog_row_value_options", options];
            let mut variables: Vec<&[&str]> = (GOOD.iter().copied())
                .filter(|row| row[0] != image[0] && row[0] != options[0])
                .collect();
            variables.extend([image.as_slice(), options.as_slice()]);
            let grants = "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `cdc`@`%`";
            open(&judged(&variables, &[&[grants]]))
        };
        assert_eq!(open_with("FULL", "PARTIAL_JSON"), Vec::<String>::new());
        assert_eq!(open_with("FULL_NODUP", ""), Vec::<String>::new());
        // All that it lacks are BLOBs and TEXTs, which are said to be lacking.
        let list = open_with("NOBLOB", "PARTIAL_JSON");
        assert!(
            matches!(&*list, [image] if image.starts_with("advice: binlog_row_image")),
            "{list:?}"
        );
        let list = open_with("MINIMAL", "PARTIAL_JSON");
        assert!(
            matches!(&*list, [_, json] if json.starts_with("missing: binlog_row_value_options")),
            "{list:?}"
        );
    }

    #[test]
    fn a_role_may_hold_what_is_not_listed() {
        let list = judged(
            GOOD,
            &[
                &["GRANT USAGE ON *.* TO `cdc`@`%`"],
                &["GRANT `capture`@`%` TO `cdc`@`%`"],
            ],
        );
        assert!(refuse(&list).is_ok());
        assert_eq!(open(&list).len(), 1);
    }

    #[test]
    fn mariadb_has_no_persist() {
        let list = judged(
            &[
                &["version", "10.11.6-MariaDB"],
                &["server_id", "1"],
                &["log_bin", "ON"],
                &["binlog_format", "MIXED"],
                &["binlog_row_image", "FULL"],
                &["binlog_row_metadata", "NO_LOG"],
                &["gtid_binlog_pos", "0-1-5"],
            ],
            &[&["GRANT SELECT, REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `cdc`@`%`"]],
        );
        let text = open(&list).join("\n");
        assert!(text.contains("SET GLOBAL binlog_format = ROW"), "{text}");
        assert!(
            text.contains("SET GLOBAL binlog_row_metadata = FULL"),
            "{text}"
        );
        assert!(!text.contains("PERSIST"), "{text}");
    }
}
