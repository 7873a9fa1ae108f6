//! The command line from outside: what is printed where, and with which exit status.
//!
//! No server and no broker: everything here ends before a connection is needed, or at a port where nobody listens.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const PASSWORD: &str = "open sesame@:/?#";

/// A directory with a `walbrook.toml`, in which the binary is run.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("walbrook.toml"), config).unwrap();
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn walbrook(&self, arguments: &[&str]) -> Answer {
        let output = Command::new(env!("CARGO_BIN_EXE_walbrook"))
            .args(arguments)
            .current_dir(self.path())
            .env("SHOP_PASSWORD", PASSWORD)
            .env_remove("WALBROOK_LOG")
            .env_remove("NO_SUCH_VARIABLE")
            .output()
            .unwrap();
        Answer::new(&output)
    }
}

#[derive(Debug)]
struct Answer {
    status: i32,
    out: String,
    err: String,
}

impl Answer {
    fn new(output: &Output) -> Self {
        let answer = Self {
            status: output.status.code().expect("ended by itself"),
            out: String::from_utf8(output.stdout.clone()).unwrap(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        };
        assert!(
            !answer.out.contains("sesame") && !answer.err.contains("sesame"),
            "a secret was shown: {answer:?}"
        );
        answer
    }

    fn refused(self, text: &str) {
        assert_eq!(self.status, 2, "{self:?}");
        assert!(self.err.contains(text), "expected {text:?} in {self:?}");
        assert_eq!(self.out, "", "results only on stdout");
    }

    fn halted(self, text: &str) {
        assert_eq!(self.status, 1, "{self:?}");
        assert!(self.err.contains(text), "expected {text:?} in {self:?}");
    }

    fn printed(self, text: &str) {
        assert_eq!((self.status, self.out.as_str()), (0, text), "{}", self.err);
    }
}

/// A port of this machine where nobody listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn config() -> String {
    format!(
        "[source.shop]\nurl = \"mysql://cdc:${{SHOP_PASSWORD}}@127.0.0.1:{}?tls=disable\"\n[kafka]\nbrokers = [\"127.0.0.1:{}\"]\n",
        closed_port(),
        closed_port()
    )
}

#[test]
fn help_names_what_is_there_and_nothing_else() {
    let place = Place::new("");
    let help = place.walbrook(&["--help"]);
    assert_eq!(help.status, 0);
    for command in ["run", "check", "tap", "position"] {
        assert!(
            help.out.contains(&format!("\n  {command} ")),
            "{command} in {}",
            help.out
        );
    }
    for absent in ["consume", "uring"] {
        assert!(
            !help.out.to_lowercase().contains(absent),
            "{absent} in {}",
            help.out
        );
    }
    let version = place.walbrook(&["--version"]);
    assert!(
        version
            .out
            .starts_with(&format!("walbrook {}", env!("CARGO_PKG_VERSION"))),
        "{version:?}"
    );
    assert_eq!(
        place.walbrook(&["consume", "-c", "walbrook.toml"]).status,
        2
    );
    assert_eq!(place.walbrook(&["run"]).status, 2);
    assert_eq!(place.walbrook(&[]).status, 2);
}

#[test]
fn configuration_errors_name_file_and_line() {
    let run = |config: &str| Place::new(config).walbrook(&["run", "-c", "walbrook.toml"]);
    run("[source.shop]\nurl = \"mysql://u@h\"\ntabels = []\n[kafka]\nbrokers = [\"k\"]\n").refused(
        "walbrook.toml:3: unknown key \"tabels\" in [source.shop]; did you mean \"tables\"?",
    );
    run("[source.shop]\nurl = \"postgres://cdc:${SHOP_PASSWORD}@h\"\n[kafka]\nbrokers = [\"k\"]\n")
        .refused("walbrook.toml:2: the url names no database");
    run("[source.shop]\nurl = \"mysql://u:${NO_SUCH_VARIABLE}@h\"\n[kafka]\nbrokers = [\"k\"]\n")
        .refused("walbrook.toml:2: environment variable NO_SUCH_VARIABLE is not set");
    run("[source.shop]\nurl = \"mysql://u:open sesame@h/shop\"\n[kafka]\nbrokers = [\"k\"]\n")
        .refused("walbrook.toml:2: the url names a database");
    run("[source.shop\n").refused("walbrook.toml:1: ");
    let config = config();
    for (set, text) in [
        (
            "kafka.format=protobuf",
            "--set kafka.format: format = \"protobuf\" is not available in this version",
        ),
        (
            "kafka.compression=brotli",
            "--set kafka.compression: compression = \"brotli\" is not known",
        ),
        (
            "engine.io=kqueue",
            "--set engine.io: io = \"kqueue\" is not known",
        ),
        (
            "source.shop.plugin=wal2json",
            "plugin is for sources of postgres://",
        ),
        (
            "engine.memory_max=4MiB",
            "kafka.batch_max = \"1MiB\" is too large for engine.memory_max = \"4MiB\"",
        ),
        ("nonsense", "--set: expected KEY=VALUE"),
    ] {
        Place::new(&config)
            .walbrook(&["run", "-c", "walbrook.toml", "--set", set])
            .refused(text);
        Place::new(&config)
            .walbrook(&["check", "-c", "walbrook.toml", "--set", set])
            .refused(text);
    }
    Place::new("")
        .walbrook(&["run", "-c", "elsewhere.toml"])
        .refused("cannot read elsewhere.toml: No such file");
}

#[test]
fn logs_are_json_when_asked_for() {
    let place = Place::new("[kafak]\n");
    let answer = place.walbrook(&["--log-format", "json", "run", "-c", "walbrook.toml"]);
    assert_eq!(answer.status, 2);
    let line = answer.err.lines().next().unwrap();
    assert!(
        line.starts_with('{')
            && line.contains("\"level\":\"ERROR\"")
            && line.contains("did you mean"),
        "{line}"
    );
}

#[test]
fn tap_refuses_what_it_cannot_do() {
    let place = Place::new("");
    place
        .walbrook(&["tap", "mysql://u@h", "--format", "flat"])
        .refused("--format: flat is not available in this version");
    place
        .walbrook(&["tap", "postgres://u:${SHOP_PASSWORD}@h"])
        .refused("URL: the url names no database");
    place
        .walbrook(&["tap", "mysql://u@h", "--tables", "shop"])
        .refused("--tables: \"shop\": expected DATABASE.TABLE");
    place
        .walbrook(&[
            "tap",
            "mysql://u:${SHOP_PASSWORD}@h",
            "--password-file",
            "x",
        ])
        .refused("--password-file: the URL has a password too");
    place
        .walbrook(&["tap", "mysql://u@h", "--password-file", "x"])
        .refused("--password-file: cannot read x: No such file");
    place
        .walbrook(&["tap", "mysql://u@h", "--start", "tomorrow"])
        .refused("--start: \"tomorrow\" is not a position");
}

#[test]
fn check_prints_a_line_per_requirement() {
    let place = Place::new(&config());
    let answer = place.walbrook(&["check", "-c", "walbrook.toml"]);
    assert_eq!(answer.status, 1, "{answer:?}");
    let lines: Vec<&str> = answer.out.lines().collect();
    assert_eq!(lines[0], "ok    walbrook.toml: valid");
    assert_eq!(
        lines[1],
        "ok    state: directory walbrook-state can be written"
    );
    assert_eq!(lines[2], "ok    shop: no checkpoint yet");
    assert!(
        lines[3].starts_with("FAIL  shop: server 127.0.0.1:"),
        "{lines:?}"
    );
    assert!(
        lines[4].starts_with("FAIL  kafka: brokers 127.0.0.1:"),
        "{lines:?}"
    );
    assert!(
        !place.path().join("walbrook-state").exists(),
        "check changes nothing"
    );
}

#[test]
fn position_is_shown_set_and_reset() {
    let place = Place::new(&config());
    let position = |arguments: &[&str]| {
        let mut all = vec!["position", arguments[0], "-c", "walbrook.toml"];
        all.extend(&arguments[1..]);
        place.walbrook(&all)
    };
    let now = "now (the server's end at that time)";
    position(&["show", "shop"]).printed(&format!(
        "shop: no checkpoint; the next start begins at {now}\n"
    ));
    assert!(
        !place.path().join("walbrook-state").exists(),
        "looking creates nothing"
    );
    position(&["set", "shop", "binlog.000002:1234"])
        .printed("shop: was without checkpoint, is binlog.000002:1234\n");
    position(&["show", "shop"]).printed("shop: binlog.000002:1234, set by hand\n");
    let set = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-23";
    position(&["set", "shop", set]).printed(&format!("shop: was binlog.000002:1234, is {set}\n"));
    position(&["set", "shop", "binlog.000002"]).refused("POSITION: \"binlog.000002\" is not a position: expected FILE:OFFSET such as binlog.000002:1234");
    position(&["set", "shop", "16/B374D848"]).refused(
        "POSITION: 16/B374D848 is no position of shop, whose kind is mysql: expected FILE:OFFSET",
    );
    position(&["set", "shp", "binlog.000002:4"])
        .refused("SOURCE: there is no source \"shp\"; did you mean \"shop\"?");
    position(&["show", "shop"]).printed(&format!("shop: {set}, set by hand\n"));

    let file = place.path().join("walbrook-state/shop.checkpoint");
    let good = fs::read(&file).unwrap();
    fs::write(&file, &good[..good.len() - 5]).unwrap();
    position(&["show", "shop"]).halted("shop.checkpoint is damaged (its checksum is");
    place.walbrook(&["run", "-c", "walbrook.toml"]).halted("");
    let replaced = position(&["set", "shop", "binlog.000003:4"]);
    assert!(
        replaced
            .out
            .starts_with("shop: was damaged (its checksum is "),
        "{replaced:?}"
    );
    position(&["reset", "shop"]).printed(&format!(
        "shop: was binlog.000003:4, is gone; the next start begins at {now}\n"
    ));
    assert!(!file.exists());
}

#[test]
fn a_state_directory_in_use_is_refused() {
    let place = Place::new(&config());
    let state = place.path().join("walbrook-state");
    let lock = engine::checkpoint::StateLock::acquire(&state).unwrap();
    let text = format!("walbrook-state is in use by process {}", std::process::id());
    place
        .walbrook(&["position", "show", "-c", "walbrook.toml", "shop"])
        .halted(&text);
    place
        .walbrook(&["position", "reset", "-c", "walbrook.toml", "shop"])
        .halted(&text);
    place
        .walbrook(&["run", "-c", "walbrook.toml"])
        .halted(&text);
    drop(lock);
    assert_eq!(
        place
            .walbrook(&["position", "show", "-c", "walbrook.toml", "shop"])
            .status,
        0
    );
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "").unwrap();
    place
        .walbrook(&[
            "position",
            "set",
            "-c",
            "walbrook.toml",
            "shop",
            "binlog.000002:4",
        ])
        .halted("cannot create state directory walbrook-state");
}

/// A process inherits the filter of the thread that starts it.
#[test]
fn where_io_uring_is_forbidden_one_line_says_so() {
    let thread = std::thread::spawn(|| {
        let filter = seccompiler::SeccompFilter::new(
            [(libc::SYS_io_uring_setup, Vec::new())].into(),
            seccompiler::SeccompAction::Allow,
            seccompiler::SeccompAction::Errno(libc::EPERM as u32),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
        seccompiler::apply_filter(&program).unwrap();
        let place = Place::new(&config());
        let state = place.path().join("walbrook-state");
        // Ends the run before anything is connected.
        let _lock = engine::checkpoint::StateLock::acquire(&state).unwrap();
        let run = |io: &str| {
            place.walbrook(&[
                "run",
                "-c",
                "walbrook.toml",
                "--set",
                &format!("engine.io={io}"),
            ])
        };
        (run("uring"), run("epoll"))
    });
    let (uring, epoll) = thread.join().unwrap();
    let lines = |answer: &Answer| -> Vec<String> {
        let lines = answer.err.lines().filter(|line| line.contains("io_uring"));
        lines.map(str::to_owned).collect()
    };
    let said = lines(&uring);
    assert_eq!(said.len(), 1, "{uring:?}");
    assert!(
        said[0].contains("epoll reads the sources") && said[0].contains("not permitted"),
        "{said:?}"
    );
    assert!(lines(&epoll).is_empty(), "{epoll:?}");
    for answer in [uring, epoll] {
        answer.halted("walbrook-state is in use by process");
    }
}
