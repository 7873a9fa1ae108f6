//! `walbrook position`: read or change the checkpoint of a source while no engine runs.

use tracing::error;

use super::Exit;
use crate::checkpoint::{Checkpoint, CheckpointError, CheckpointStore, FileStore, StateLock};
use crate::cli::{ConfigArguments, PositionAction};
use crate::config::{Config, SourceKind, SourceSettings, Start};
use crate::position::Position;

/// Does what is asked and prints one line of what was and is.
#[must_use]
pub fn run(action: &PositionAction) -> Exit {
    let (file, source) = match action {
        PositionAction::Show { file, source }
        | PositionAction::Reset { file, source }
        | PositionAction::Set { file, source, .. } => (file, source),
    };
    let position = match action {
        PositionAction::Set { position, .. } => match position.parse::<Position>() {
            Ok(position) => Some(position),
            Err(e) => {
                error!("POSITION: {e}");
                return Exit::Usage;
            }
        },
        _ => None,
    };
    let config = match configured(file, source) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let Ok(settings) = config.source(source) else {
        return Exit::Usage;
    };
    if let Some(position) = &position
        && let Err(text) = belongs(position, settings)
    {
        error!("POSITION: {text}");
        return Exit::Usage;
    }
    let done = match (action, position) {
        (PositionAction::Set { .. }, Some(position)) => set(&config, settings, position),
        (PositionAction::Reset { .. }, _) => reset(&config, settings),
        _ => show(&config, settings),
    };
    match done {
        Ok(line) => {
            println!("{line}");
            Exit::Done
        }
        Err(e) => {
            error!("{e}");
            Exit::Halted
        }
    }
}

fn configured(file: &ConfigArguments, source: &str) -> Result<Config, Exit> {
    let config = Config::load(&file.config, &file.set).and_then(|config| {
        config.source(source)?;
        Ok(config)
    });
    config.map_err(|e| {
        error!("{e}");
        Exit::Usage
    })
}

/// Refuses a position of another kind of database than the source's, before it takes the place of a good checkpoint. GTIDs of MySQL and
/// of MariaDB are told apart by the server only: `mysql://` reads either.
fn belongs(position: &Position, source: &SourceSettings) -> Result<(), String> {
    let is_lsn = matches!(position, Position::Postgres { .. });
    let kind = source.address.kind;
    if is_lsn == (kind == SourceKind::Postgres) {
        return Ok(());
    }
    let expected = match kind {
        SourceKind::Postgres => "an LSN such as 16/B374D848",
        SourceKind::MySql | SourceKind::MariaDb => {
            "FILE:OFFSET such as binlog.000002:1234, or a GTID set"
        }
    };
    Err(format!(
        "{position} is no position of {}, whose kind is {}: expected {expected}",
        source.name,
        kind.as_str()
    ))
}

fn show(config: &Config, source: &SourceSettings) -> Result<String, CheckpointError> {
    // A look must not create the directory.
    let checkpoint = match config.state.exists() {
        true => {
            let _lock = StateLock::acquire(&config.state)?;
            FileStore::new(&config.state).load(&source.name)?
        }
        false => None,
    };
    Ok(match checkpoint {
        Some(checkpoint) => format!("{}: {}", source.name, describe(&checkpoint)),
        None => format!(
            "{}: no checkpoint; the next start begins at {}",
            source.name,
            start_text(&source.start)
        ),
    })
}

fn set(
    config: &Config,
    source: &SourceSettings,
    position: Position,
) -> Result<String, CheckpointError> {
    let _lock = StateLock::acquire(&config.state)?;
    let store = FileStore::new(&config.state);
    let was = before(&store, source)?;
    let line = format!("{}: was {was}, is {position:#}", source.name);
    store.save(&source.name, &Checkpoint::set_by_operator(position))?;
    Ok(line)
}

fn reset(config: &Config, source: &SourceSettings) -> Result<String, CheckpointError> {
    let _lock = StateLock::acquire(&config.state)?;
    let store = FileStore::new(&config.state);
    let was = before(&store, source)?;
    store.remove(&source.name)?;
    Ok(format!(
        "{}: was {was}, is gone; the next start begins at {}",
        source.name,
        start_text(&source.start)
    ))
}

/// What stood there, in words. A damaged checkpoint may be replaced: that is what its message advises.
fn before(store: &FileStore, source: &SourceSettings) -> Result<String, CheckpointError> {
    match store.load(&source.name) {
        Ok(Some(checkpoint)) => Ok(format!("{:#}", checkpoint.position)),
        Ok(None) => Ok("without checkpoint".to_owned()),
        Err(CheckpointError::Damaged { why, .. }) => Ok(format!("damaged ({why})")),
        Err(e) => Err(e),
    }
}

fn describe(checkpoint: &Checkpoint) -> String {
    match &checkpoint.server {
        Some(server) => format!("{:#} of server {server}", checkpoint.position),
        None => format!("{:#}, set by hand", checkpoint.position),
    }
}

fn start_text(start: &Start) -> String {
    match start {
        Start::Now => "now (the server's end at that time)".to_owned(),
        Start::Earliest => "earliest (the oldest binary log that is left)".to_owned(),
        Start::At(position) => format!("{position:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_of_another_kind_of_database_is_refused() {
        const LSN: &str = "16/B374D848";
        const SET: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-23";
        for (url, good, bad) in [
            ("mysql://u@h", [SET, "0-1-5"], [LSN, "0/1"]),
            ("mariadb://u@h", ["0-1-5", "b.000001:4"], [LSN, "0/1"]),
            ("postgres://u@h/d", [LSN, "0/1"], [SET, "b.000001:4"]),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let text = format!("[source.shop]\nurl = \"{url}\"\n[kafka]\nbrokers = [\"h:1\"]\n");
            std::fs::write(file.path(), text).unwrap();
            let config = Config::load(file.path(), &[""; 0]).unwrap();
            let source = config.source("shop").unwrap();
            for position in good {
                assert_eq!(belongs(&position.parse().unwrap(), source), Ok(()), "{url}");
            }
            for position in bad {
                let error = belongs(&position.parse().unwrap(), source).unwrap_err();
                assert!(error.contains("no position of shop"), "{url}: {error}");
            }
        }
    }
}
