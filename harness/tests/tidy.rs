//! Structure as a test: who may import whom, what may stand where, and habits that a reader relies on.
//!
//! Rules are checked on the text of the tracked sources, so that this test shares nothing with what it judges.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What a crate may import of the project's own crates (`docs/architecture.md`, "Top level").
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("fixtures", &[]),
    ("engine", &["protocol"]),
    ("netem", &[]),
    ("harness", &["protocol", "fixtures", "netem"]),
    (
        "benches",
        &["protocol", "fixtures", "netem", "engine", "harness"],
    ),
];

/// Modules that must not be named inside a folder: the data flows one way.
const MODULE_RULES: &[(&str, &[&str])] = &[
    (
        "engine/src/source",
        &["crate::encode::", "crate::producer", "crate::pipeline"],
    ),
    (
        "engine/src/encode",
        &["crate::source", "crate::producer", "crate::pipeline"],
    ),
    (
        "engine/src/producer",
        &["crate::source", "crate::encode::", "crate::pipeline"],
    ),
    (
        "engine/src/checkpoint",
        &["crate::encode::", "crate::producer", "crate::pipeline"],
    ),
    ("protocol/src/mysql", &["crate::kafka", "crate::postgres"]),
    ("protocol/src/postgres", &["crate::kafka", "crate::mysql"]),
    ("protocol/src/kafka", &["crate::mysql", "crate::postgres"]),
];

/// Where MySQL and PostgreSQL are twins, and what both have there: the same name for the same thing.
const TWINS: &[(&str, &[&str])] = &[
    (
        "protocol/src",
        &[
            "auth.rs",
            "column.rs",
            "command.rs",
            "packet.rs",
            "position.rs",
            "resultset.rs",
            "temporal.rs",
            "value.rs",
        ],
    ),
    (
        "engine/src/source",
        &[
            "checks.rs",
            "connection.rs",
            "decode.rs",
            "mod.rs",
            "server.rs",
            "session.rs",
            "shapes.rs",
            "stream.rs",
            "tables.rs",
            "transaction.rs",
        ],
    ),
    (
        "engine/src/encode",
        &[
            "envelope.rs",
            "mod.rs",
            "row.rs",
            "template.rs",
            "temporal.rs",
            "value.rs",
        ],
    ),
    (
        "harness/src/serve",
        &[
            "answers.rs",
            "film.rs",
            "mod.rs",
            "plan.rs",
            "projector.rs",
            "session.rs",
            "wire.rs",
        ],
    ),
];

/// The one file of a crate that may ask what time it is.
const CLOCKS: &[&str] = &[
    "engine/src/clock.rs",
    "harness/src/clock.rs",
    "netem/src/clock.rs",
];

/// The one file of a crate that may hold unsafe code, with a SAFETY argument per block.
const UNSAFE: &[(&str, &str)] = &[("netem", "netem/src/tun/device.rs")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the harness lies in the workspace")
        .to_path_buf()
}

/// Every file below `folder` whose name ends in `.extension`, as (path from the root, text).
fn files(folder: &str, extension: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root().join(folder)];
    while let Some(path) = pending.pop() {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if name == "target" || name.starts_with('.') {
                continue;
            }
            let entries = fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            pending.extend(entries.map(|entry| entry.expect("a readable folder").path()));
        } else if path.extension().is_some_and(|e| e == extension) {
            let shown = path
                .strip_prefix(root())
                .expect("below the root")
                .display()
                .to_string();
            let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{shown}: {e}"));
            found.insert(shown, text);
        }
    }
    found
}

fn rust_files() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (name, _) in MAY_IMPORT {
        all.extend(files(name, "rs"));
    }
    assert!(
        all.len() > 20,
        "only {} Rust files found: is the root right?",
        all.len()
    );
    all
}

/// Lines of code, comments cut off, with their numbers from 1.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(n, line)| {
        let code = line.split("//").next().unwrap_or_default();
        (!code.trim().is_empty()).then_some((n + 1, code))
    })
}

fn report(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

/// Sections of a manifest that bring in a dependency for more than tests.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut section = String::new();
    let mut names = Vec::new();
    for line in manifest.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if section == "dependencies" || section == "build-dependencies" {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            names.push(name.to_owned());
        }
    }
    names
}

#[test]
fn crates_import_only_what_the_layout_allows() {
    let ours: Vec<&str> = MAY_IMPORT.iter().map(|(name, _)| *name).collect();
    let mut offences = Vec::new();
    for (name, allowed) in MAY_IMPORT {
        let manifest =
            fs::read_to_string(root().join(name).join("Cargo.toml")).expect("a manifest");
        let named = dependencies(&manifest);
        assert!(
            *name == "benches" || !named.is_empty(),
            "no dependencies read from {name}/Cargo.toml"
        );
        for dependency in named {
            if ours.contains(&dependency.as_str()) && !allowed.contains(&dependency.as_str()) {
                offences.push(format!("{name} imports {dependency}"));
            }
        }
        for (path, text) in files(&format!("{name}/src"), "rs") {
            // Tests may read recordings: what they import stands in another section of the manifest.
            if path.ends_with("/tests.rs") || path.contains("/tests/") {
                continue;
            }
            for (n, line) in code_lines(&text) {
                if line.contains("#[cfg(test)]") {
                    break;
                }
                for other in &ours {
                    let used = line.contains(&format!("use {other}::")) && *other != *name;
                    if used && !allowed.contains(other) {
                        offences.push(format!("{path}:{n} uses {other}"));
                    }
                }
            }
        }
    }
    report("a crate imports what it must not", &offences);
}

#[test]
fn protocol_is_sans_io() {
    let forbidden = [
        "tokio",
        "std::net",
        "std::fs",
        "std::thread",
        "Instant",
        "SystemTime",
        "rand::",
        "rustls",
    ];
    let mut offences = Vec::new();
    for (path, text) in files("protocol/src", "rs") {
        for (n, line) in code_lines(&text) {
            // Tests stand at the end of their file and may read recordings.
            if line.contains("#[cfg(test)]") {
                break;
            }
            if line.contains("use ") || line.contains("::") {
                for word in forbidden {
                    if line.contains(word) {
                        offences.push(format!("{path}:{n} names {word}"));
                    }
                }
            }
        }
    }
    report("protocol is a pure function of bytes", &offences);
}

#[test]
fn data_flows_one_way() {
    let mut offences = Vec::new();
    for (folder, forbidden) in MODULE_RULES {
        for (path, text) in files(folder, "rs") {
            for (n, line) in code_lines(&text) {
                for module in *forbidden {
                    if line.contains(module) {
                        offences.push(format!("{path}:{n} names {module}"));
                    }
                }
            }
        }
    }
    report("a layer reaches across", &offences);
}

#[test]
fn twins_have_the_same_names() {
    let mut offences = Vec::new();
    for (folder, names) in TWINS {
        let of = |database: &str| -> BTreeSet<String> {
            let folder = root().join(folder).join(database);
            let entries =
                fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
            entries
                .map(|entry| name(entry.expect("a readable folder")))
                .filter(|name| name.ends_with(".rs") && name != "tests.rs")
                .collect()
        };
        let (mysql, postgres) = (of("mysql"), of("postgres"));
        let expected: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        for (database, there) in [("mysql", &mysql), ("postgres", &postgres)] {
            for name in expected.difference(there) {
                offences.push(format!("{folder}/{database} has no {name}"));
            }
        }
        for name in mysql
            .intersection(&postgres)
            .filter(|name| **name != "mod.rs" && !expected.contains(*name))
        {
            offences.push(format!("{folder}: both have {name} now, TWINS should too"));
        }
    }
    report("a concept has two names", &offences);
}

#[test]
fn one_clock_per_crate() {
    let mut offences = Vec::new();
    for (name, _) in MAY_IMPORT {
        if *name == "benches" {
            continue;
        }
        for (path, text) in files(&format!("{name}/src"), "rs") {
            if CLOCKS.contains(&path.as_str()) {
                continue;
            }
            for (n, line) in code_lines(&text) {
                if line.contains("Instant::now") || line.contains("SystemTime::now") {
                    offences.push(format!("{path}:{n}"));
                }
            }
        }
    }
    report("time is asked for outside the clock file", &offences);
}

#[test]
fn every_crate_root_states_its_stand_on_unsafe_code() {
    let mut offences = Vec::new();
    for (path, text) in rust_files() {
        let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        let has_exception = (UNSAFE.iter()).any(|(name, _)| path == format!("{name}/src/lib.rs"));
        let stand = match has_exception {
            true => "#![deny(unsafe_code)]",
            false => "#![forbid(unsafe_code)]",
        };
        if is_root && !text.contains(stand) {
            offences.push(format!("{path}: {stand}"));
        }
    }
    report("a crate root without its stand on unsafe code", &offences);
}

#[test]
fn unsafe_code_stands_in_named_files_and_is_argued() {
    let mut offences = Vec::new();
    for (path, text) in rust_files() {
        let is_named = UNSAFE.iter().any(|(_, file)| *file == path);
        // In pieces, so that this test does not find itself.
        let allowed = text.contains(concat!("allow(unsafe", "_code)"));
        let blocks = (code_lines(&text))
            .filter(|(_, line)| line.contains(concat!("unsafe", " {")))
            .count();
        let argued = text.matches("// SAFETY:").count();
        if allowed && !is_named {
            offences.push(format!("{path} allows unsafe code"));
        }
        if is_named && blocks != argued {
            offences.push(format!("{path}: {blocks} blocks, {argued} arguments"));
        }
    }
    report("unsafe code", &offences);
}

#[test]
fn every_file_says_what_it_is() {
    let offences: Vec<String> = rust_files()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    report("a file without a //! header", &offences);
}

#[test]
fn names_say_something() {
    let empty_names = [
        "utils", "util", "common", "core", "base", "types", "misc", "helpers",
    ];
    let mut offences = Vec::new();
    for (path, text) in rust_files() {
        for part in Path::new(&path).iter() {
            let stem = part.to_string_lossy().trim_end_matches(".rs").to_owned();
            if empty_names.contains(&stem.as_str()) {
                offences.push(format!("{path}: a name that says nothing"));
            }
        }
        for (n, line) in code_lines(&text) {
            if line.contains(concat!("fn ", "get_")) {
                offences.push(format!("{path}:{n}: a getter named get_"));
            }
        }
    }
    report("names", &offences);
}

#[test]
fn nothing_is_left_unfinished_or_switched_off() {
    let words = [
        concat!("#[", "ignore"),
        concat!("todo", "!("),
        concat!("unimpl", "emented!("),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
    ];
    let mut offences = Vec::new();
    for (path, text) in rust_files() {
        for (n, line) in text.lines().enumerate() {
            for word in words {
                if line.contains(word) {
                    offences.push(format!("{path}:{}: {word}", n + 1));
                }
            }
        }
    }
    report("unfinished", &offences);
}

#[test]
fn the_project_names_no_machine() {
    let words = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("deb.deb", "ian.org"),
        concat!("stat", "ic.crates.io"),
        concat!("../sha", "red"),
    ];
    let mut all = rust_files();
    for extension in ["md", "toml", "sql", "sh"] {
        all.extend(files(".", extension));
    }
    for path in ["test", ".ci/run", ".cargo/config.toml", ".gitignore"] {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        all.insert(path.to_owned(), text);
    }
    let mut offences = Vec::new();
    for (path, text) in all {
        for (n, line) in text.lines().enumerate() {
            for word in words {
                if line.contains(word) {
                    offences.push(format!("{path}:{}: {word}", n + 1));
                }
            }
        }
    }
    report("a path or host of one machine", &offences);
}
