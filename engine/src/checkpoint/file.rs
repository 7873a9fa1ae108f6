//! Checkpoints as files, one per source, in the state directory.
//!
//! ```text
//! walbrook-checkpoint 2 crc32c 0a1b2c3d\n      format version; checksum of everything after this line
//! {"source":"shop","position":{…},…}\n         JSON
//! ```
//! A save writes `NAME.checkpoint.tmp`, syncs it, renames it over `NAME.checkpoint` and syncs the directory: after a power cut there is
//! the old file or the new one. The checksum is for what file systems and hands do to files all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Checkpoint, CheckpointError, CheckpointStore};
use crate::position::Position;

const MAGIC: &str = "walbrook-checkpoint";
/// 2 has `cluster`.
const VERSION: u32 = 2;

/// The state directory as a store. Whoever writes holds its [`super::StateLock`].
#[derive(Debug, Clone)]
pub struct FileStore {
    dir: PathBuf,
}

impl FileStore {
    /// The store in `dir`, which need not exist before the first save.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The file of one source's checkpoint.
    #[must_use]
    pub fn path(&self, source: &str) -> PathBuf {
        self.dir.join(format!("{source}.checkpoint"))
    }
}

impl CheckpointStore for FileStore {
    fn load(&self, source: &str) -> Result<Option<Checkpoint>, CheckpointError> {
        let path = self.path(source);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => {
                return Err(CheckpointError::Io {
                    doing: "read checkpoint",
                    path,
                    cause,
                });
            }
        };
        decode(&bytes, source)
            .map(Some)
            .map_err(|problem| match problem {
                Problem::Damaged(why) => CheckpointError::Damaged { path, why },
                Problem::Newer(version) => CheckpointError::Newer {
                    path,
                    version,
                    ours: VERSION,
                },
            })
    }

    fn save(&self, source: &str, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let path = self.path(source);
        replace(&self.dir, &path, &encode(checkpoint, source)).map_err(|cause| {
            CheckpointError::Io {
                doing: "save checkpoint",
                path,
                cause,
            }
        })
    }

    fn remove(&self, source: &str) -> Result<bool, CheckpointError> {
        let path = self.path(source);
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(&self.dir)
                .map(|()| true)
                .map_err(|cause| CheckpointError::Io {
                    doing: "remove checkpoint",
                    path,
                    cause,
                }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(CheckpointError::Io {
                doing: "remove checkpoint",
                path,
                cause,
            }),
        }
    }
}

/// Replaces `path` in `dir` durably and atomically.
fn replace(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let temporary = path.with_extension("checkpoint.tmp");
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(e) = written.and_then(|()| fs::rename(&temporary, path)) {
        // Gives back what a full disk could still use; the error that matters is the first.
        let _ = fs::remove_file(&temporary);
        return Err(e);
    }
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// What the JSON line holds; the names are the format.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    source: String,
    position: PositionBody,
    server: Option<String>,
    selection: String,
    #[serde(default)]
    cluster: Option<String>,
    producers: BTreeMap<i64, BTreeSet<String>>,
    offsets: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// Which database the position is of stands in the variant's name.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PositionBody {
    MySql {
        /// `file:offset`; absent when only GTIDs are known.
        #[serde(skip_serializing_if = "Option::is_none")]
        binlog: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        gtids: Option<String>,
    },
    Postgres {
        /// `16/B374D848`.
        lsn: String,
    },
}

/// Why bytes are no checkpoint.
enum Problem {
    Damaged(String),
    Newer(u32),
}

fn damaged(why: impl Into<String>) -> Problem {
    Problem::Damaged(why.into())
}

fn encode(checkpoint: &Checkpoint, source: &str) -> Vec<u8> {
    let position = match &checkpoint.position {
        Position::MySql { binlog, gtids } => PositionBody::MySql {
            binlog: (!binlog.file.is_empty()).then(|| binlog.to_string()),
            gtids: gtids.clone(),
        },
        Position::Postgres { lsn } => PositionBody::Postgres {
            lsn: lsn.to_string(),
        },
    };
    let body = Body {
        source: source.to_owned(),
        position,
        server: checkpoint.server.as_ref().map(ToString::to_string),
        selection: checkpoint.selection.clone(),
        cluster: checkpoint.cluster.clone(),
        producers: checkpoint.producers.clone(),
        offsets: checkpoint.offsets.clone(),
    };
    let mut json = serde_json::to_vec(&body).expect("maps with integer and string keys are JSON");
    json.push(b'\n');
    let mut bytes = format!("{MAGIC} {VERSION} crc32c {:08x}\n", checksum(&json)).into_bytes();
    bytes.extend_from_slice(&json);
    bytes
}

fn decode(bytes: &[u8], source: &str) -> Result<Checkpoint, Problem> {
    if bytes.is_empty() {
        return Err(damaged("the file is empty"));
    }
    let end = memchr::memchr(b'\n', bytes).ok_or_else(|| damaged("its first line has no end"))?;
    let (line, json) = (&bytes[..end], &bytes[end + 1..]);
    let line = std::str::from_utf8(line).map_err(|_| damaged("its first line is not text"))?;
    let mut words = line.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(damaged(format!(
            "its first line does not begin with {MAGIC}"
        )));
    }
    let version: u32 = words
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| damaged("its first line names no format version"))?;
    if version > VERSION {
        return Err(Problem::Newer(version));
    }
    let expected = match (words.next(), words.next(), words.next()) {
        (Some("crc32c"), Some(hex), None) if hex.len() == 8 => u32::from_str_radix(hex, 16).ok(),
        _ => None,
    }
    .ok_or_else(|| damaged("its first line names no checksum"))?;
    let actual = checksum(json);
    if actual != expected {
        return Err(damaged(format!(
            "its checksum is {actual:08x} where {expected:08x} is written: torn or altered"
        )));
    }
    let body: Body = serde_json::from_slice(json).map_err(|e| damaged(e.to_string()))?;
    if body.source != source {
        return Err(damaged(format!("it belongs to source {}", body.source)));
    }
    let position = position(body.position)?;
    let server = body
        .server
        .map(|text| {
            text.parse()
                .map_err(|e| damaged(format!("server {text}: {e}")))
        })
        .transpose()?;
    Ok(Checkpoint {
        position,
        server,
        selection: body.selection,
        cluster: body.cluster,
        producers: body.producers,
        offsets: body.offsets,
    })
}

fn position(body: PositionBody) -> Result<Position, Problem> {
    let (binlog, gtids) = match body {
        PositionBody::MySql { binlog, gtids } => (binlog, gtids),
        PositionBody::Postgres { lsn } => {
            let read = lsn
                .parse()
                .map_err(|e| damaged(format!("position {lsn}: {e}")))?;
            return Ok(Position::Postgres { lsn: read });
        }
    };
    let binlog = match binlog {
        Some(text) => text
            .parse()
            .map_err(|e| damaged(format!("position {text}: {e}")))?,
        None if gtids.is_some() => Position::unknown_binlog(),
        None => return Err(damaged("it has neither a binlog position nor GTIDs")),
    };
    Ok(Position::MySql { binlog, gtids })
}

fn checksum(bytes: &[u8]) -> u32 {
    // The 32-bit CRC is the low half of what crc-fast returns for any width.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::mysql::BinlogPosition;

    fn example() -> Checkpoint {
        Checkpoint {
            position: Position::MySql {
                binlog: BinlogPosition {
                    file: "binlog.000002".into(),
                    offset: 53_632_951,
                },
                gtids: Some("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-1500".into()),
            },
            server: Some(
                "mysql:3e11fa47-71ca-11e1-9e33-c80aa9429562"
                    .parse()
                    .unwrap(),
            ),
            selection: "0123456789abcdef".into(),
            cluster: Some("MkU3OEVBNTcwNTJENDM2Qg".into()),
            producers: BTreeMap::from([
                (1001, BTreeSet::from(["mysql:x".to_owned()])),
                (7, BTreeSet::new()),
            ]),
            offsets: BTreeMap::from([(
                "shop.shop.events".to_owned(),
                BTreeMap::from([(0, 12), (1, 0), (10, 5)]),
            )]),
        }
    }

    #[test]
    fn comes_back_as_saved() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path().join("state"));
        assert_eq!(store.load("shop").unwrap(), None);
        store.save("shop", &example()).unwrap();
        assert_eq!(store.load("shop").unwrap(), Some(example()));
        let by_gtid = Checkpoint::set_by_operator(Position::MySql {
            binlog: Position::unknown_binlog(),
            gtids: Some("0-1-5".into()),
        });
        store.save("shop", &by_gtid).unwrap();
        assert_eq!(store.load("shop").unwrap(), Some(by_gtid));
        assert_eq!(store.load("other").unwrap(), None);
        assert!(store.remove("shop").unwrap());
        assert!(!store.remove("shop").unwrap());
        assert_eq!(fs::read_dir(dir.path().join("state")).unwrap().count(), 0);
    }

    #[test]
    fn golden_text() {
        let text = String::from_utf8(encode(&example(), "shop")).unwrap();
        let (first, json) = text.split_once('\n').unwrap();
        assert!(
            first.starts_with("walbrook-checkpoint 2 crc32c "),
            "{first}"
        );
        assert_eq!(
            json,
            concat!(
                r#"{"source":"shop","position":{"mysql":{"binlog":"binlog.000002:53632951","#,
                r#""gtids":"3e11fa47-71ca-11e1-9e33-c80aa9429562:1-1500"}},"#,
                r#""server":"mysql:3e11fa47-71ca-11e1-9e33-c80aa9429562","selection":"0123456789abcdef","cluster":"MkU3OEVBNTcwNTJENDM2Qg","#,
                r#""producers":{"7":[],"1001":["mysql:x"]},"#,
                r#""offsets":{"shop.shop.events":{"0":12,"1":0,"10":5}}}"#,
                "\n"
            )
        );
        assert!(
            decode(text.as_bytes(), "other")
                .is_err_and(|p| matches!(p, Problem::Damaged(w) if w.contains("shop")))
        );
    }

    #[test]
    fn a_checkpoint_of_the_first_format_is_read() {
        let json = concat!(
            r#"{"source":"shop","position":{"mysql":{"binlog":"binlog.000002:53632951"}},"server":null,"#,
            r#""selection":"s","producers":{},"offsets":{}}"#,
            "\n"
        );
        let text = format!("{MAGIC} 1 crc32c {:08x}\n{json}", checksum(json.as_bytes()));
        let read = decode(text.as_bytes(), "shop").ok().unwrap();
        assert_eq!((read.selection.as_str(), read.cluster), ("s", None));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_recognised() {
        let good = encode(&example(), "shop");
        for cut in 0..good.len() {
            assert!(decode(&good[..cut], "shop").is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                // A letter of the checksum's hex digits in the other case is the same number.
                if let Ok(read) = decode(&bad, "shop") {
                    assert!(at < 40 && read == example(), "byte {at} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path());
        store.save("shop", &example()).unwrap();
        let mut bytes = fs::read(store.path("shop")).unwrap();
        bytes.truncate(bytes.len() / 2);
        fs::write(store.path("shop"), &bytes).unwrap();
        let text = store.load("shop").unwrap_err().to_string();
        assert!(
            text.contains("shop.checkpoint is damaged (its checksum is"),
            "{text}"
        );
        fs::write(store.path("shop"), "walbrook-checkpoint 9 whatever\n{}").unwrap();
        let text = store.load("shop").unwrap_err().to_string();
        assert!(
            text.contains("has format 9, this walbrook reads format 2"),
            "{text}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_leaves_the_old_checkpoint_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(dir.path());
        store.save("shop", &example()).unwrap();
        // /dev/full answers every write with ENOSPC.
        std::os::unix::fs::symlink("/dev/full", dir.path().join("shop.checkpoint.tmp")).unwrap();
        let text = store
            .save("shop", &Checkpoint::set_by_operator(example().position))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("No space left") && text.contains("the last checkpoint stands"),
            "{text}"
        );
        assert_eq!(store.load("shop").unwrap(), Some(example()));
        store.save("shop", &example()).unwrap();
    }
}
