//! Getting a server's programs, cached in the user's cache directory; nothing is installed into the system.
//!
//! ```text
//! $XDG_CACHE_HOME/walbrook/servers/       (~/.cache/walbrook/servers)
//!   mysql/       apt.conf apt/…  root/    packages of Debian's unstable suite, unpacked; complete once `root/.complete` is there
//!   mariadb/     the same of the system's own suite, where the system has no mariadbd itself
//!   postgres/    the same of Debian 12, which has PostgreSQL 15, with wal2json; postgres-17/ of 13, postgres-18/ of the unstable suite
//!   kafka/       jars that Maven fetched, see `kafka.rs`
//!   mysql-data/  an initialised data directory, copied for every instance
//! ```
//!
//! The packages are fetched by apt with a configuration of its own (no root needed, the system's state untouched) from the
//! mirror that the system's own sources name. Foreign libraries are found because the programs are started through the unpacked
//! dynamic loader. PostgreSQL's programs start each other by name: 15 runs by the system's own loader and C library and finds the
//! others by `LD_LIBRARY_PATH`; later ones, which need a later C library, are patched to name the unpacked loader and its libraries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Flavour, ServerError, postgres};

/// How to start a server's program.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The program with what must come before the server's own options.
    pub command: Vec<String>,
    /// Options without which the unpacked server does not find its files.
    pub options: Vec<String>,
    /// The directory with the SQL scripts of the system tables.
    pub share: PathBuf,
    /// Where an initialised data directory is kept.
    pub template: PathBuf,
    /// What was unpacked; absent for a program of the system's.
    pub root: Option<PathBuf>,
}

/// Finds the programs of `flavour`, fetching them when needed.
///
/// `WALBROOK_MYSQLD`, `WALBROOK_MARIADBD`, `WALBROOK_POSTGRES`, `WALBROOK_POSTGRES_17` and `WALBROOK_POSTGRES_18` (with wal2json among
/// their libraries) name a server program to use instead.
///
/// # Errors
/// [`ServerError`] with the failing command's last lines, or what to do on systems without Debian's packages.
pub fn install(flavour: Flavour) -> Result<Installation, ServerError> {
    let cache = cache_directory()?;
    let variable = match flavour {
        Flavour::Mysql => "WALBROOK_MYSQLD",
        Flavour::Mariadb => "WALBROOK_MARIADBD",
        Flavour::Postgres => "WALBROOK_POSTGRES",
        Flavour::Postgres17 => "WALBROOK_POSTGRES_17",
        Flavour::Postgres18 => "WALBROOK_POSTGRES_18",
    };
    if let Some(program) = std::env::var_os(variable) {
        return Ok(system(flavour, PathBuf::from(program), &cache));
    }
    if flavour == Flavour::Mariadb {
        let known = [
            "/usr/sbin/mariadbd",
            "/usr/local/sbin/mariadbd",
            "/usr/bin/mariadbd",
        ];
        let supported = |path: &&&str| supports_10_11(Path::new(path));
        if let Some(program) = known.iter().find(supported) {
            return Ok(system(flavour, PathBuf::from(program), &cache));
        }
    }
    let home = cache.join(flavour.name());
    let root = home.join("root");
    if !root.join(".complete").exists() {
        let _lock = Lock::take(&cache.join(format!("{}.lock", flavour.name())))?;
        if !root.join(".complete").exists() {
            fetch(flavour, &home, &root, variable)?;
        }
    }
    unpacked(flavour, &root, &cache)
}

fn supports_10_11(program: &Path) -> bool {
    let Ok(output) = Command::new(program).arg("--version").output() else {
        return false;
    };
    String::from_utf8_lossy(&output.stdout).contains("10.11.")
}

fn system(flavour: Flavour, program: PathBuf, cache: &Path) -> Installation {
    if flavour.postgres().is_some() {
        return Installation {
            command: vec![program.display().to_string()],
            options: Vec::new(),
            share: PathBuf::new(),
            template: PathBuf::new(),
            root: None,
        };
    }
    let prefix = program
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("/usr"))
        .to_owned();
    let share = ["share/mysql", "share/mariadb", "share"].map(|part| prefix.join(part));
    let share = share
        .into_iter()
        .find(|path| path.join("mysql_system_tables.sql").exists());
    Installation {
        command: vec![program.display().to_string()],
        options: vec!["--no-defaults".into()],
        root: None,
        share: share.unwrap_or_else(|| prefix.join("share/mysql")),
        template: cache.join(format!("{}-data", flavour.name())),
    }
}

fn unpacked(flavour: Flavour, root: &Path, cache: &Path) -> Result<Installation, ServerError> {
    let shown = |path: PathBuf| path.display().to_string();
    if let Some(major) = flavour.postgres() {
        return postgres::unpacked(major, root);
    }
    let program = match flavour {
        Flavour::Mysql => root.join("usr/sbin/mysqld"),
        _ => root.join("usr/sbin/mariadbd"),
    };
    let libraries = libraries(root);
    let loader = loader(root)?;
    let share = [
        root.join("usr/share/mysql-9.7"),
        root.join("usr/share/mysql"),
        root.join("usr/share/mariadb"),
    ]
    .into_iter()
    .find(|path| path.exists());
    let share = share
        .ok_or_else(|| ServerError::Install(format!("no messages under {}", root.display())))?;
    let plugins = root.join("usr/lib/mysql/plugin");
    Ok(Installation {
        command: vec![
            shown(loader),
            "--library-path".into(),
            shown(libraries),
            shown(program),
        ],
        options: vec![
            "--no-defaults".into(),
            format!("--basedir={}", root.join("usr").display()),
            format!("--plugin-dir={}", plugins.display()),
            format!("--lc-messages-dir={}", share.display()),
            format!("--character-sets-dir={}", share.join("charsets").display()),
        ],
        share,
        template: cache.join(format!("{}-data", flavour.name())),
        root: Some(root.to_owned()),
    })
}

/// The unpacked dynamic loader.
pub(super) fn loader(root: &Path) -> Result<PathBuf, ServerError> {
    let libraries = libraries(root);
    // Not `lib64/…`: that is a link, and in older suites an absolute one, which leads out of `root`.
    let loaders = [
        libraries.join("ld-linux-x86-64.so.2"),
        libraries.join("ld-linux-aarch64.so.1"),
        root.join("usr/lib/ld-linux-aarch64.so.1"),
    ];
    let loader = loaders.into_iter().find(|path| path.exists());
    loader
        .ok_or_else(|| ServerError::Install(format!("no dynamic loader under {}", root.display())))
}

/// Where the unpacked packages have their shared libraries.
pub(super) fn libraries(root: &Path) -> PathBuf {
    root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH))
}

/// `$XDG_CACHE_HOME/walbrook/servers` or `~/.cache/walbrook/servers`, created.
pub(super) fn cache_directory() -> Result<PathBuf, ServerError> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = base
        .or_else(home)
        .ok_or_else(|| ServerError::Install("neither XDG_CACHE_HOME nor HOME is set".into()))?;
    let cache = base.join("walbrook/servers");
    fs::create_dir_all(&cache).map_err(ServerError::io(&cache))?;
    Ok(cache)
}

fn fetch(flavour: Flavour, home: &Path, root: &Path, variable: &str) -> Result<(), ServerError> {
    let (suite, packages) = match flavour {
        Flavour::Mysql => (
            Some("sid"),
            ["mysql-server-core", "mysql-client-core"].as_slice(),
        ),
        Flavour::Mariadb => (None, ["mariadb-server-core"].as_slice()),
        Flavour::Postgres => (
            Some("bookworm"),
            ["postgresql-15", "postgresql-15-wal2json"].as_slice(),
        ),
        Flavour::Postgres17 => (
            Some("trixie"),
            ["postgresql-17", "postgresql-17-wal2json", "patchelf"].as_slice(),
        ),
        Flavour::Postgres18 => (
            Some("sid"),
            ["postgresql-18", "postgresql-18-wal2json", "patchelf"].as_slice(),
        ),
    };
    let mirror = Mirror::of_this_system().ok_or_else(|| {
        ServerError::Install(format!(
            "this system's apt sources name no Debian mirror to fetch {} from; install it and set {variable} to its server program",
            flavour.title()
        ))
    })?;
    tracing::info!("fetching {} into {}", flavour.title(), home.display());
    let _ = fs::remove_dir_all(home);
    let apt = home.join("apt");
    for part in ["state/lists/partial", "cache/archives/partial", "none"] {
        fs::create_dir_all(apt.join(part)).map_err(ServerError::io(&apt))?;
    }
    let suite = suite.map_or(mirror.suite.clone(), str::to_owned);
    let sources = format!("deb {} {} {suite} main\n", mirror.options, mirror.uri);
    let shown = apt.display();
    let configuration = format!(
        "Dir::State \"{shown}/state\";\nDir::State::status \"{shown}/status\";\nDir::Cache \"{shown}/cache\";\n\
         Dir::Etc::sourcelist \"{shown}/sources.list\";\nDir::Etc::sourceparts \"{shown}/none\";\n\
         Dir::Etc::preferences \"{shown}/none/x\";\nDir::Etc::preferencesparts \"{shown}/none\";\nDir::Log \"{shown}\";\n\
         APT::Install-Recommends \"0\";\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::Retries \"3\";\n"
    );
    for (name, text) in [
        ("status", ""),
        ("sources.list", &sources),
        ("apt.conf", &configuration),
    ] {
        fs::write(apt.join(name), text).map_err(ServerError::io(&apt.join(name)))?;
    }
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .env("APT_CONFIG", apt.join("apt.conf"))
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(arguments);
        checked(command)
    };
    apt_get(&["-qq", "update"])?;
    apt_get(
        &[
            ["-qq", "-y", "--download-only", "install"].as_slice(),
            packages,
        ]
        .concat(),
    )?;
    unpack(flavour, &apt.join("cache/archives"), root)?;
    let _ = fs::remove_dir_all(&apt);
    if let Some(major) = flavour.postgres() {
        postgres::prune(major, root);
        postgres::patch(major, root)?;
    }
    // What lacks a part must not count as complete.
    unpacked(flavour, root, home)?;
    fs::write(root.join(".complete"), "").map_err(ServerError::io(root))
}

/// Unpacks what a server needs; perl and its databases belong to scripts that nobody runs here, LLVM to a compiler of queries.
fn unpack(flavour: Flavour, archives: &Path, root: &Path) -> Result<(), ServerError> {
    const UNNEEDED: [&str; 6] = [
        "perl",
        "libperl",
        "libdb5",
        "libgdbm",
        "libc-gconv",
        "openssl-provider",
    ];
    let foreign = match flavour {
        Flavour::Mysql | Flavour::Mariadb => [].as_slice(),
        // An older C library than the loader's does not work with it.
        Flavour::Postgres => ["libc6_", "libc-bin", "libllvm", "libz3"].as_slice(),
        Flavour::Postgres17 | Flavour::Postgres18 => ["libc-bin", "libllvm", "libz3"].as_slice(),
    };
    for directory in ["lib", "lib64", "bin", "sbin"] {
        fs::create_dir_all(root.join("usr").join(directory)).map_err(ServerError::io(root))?;
        // Merged /usr: packages ship either path.
        std::os::unix::fs::symlink(format!("usr/{directory}"), root.join(directory))
            .map_err(ServerError::io(root))?;
    }
    for entry in fs::read_dir(archives).map_err(ServerError::io(archives))? {
        let path = entry.map_err(ServerError::io(archives))?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let unneeded = UNNEEDED
            .iter()
            .chain(foreign)
            .any(|prefix| name.starts_with(prefix));
        if name.ends_with(".deb") && !unneeded {
            // `dpkg-deb -x` would put a directory in the place of the link where a package of an older suite ships `lib/` itself.
            let mut command = Command::new("sh");
            command
                .arg("-c")
                .arg("dpkg-deb --fsys-tarfile \"$1\" | tar -x --keep-directory-symlink -C \"$2\"")
                .arg("sh")
                .arg(&path)
                .arg(root);
            checked(command)?;
        }
    }
    Ok(())
}

/// Runs `command`; an error carries its last lines.
pub(super) fn checked(mut command: Command) -> Result<(), ServerError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| ServerError::Install(format!("cannot run {name}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(8)..].join("\n");
    Err(ServerError::Install(format!(
        "{name} failed ({}):\n{last}",
        output.status
    )))
}

/// A Debian archive as the system's own sources name it.
#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    /// `[signed-by=…]` or empty.
    options: String,
    uri: String,
    /// The system's own suite.
    suite: String,
}

impl Mirror {
    fn of_this_system() -> Option<Mirror> {
        let mut texts = Vec::new();
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
            files.extend(entries.flatten().map(|entry| entry.path()));
        }
        files.sort();
        for path in files {
            if let Ok(text) = fs::read_to_string(&path) {
                texts.push((
                    path.extension()
                        .is_some_and(|extension| extension == "sources"),
                    text,
                ));
            }
        }
        let release = fs::read_to_string("/etc/os-release").ok()?;
        let field = |name: &str| {
            let line = release
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
            Some(line.trim_matches('"').to_owned())
        };
        if field("ID")? != "debian" {
            return None;
        }
        let suite = field("VERSION_CODENAME")?;
        texts.iter().find_map(|(deb822, text)| {
            if *deb822 {
                Mirror::in_deb822(text, &suite)
            } else {
                Mirror::in_list(text, &suite)
            }
        })
    }

    /// One-line style: `deb [signed-by=…] URI SUITE COMPONENT…`.
    fn in_list(text: &str, suite: &str) -> Option<Mirror> {
        text.lines().find_map(|line| {
            let rest = line.trim().strip_prefix("deb ")?.trim();
            let (options, rest) = match rest.strip_prefix('[') {
                Some(inside) => inside
                    .split_once(']')
                    .map(|(options, rest)| (format!("[{options}]"), rest))?,
                None => (String::new(), rest),
            };
            let mut words = rest.split_whitespace();
            let (uri, found) = (words.next()?, words.next()?);
            let own = found == suite || found == "stable";
            (own && words.any(|word| word == "main")).then(|| Mirror {
                options,
                uri: uri.to_owned(),
                suite: suite.to_owned(),
            })
        })
    }

    /// deb822 style: paragraphs of `Types: URIs: Suites: Components: Signed-By:`.
    fn in_deb822(text: &str, suite: &str) -> Option<Mirror> {
        text.split("\n\n").find_map(|paragraph| {
            let field = |name: &str| {
                let lines = paragraph.lines().filter(|line| !line.starts_with('#'));
                lines
                    .filter_map(|line| line.split_once(':'))
                    .find(|(found, _)| found.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.trim())
            };
            let own = field("Suites")?
                .split_whitespace()
                .any(|found| found == suite || found == "stable");
            let main = field("Components")?
                .split_whitespace()
                .any(|component| component == "main");
            let deb = field("Types")?.split_whitespace().any(|kind| kind == "deb");
            let uri = field("URIs")?.split_whitespace().next()?.to_owned();
            let options = field("Signed-By")
                .filter(|key| key.starts_with('/'))
                .map_or(String::new(), |key| format!("[signed-by={key}]"));
            (own && main && deb).then(|| Mirror {
                options,
                uri,
                suite: suite.to_owned(),
            })
        })
    }
}

/// A file lock, so that tests running at once fetch once; released on drop.
pub(super) struct Lock(#[expect(dead_code, reason = "held, not read")] nix::fcntl::Flock<fs::File>);

impl Lock {
    pub(super) fn take(path: &Path) -> Result<Lock, ServerError> {
        let file = fs::File::create(path).map_err(ServerError::io(path))?;
        let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive);
        lock.map(Lock).map_err(|(_, error)| ServerError::Io {
            path: path.to_owned(),
            source: error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_found_in_both_styles() {
        let list = "# deb http://no/debian trixie main\ndeb http://other/tools any tools\n\
                    deb [signed-by=/k.gpg] http://mirror/debian trixie main contrib\n";
        let expected = Mirror {
            options: "[signed-by=/k.gpg]".into(),
            uri: "http://mirror/debian".into(),
            suite: "trixie".into(),
        };
        assert_eq!(Mirror::in_list(list, "trixie"), Some(expected));
        assert_eq!(Mirror::in_list(list, "bookworm"), None);
        let deb822 = "Types: deb\nURIs: http://security/debian\nSuites: trixie-security\nComponents: main\n\n\
                      Types: deb\n# comment: x\nURIs: http://mirror/debian\nSuites: trixie trixie-updates\nComponents: main\nSigned-By: /k.gpg\n";
        let expected = Mirror {
            options: "[signed-by=/k.gpg]".into(),
            uri: "http://mirror/debian".into(),
            suite: "trixie".into(),
        };
        assert_eq!(Mirror::in_deb822(deb822, "trixie"), Some(expected));
    }
}
