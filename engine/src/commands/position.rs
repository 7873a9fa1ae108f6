//! `walbrook position`: read or change the checkpoint of a source while no engine runs.

use tracing::error;

use super::Exit;
use crate::checkpoint::{Checkpoint, CheckpointError, CheckpointStore, FileStore, StateLock};
use crate::cli::{ConfigArguments, PositionAction};
use crate::config::{Config, SourceSettings, Start};
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
