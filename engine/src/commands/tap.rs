//! `walbrook tap`: changes as JSON lines on stdout, in the order of the server, without Kafka and without keeping a position.
//!
//! The lines are the values of the records that `walbrook run` would write: they come out of the same encoder, with one partition for
//! all tables, and are read back from its record batches.
//!
//! ```text
//! Source ─► batch ─► thread: encode, read back, write ─► stdout
//! ```
//! Whoever reads may pause for as long as he likes (a pager): the thread waits, and with it the stream, but the server is answered and
//! signals are heard.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::kafka::record_batch::{self, Decoder};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use super::Exit;
use crate::batch::Batch;
use crate::cli::TapArguments;
use crate::clock;
use crate::config::{
    Compression, ConfigError, EncodeSettings, Io, Keys, Origin, Secret, Selection, SlotSettings,
    SourceAddress, SourceSettings, Start, derived_server_id, environment,
};
use crate::encode::{Encoder, Template, UnknownKeyColumn};
use crate::encoded::Route;
use crate::source::{Filled, Limits, Source};

/// Received bytes per batch: small, because somebody is watching.
const BATCH_BYTES: usize = 256 << 10;
/// The largest row, as the default of `engine.row_max`.
const ROW_MAX: usize = 64 << 20;
/// Record batches are only a way to the lines: large enough that any row fits.
const RECORDS_MAX: usize = 1 << 30;
/// How long what has been received may take to be printed once a signal says to end.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Formats of the interface that this version has not.
const FORMATS_LATER: [&str; 3] = ["flat", "wal2json", "protobuf"];

/// Prints until `--count`, a signal, or an error.
#[must_use]
pub fn run(arguments: &TapArguments) -> Exit {
    let settings = match settings(arguments) {
        Ok(settings) => settings,
        Err(e) => {
            error!("{e}");
            return Exit::Usage;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            error!("cannot start the asynchronous runtime: {e}");
            return Exit::Halted;
        }
    };
    let scratch = match Scratch::create() {
        Ok(scratch) => scratch,
        Err(e) => {
            error!("cannot create a temporary directory (TMPDIR says where): {e}");
            return Exit::Halted;
        }
    };
    match runtime.block_on(stream(&settings, &scratch.dir, arguments.count)) {
        Ok(()) => Exit::Done,
        Err(text) => {
            error!("{text}");
            Exit::Halted
        }
    }
}

fn settings(arguments: &TapArguments) -> Result<SourceSettings, ConfigError> {
    let fail = |name, text: String| ConfigError {
        origin: Origin::Argument(name),
        text,
    };
    match arguments.format.as_str() {
        "debezium" => {}
        later if FORMATS_LATER.contains(&later) => {
            return Err(fail(
                "--format",
                format!("{later} is not available in this version"),
            ));
        }
        other => {
            return Err(fail(
                "--format",
                format!("{other} is not known; known is debezium"),
            ));
        }
    }
    let mut address = SourceAddress::parse(&arguments.url, &Origin::Argument("URL"), &environment)?;
    if let Some(file) = &arguments.password_file {
        if !address.password.is_empty() {
            return Err(fail(
                "--password-file",
                "the URL has a password too: give one of them".to_owned(),
            ));
        }
        address.password = read_password(file).map_err(|text| fail("--password-file", text))?;
    }
    let tables = Selection::new(&arguments.tables).map_err(|e| fail("--tables", e.to_string()))?;
    let start = Start::parse(&arguments.start).map_err(|text| fail("--start", text))?;
    // Several may watch one server at the same time, so each process takes an id of its own. In containers many have the same number.
    let name = format!("tap-{}-{:08x}", std::process::id(), rand::random::<u32>());
    let server_id = derived_server_id(&name, &address, Path::new("."));
    let mut slot = SlotSettings::of(&name);
    slot.temporary = true;
    Ok(SourceSettings {
        name: "tap".into(),
        address,
        tables,
        keys: Keys::default(),
        start,
        server_id,
        slot,
        row_max: ROW_MAX,
        truncates: false,
    })
}

/// The first line: editors end files with a line end that belongs to no password.
fn read_password(file: &Path) -> Result<Secret, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(Secret::new(password)),
        _ => Err(format!(
            "{} has no first line to be the password",
            file.display()
        )),
    }
}

/// Where the source may put what it has to hold back (prepared XA transactions); gone with the process.
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn create() -> io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("walbrook-tap-{}", std::process::id()));
        // A process of that id that was killed may have left one.
        let _ = std::fs::remove_dir_all(&dir);
        // Rows are nobody else's business.
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", dir.display())))?;
        Ok(Self { dir })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

async fn stream(
    settings: &SourceSettings,
    scratch: &Path,
    count: Option<u64>,
) -> Result<(), String> {
    let mut signals = Signals::listen()?;
    let printing = Printing::start(settings, count, || io::stdout().lock());
    let Printing { batches, mut ended } =
        printing.map_err(|e| format!("cannot start the thread that prints: {e}"))?;
    let limits = Limits {
        batch_bytes: BATCH_BYTES,
        row_max: ROW_MAX,
        io: Io::Epoll,
        until_end: false,
    };
    let connected = Source::connect_until(settings, limits, scratch, signals.next()).await;
    let Some(mut source) = connected.map_err(|e| e.to_string())? else {
        return Ok(());
    };
    info!(server = %source.identity(), position = %source.position(), "watching");
    let mut printed = None;
    let mut stopped = false;
    let watched = tokio::select! {
        watched = watch(&mut source, &batches) => watched,
        result = &mut ended => {
            printed = Some(result);
            Ok(())
        }
        () = signals.next() => {
            stopped = true;
            Ok(())
        }
    };
    source.close().await;
    // The thread prints what it was handed, and ends: at once, unless nobody reads.
    drop(batches);
    let printed = match printed {
        Some(result) => result,
        None => tokio::select! {
            result = ended => result,
            () = signals.next() => Ok(Ok(())),
            () = tokio::time::sleep(LAST_LINES), if stopped => Ok(Ok(())),
        },
    };
    let panicked = |_| Err("the thread that prints has ended unexpectedly".to_owned());
    watched.and(printed.unwrap_or_else(panicked))
}

/// Hands batches over until the source fails, or nobody takes them any more.
async fn watch(source: &mut Source, batches: &mpsc::Sender<Batch>) -> Result<(), String> {
    let mut batch = Batch::default();
    loop {
        let filled = source.fill(&mut batch).await;
        if !matches!(filled, Ok(Filled::Nothing)) {
            source.seal(&mut batch);
            if batches.send(std::mem::take(&mut batch)).await.is_err() {
                return Ok(());
            }
        }
        filled.map_err(|e| e.to_string())?;
    }
}

/// The signals that end it.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|e| format!("cannot listen for signals: {e}"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A thread that prints.
struct Printing {
    /// One waits while another is printed.
    batches: mpsc::Sender<Batch>,
    /// How it ended: enough has been printed, nobody reads any more, or no more batches come.
    ended: oneshot::Receiver<Result<(), String>>,
}

impl Printing {
    fn start<W: Write>(
        settings: &SourceSettings,
        count: Option<u64>,
        out: impl FnOnce() -> W + Send + 'static,
    ) -> io::Result<Self> {
        let (batches, mut handed) = mpsc::channel(1);
        let (tell, ended) = oneshot::channel();
        let settings = settings.clone();
        let print = move || {
            let mut printer = Printer::new(&settings, BufWriter::new(out()), count);
            let _ = tell.send(printer.print_all(&mut handed));
        };
        std::thread::Builder::new()
            .name("print".into())
            .spawn(print)?;
        Ok(Self { batches, ended })
    }
}

/// Encodes batches and writes the records' values as lines.
struct Printer<W> {
    settings: Arc<EncodeSettings>,
    encoder: Encoder,
    templates: HashMap<u64, Arc<Template>>,
    decoder: Decoder,
    out: W,
    /// Changes still to be printed.
    left: u64,
}

impl<W: Write> Printer<W> {
    fn new(settings: &SourceSettings, out: W, count: Option<u64>) -> Self {
        let settings = Arc::new(EncodeSettings {
            source: settings.name.clone(),
            connector: settings.address.kind.as_str(),
            version: env!("CARGO_PKG_VERSION"),
            keys: settings.keys.clone(),
            compression: Compression::None,
            batch_max: RECORDS_MAX,
            tombstones: false,
            row_max: ROW_MAX,
        });
        Self {
            encoder: Encoder::new(Arc::clone(&settings)),
            settings,
            templates: HashMap::new(),
            decoder: Decoder::new(),
            out,
            left: count.unwrap_or(u64::MAX),
        }
    }

    /// Prints batches until no more come, or enough has been printed.
    fn print_all(&mut self, batches: &mut mpsc::Receiver<Batch>) -> Result<(), String> {
        while let Some(mut batch) = batches.blocking_recv() {
            if !self.print(&mut batch)? {
                break;
            }
        }
        Ok(())
    }

    /// Prints a batch; false when enough has been printed or nobody reads any more.
    fn print(&mut self, batch: &mut Batch) -> Result<bool, String> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX);
        batch.events.truncate(wanted);
        self.left -= batch.events.len() as u64;
        match self.write(batch) {
            Ok(()) => Ok(self.left > 0),
            Err(Failure::Closed) => Ok(false),
            Err(Failure::Text(text)) => Err(text),
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        let templates: Vec<_> = batch
            .tables
            .iter()
            .map(|table| {
                if let Some(template) = self.templates.get(&table.version) {
                    return Ok(Arc::clone(template));
                }
                // One route for all tables: a single partition keeps the order of the server.
                let route = Route {
                    topic: "tap".into(),
                    topic_id: 0,
                    partitions: 1,
                };
                let template = Template::new(Arc::clone(table), route, &self.settings)?;
                self.templates.insert(table.version, Arc::clone(&template));
                Ok(template)
            })
            .collect::<Result<_, UnknownKeyColumn>>()
            .map_err(|e| Failure::Text(e.to_string()))?;
        let parts = self
            .encoder
            .encode(batch, &templates, None, clock::since_epoch())
            .map_err(|e| Failure::Text(e.to_string()))?;
        for mut part in parts {
            // The checksum is written with the producer's id; reading insists on it.
            record_batch::stamp(&mut part.bytes, 0, 0, 0)
                .map_err(|e| Failure::Text(e.to_string()))?;
            let decoded = self
                .decoder
                .decode(&part.bytes)
                .map_err(|e| Failure::Text(e.to_string()))?;
            for record in decoded.into_iter().flat_map(|(_, records)| records) {
                let record = record.map_err(|e| Failure::Text(e.to_string()))?;
                if let Some(value) = record.value {
                    self.out.write_all(value)?;
                    self.out.write_all(b"\n")?;
                }
            }
        }
        self.out.flush()?;
        Ok(())
    }
}

/// Why printing ended.
enum Failure {
    /// The reader has gone (`walbrook tap … | head`): no error.
    Closed,
    Text(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Text(format!("cannot write to stdout: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(url: &str) -> TapArguments {
        TapArguments {
            url: url.into(),
            tables: vec!["*.*".into()],
            format: "debezium".into(),
            count: None,
            password_file: None,
            start: "now".into(),
        }
    }

    fn error(arguments: &TapArguments) -> String {
        settings(arguments).unwrap_err().to_string()
    }

    #[test]
    fn passwords_come_from_one_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "se same\r\n").unwrap();
        let mut a = arguments("mysql://u@h");
        a.password_file = Some(file.path().into());
        let settings = settings(&a).unwrap();
        assert_eq!(settings.address.password.reveal(), "se same");
        assert!(!format!("{settings:?}").contains("se same"));
        a.url = "mysql://u:other@h".into();
        assert_eq!(
            error(&a),
            "--password-file: the URL has a password too: give one of them"
        );
        std::fs::write(file.path(), "").unwrap();
        a.url = "mysql://u@h".into();
        assert!(error(&a).contains("has no first line"));
    }

    #[test]
    fn what_is_not_there_yet_is_refused() {
        let mut a = arguments("mysql://u@h");
        a.format = "flat".into();
        assert_eq!(error(&a), "--format: flat is not available in this version");
        let mut a = arguments("mysql://u@h");
        a.start = "later".into();
        assert!(error(&a).starts_with("--start: \"later\" is not a position"));
    }
}
