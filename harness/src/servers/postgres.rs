//! What is PostgreSQL's about an instance: an unprivileged user, the data directory, options, roles, TLS.
//!
//! Every instance has a cluster of its own, made by `initdb` at its start: a cluster's system identifier is what tells servers
//! apart, and copies of one directory would all have the same. Only a standby's is a copy, made by `pg_basebackup`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ServerError;
use super::install::{Installation, checked, libraries, loader};

/// The certificate authority, in an instance's directory.
pub(super) const CA: &str = "ca.pem";

/// The programs that instances start.
const PROGRAMS: [&str; 3] = ["postgres", "initdb", "pg_basebackup"];

/// Who is let in, and how: the administrator from this machine as on a developer's, everybody else by password.
const HBA: &str = "host all,replication postgres 127.0.0.1/32 trust\n\
                   host all,replication all 127.0.0.1/32 scram-sha-256\n";

/// Single-user mode takes a statement per line. A change capture needs REPLICATION and SELECT.
const ROLES: &str = "CREATE ROLE cdc LOGIN REPLICATION PASSWORD 'cdc'\n\
                     GRANT pg_read_all_data TO cdc\n\
                     CREATE DATABASE walbrook\n";

/// Where the packages put what a major version has.
fn home(major: u32, root: &Path) -> PathBuf {
    root.join(format!("usr/lib/postgresql/{major}"))
}

/// Whether the programs run by the system's own loader and C library: those of the oldest suite that we run on.
fn is_of_the_system(major: u32) -> bool {
    major == 15
}

/// The unpacked programs below `root`.
pub(super) fn unpacked(major: u32, root: &Path) -> Result<Installation, ServerError> {
    let home = home(major, root);
    let programs = PROGRAMS.map(|name| home.join("bin").join(name));
    for path in programs.iter().chain([&home.join("lib/wal2json.so")]) {
        fs::metadata(path).map_err(ServerError::io(path))?;
    }
    let mut command = Vec::new();
    if is_of_the_system(major) {
        let libraries = libraries(root);
        command.extend([
            "env".into(),
            format!("LD_LIBRARY_PATH={}", libraries.display()),
        ]);
    }
    command.push(programs[0].display().to_string());
    Ok(Installation {
        command,
        options: Vec::new(),
        share: PathBuf::new(),
        template: PathBuf::new(),
        root: Some(root.to_owned()),
    })
}

/// Removes what no server reads: instances may have to be copied.
pub(super) fn prune(major: u32, root: &Path) {
    for part in [
        "usr/share/doc",
        "usr/share/locale",
        "usr/share/man",
        "usr/share/perl",
        "usr/share/perl5",
        "usr/share/zoneinfo",
        "usr/lib/locale",
        &format!("usr/lib/{}-linux-gnu/gconv", std::env::consts::ARCH),
        &format!("usr/share/postgresql/{major}/man"),
        &format!("usr/lib/postgresql/{major}/lib/bitcode"),
    ] {
        let _ = fs::remove_dir_all(root.join(part));
    }
}

/// Has the programs of later versions name the loader and the libraries below `root`: they are started by each other, where nobody can
/// put the loader in front, and the shell that starts them must not find these libraries.
pub(super) fn patch(major: u32, root: &Path) -> Result<(), ServerError> {
    if is_of_the_system(major) {
        return Ok(());
    }
    let (loader, libraries) = (loader(root)?, libraries(root));
    for name in PROGRAMS {
        let mut patchelf = Command::new(&loader);
        patchelf.arg("--library-path").arg(&libraries);
        patchelf.arg(root.join("usr/bin/patchelf"));
        patchelf.arg("--set-interpreter").arg(&loader);
        // The older form also counts for the libraries' own libraries.
        patchelf.arg("--force-rpath").arg("--set-rpath");
        patchelf.arg(&libraries);
        patchelf.arg(home(major, root).join("bin").join(name));
        checked(patchelf)?;
    }
    Ok(())
}

/// `installation` as an unprivileged user can start it, because PostgreSQL refuses to run as root: through `setpriv` and, where the
/// cache is inside a directory closed to others, from a copy below `directory`.
pub(super) fn reachable(
    major: u32,
    installation: Installation,
    directory: &Path,
) -> Result<Installation, ServerError> {
    if !nix::unistd::getuid().is_root() {
        return Ok(installation);
    }
    let mut installation = installation;
    if let Some(root) = &installation.root
        && !is_open(root)
    {
        let copy = directory.join("root");
        if !copy.exists() {
            let mut command = Command::new("cp");
            command.args(["-a", "--reflink=auto"]).arg(root).arg(&copy);
            checked(command)?;
            patch(major, &copy)?;
        }
        installation = unpacked(major, &copy)?;
    }
    let user = unprivileged()?;
    let prefix = [
        "setpriv".to_owned(),
        format!("--reuid={}", user.uid),
        format!("--regid={}", user.gid),
        "--clear-groups".to_owned(),
    ];
    installation.command.splice(0..0, prefix);
    Ok(installation)
}

/// Whether everybody may enter every directory on the way to `path`.
fn is_open(path: &Path) -> bool {
    path.ancestors().all(|directory| {
        fs::metadata(directory).is_ok_and(|metadata| metadata.permissions().mode() & 0o1 != 0)
    })
}

/// Whom the server runs as when we are root: it wants to know its user's name.
fn unprivileged() -> Result<nix::unistd::User, ServerError> {
    for name in ["postgres", "nobody"] {
        if let Ok(Some(user)) = nix::unistd::User::from_name(name) {
            return Ok(user);
        }
    }
    Err(ServerError::Install(
        "PostgreSQL does not run as root, and there is no user postgres or nobody: run as another user".into(),
    ))
}

/// Whose data the server reads: the unprivileged user's, where we are root.
fn own(path: &Path) -> Result<(), ServerError> {
    if !nix::unistd::getuid().is_root() {
        return Ok(());
    }
    let user = unprivileged()?;
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(ServerError::io(path))
}

/// An empty data directory below `directory`.
fn data_directory(directory: &Path) -> Result<PathBuf, ServerError> {
    let data = directory.join("data");
    fs::create_dir_all(&data).map_err(ServerError::io(&data))?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700))
        .map_err(ServerError::io(&data))?;
    own(&data)?;
    Ok(data)
}

/// Makes a standby's data from the server on `port`, which keeps its log for it in the physical slot `slot`.
pub(super) fn copy(
    installation: &Installation,
    directory: &Path,
    port: u16,
    slot: &str,
) -> Result<(), ServerError> {
    let data = data_directory(directory)?;
    let mut backup = program(installation, "pg_basebackup")?;
    backup.arg("--dbname").arg(format!(
        "host=127.0.0.1 port={port} user=postgres dbname=walbrook"
    ));
    backup.arg("--pgdata").arg(&data);
    backup.args(["--write-recovery-conf", "--create-slot", "--slot", slot]);
    backup.args(["--checkpoint=fast", "--no-sync", "--no-manifest"]);
    checked(backup)
}

/// Makes a cluster with the roles, the database and TLS at `directory/data`.
pub(super) fn prepare(installation: &Installation, directory: &Path) -> Result<(), ServerError> {
    let data = data_directory(directory)?;
    let mut initdb = program(installation, "initdb")?;
    initdb.arg(format!("--pgdata={}", data.display()));
    initdb.args([
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
        "--no-instructions",
    ]);
    checked(initdb)?;
    let mut roles = program(installation, "postgres")?;
    roles.arg("--single").arg("-D").arg(&data);
    roles.args(["-c", "fsync=off", "-c", "exit_on_error=on", "postgres"]);
    let script = directory.join("roles.sql");
    fs::write(&script, ROLES).map_err(ServerError::io(&script))?;
    roles.stdin(Stdio::from(
        fs::File::open(&script).map_err(ServerError::io(&script))?,
    ));
    checked(roles)?;
    let tls = crate::broker::Tls::generate(&["localhost", "127.0.0.1"])
        .map_err(|error| ServerError::Install(error.to_string()))?;
    let ca = directory.join(CA);
    fs::write(&ca, &tls.ca).map_err(ServerError::io(&ca))?;
    for (name, text) in [
        ("pg_hba.conf", HBA),
        ("server.crt", &tls.server.certificates),
        ("server.key", &tls.server.key),
    ] {
        let path = data.join(name);
        fs::write(&path, text).map_err(ServerError::io(&path))?;
        // The server refuses a key that others could read.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .map_err(ServerError::io(&path))?;
        own(&path)?;
    }
    Ok(())
}

/// `name` of the programs beside the server's, started in the same way.
fn program(installation: &Installation, name: &str) -> Result<Command, ServerError> {
    let incomplete = || ServerError::Install("no program".into());
    let (server, before) = installation.command.split_last().ok_or_else(incomplete)?;
    let program = Path::new(server).with_file_name(name);
    let mut command = match before.split_first() {
        Some((first, arguments)) => {
            let mut command = Command::new(first);
            command.args(arguments).arg(program);
            command
        }
        None => Command::new(program),
    };
    // Where every user may be.
    command.current_dir("/");
    Ok(command)
}

/// The options of an instance in `directory`.
pub(super) fn options(
    installation: &Installation,
    directory: &Path,
    port: u16,
) -> Result<Vec<String>, ServerError> {
    let mut options = vec![
        "-D".to_owned(),
        directory.join("data").display().to_string(),
    ];
    let port = format!("port={port}");
    let settings = [
        port.as_str(),
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "wal_level=logical",
        "max_replication_slots=32",
        "max_wal_senders=32",
        "max_connections=100",
        "max_prepared_transactions=32",
        "ssl=on",
        "timezone=UTC",
        "log_timezone=UTC",
        "jit=off",
        // The data is thrown away: durability would only cost time.
        "fsync=off",
        "full_page_writes=off",
        "shared_buffers=128MB",
        "max_wal_size=8GB",
        "checkpoint_timeout=1h",
        // Its transactions would stand between the workload's.
        "autovacuum=off",
    ];
    for setting in settings {
        options.extend(["-c".to_owned(), setting.to_owned()]);
    }
    // Some minors load only the output plugins that they are told of.
    let described = program(installation, "postgres")?
        .arg("--describe-config")
        .output()
        .map_err(|error| ServerError::Install(format!("cannot run postgres: {error}")))?;
    if String::from_utf8_lossy(&described.stdout).contains("output_plugin_libraries") {
        let plugins = "output_plugin_libraries=pgoutput, test_decoding, wal2json";
        options.extend(["-c".to_owned(), plugins.to_owned()]);
    }
    Ok(options)
}

/// The data directory of the server on `port` once the administrator can run a statement there and the role is there; otherwise what is
/// missing.
pub(super) async fn answers(port: u16) -> Result<PathBuf, String> {
    let shown = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(error) => error.to_string(),
        None => error.to_string(),
    };
    let client = connect(port).await.map_err(shown)?;
    let roles = "SELECT current_setting('data_directory') FROM pg_roles WHERE rolname = 'cdc' AND rolreplication";
    match client.query_opt(roles, &[]).await.map_err(shown)? {
        Some(row) => Ok(row.get::<_, String>(0).into()),
        None => Err("the roles have not been created".to_owned()),
    }
}

/// A connection as the administrator to the database `walbrook`.
pub(super) async fn connect(port: u16) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user("postgres")
        .dbname("walbrook");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("connection to PostgreSQL: {error}");
        }
    });
    Ok(client)
}
