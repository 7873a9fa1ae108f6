//! What is MySQL's and MariaDB's about an instance: options, users, the first data directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mysql_async::prelude::Queryable;

use super::install::{Installation, Lock, checked};
use super::{Flavour, ServerError};

/// The options of an instance in `directory`, which runs the statements of `init.sql` there at its start.
pub(super) fn options(flavour: Flavour, directory: &Path, port: u16) -> Vec<String> {
    let at = |name: &str| directory.join(name).display().to_string();
    let mut options = vec![
        format!("--datadir={}", at("data")),
        format!("--tmpdir={}", at("tmp")),
        format!("--socket={}", at("socket")),
        format!("--pid-file={}", at("mysqld.pid")),
        format!("--port={port}"),
        format!("--init-file={}", at("init.sql")),
        "--bind-address=127.0.0.1".into(),
        "--skip-name-resolve".into(),
        "--server-id=1001".into(),
        "--log-bin=binlog".into(),
        "--binlog-format=ROW".into(),
        "--binlog-row-image=FULL".into(),
        "--binlog-row-metadata=FULL".into(),
        "--max-binlog-size=1G".into(),
        // The data is thrown away: durability would only cost time.
        "--sync-binlog=0".into(),
        "--innodb-flush-log-at-trx-commit=0".into(),
        "--innodb-buffer-pool-size=256M".into(),
        "--innodb-doublewrite=0".into(),
        "--performance-schema=OFF".into(),
        "--max-allowed-packet=256M".into(),
        "--default-time-zone=+00:00".into(),
        "--character-set-server=utf8mb4".into(),
    ];
    if nix::unistd::getuid().is_root() {
        options.push("--user=root".into());
    }
    match flavour {
        Flavour::Mysql => options.extend(
            [
                "--gtid-mode=ON",
                "--enforce-gtid-consistency=ON",
                "--mysqlx=OFF",
                "--secure-file-priv=NULL",
                "--log-error-verbosity=2",
            ]
            .map(String::from),
        ),
        Flavour::Mariadb => {
            options.extend(["--gtid-strict-mode=ON", "--plugin-maturity=unknown"].map(String::from))
        }
        Flavour::Postgres | Flavour::Postgres17 | Flavour::Postgres18 => {}
    }
    options
}

/// The data directory of the server on `port` once root can run a statement there and the users are there; otherwise what is missing.
pub(super) async fn answers(port: u16) -> Result<PathBuf, String> {
    let mut connection = connect(port).await.map_err(|error| error.to_string())?;
    let users = connection
        .query_first::<(u64, String), _>(
            "SELECT COUNT(*), @@datadir FROM mysql.user WHERE user = 'cdc'",
        )
        .await;
    let _ = connection.disconnect().await;
    match users {
        Ok(Some((1, data))) => Ok(data.into()),
        Ok(_) => Err("the users have not been created".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A connection as root.
pub(super) async fn connect(port: u16) -> Result<mysql_async::Conn, mysql_async::Error> {
    let options = mysql_async::OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .user(Some("root"));
    mysql_async::Conn::new(
        options
            .prefer_socket(false)
            .max_allowed_packet(Some(256 << 20)),
    )
    .await
}

/// Statements at every start, idempotent; not written to the binlog, so that recordings begin with the workload.
pub(super) fn users(flavour: Flavour) -> String {
    let password = match flavour {
        Flavour::Mysql => {
            "CREATE USER IF NOT EXISTS 'cdc'@'%' IDENTIFIED WITH caching_sha2_password BY 'cdc';"
        }
        _ => "CREATE USER IF NOT EXISTS 'cdc'@'%' IDENTIFIED BY 'cdc';",
    };
    let create_root = match flavour {
        Flavour::Mysql => "CREATE USER IF NOT EXISTS 'root'@'127.0.0.1';",
        _ => "CREATE USER IF NOT EXISTS 'root'@'127.0.0.1' IDENTIFIED BY '';",
    };
    format!(
        "SET SESSION sql_log_bin = 0;\n{create_root}\nGRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;\n{password}\n\
         GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'cdc'@'%';\n"
    )
}

/// Puts an initialised data directory at `data`, initialising one per installation and copying it afterwards.
pub(super) fn prepare(
    flavour: Flavour,
    installation: &Installation,
    data: &Path,
) -> Result<(), ServerError> {
    let template = &installation.template;
    let complete = template.join(".complete");
    // A template belongs to one program: another one starts over.
    let stamp = installation.command.join(" ") + &program_stamp(installation);
    if fs::read_to_string(&complete).ok().as_deref() != Some(&stamp) {
        let _lock = Lock::take(&template.with_extension("lock"))?;
        if fs::read_to_string(&complete).ok().as_deref() != Some(&stamp) {
            let _ = fs::remove_dir_all(template);
            initialise(flavour, installation, template)?;
            // The identity of a server is its own.
            let _ = fs::remove_file(template.join("auto.cnf"));
            fs::write(&complete, &stamp).map_err(ServerError::io(&complete))?;
        }
    }
    let mut command = Command::new("cp");
    command
        .args(["-a", "--reflink=auto"])
        .arg(template)
        .arg(data);
    checked(command)
}

fn program_stamp(installation: &Installation) -> String {
    let metadata = installation
        .command
        .last()
        .and_then(|program| fs::metadata(program).ok());
    metadata.map_or(String::new(), |metadata| format!(" {}", metadata.len()))
}

fn initialise(
    flavour: Flavour,
    installation: &Installation,
    data: &Path,
) -> Result<(), ServerError> {
    let (program, before) = installation
        .command
        .split_first()
        .ok_or_else(|| ServerError::Install("no program".into()))?;
    let mut command = Command::new(program);
    command
        .args(before)
        // They begin with `--no-defaults`, which counts in the first place alone: a second one is an unknown option.
        .args(&installation.options)
        .arg(format!("--datadir={}", data.display()));
    if nix::unistd::getuid().is_root() {
        command.arg("--user=root");
    }
    match flavour {
        Flavour::Mysql => {
            command.args(["--initialize-insecure", "--innodb-redo-log-capacity=8M"]);
            checked(command)
        }
        _ => {
            // What mariadb-install-db does, without its assumptions on where things are.
            fs::create_dir_all(data).map_err(ServerError::io(data))?;
            let mut sql =
                "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n".to_owned();
            for script in [
                "mysql_system_tables.sql",
                "mysql_performance_tables.sql",
                "mysql_system_tables_data.sql",
            ] {
                let path = installation.share.join(script);
                sql.push_str(&fs::read_to_string(&path).map_err(ServerError::io(&path))?);
            }
            let script = data.with_extension("sql");
            fs::write(&script, sql).map_err(ServerError::io(&script))?;
            command.args([
                "--bootstrap",
                "--enforce-storage-engine=",
                "--innodb-log-file-size=8M",
                "--silent-startup",
            ]);
            command.stdin(fs::File::open(&script).map_err(ServerError::io(&script))?);
            checked(command)
        }
    }
}
