//! One running server: data directory, options, start, wait, end.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mysql_async::prelude::Queryable;

use super::install::{Installation, Lock, checked, install};
use super::{Flavour, ServerError, registry};

/// How long a server may take to answer; a first start on a loaded machine takes 10 s.
const START_MAX: Duration = Duration::from_secs(120);

/// Waits until its standard input is closed, which happens however its parent ends, then kills the server.
const WATCHER: &str = r#"trap '' INT TERM HUP
log=$1; pid=$2; shift 2
"$@" </dev/null >>"$log" 2>&1 &
echo $! >"$pid.new" && mv "$pid.new" "$pid"
read -r _
kill -9 $! 2>/dev/null
wait"#;

/// The same without a parent to wait for: stays until `servers down`.
const STANDING: &str = r#"log=$1; pid=$2; shift 2
"$@" </dev/null >>"$log" 2>&1 &
echo $! >"$pid.new" && mv "$pid.new" "$pid""#;

/// A private server that ends, with its data, when this is dropped or the process dies.
#[derive(Debug)]
pub struct Server {
    flavour: Flavour,
    directory: PathBuf,
    port: u16,
    options: Vec<String>,
    watcher: Option<Child>,
    /// Whether dropping ends it.
    owned: bool,
}

impl Server {
    /// Starts a server with row-based, complete binlogs and GTIDs, and `options` (`--name=value`) over ours.
    ///
    /// Users: `root` without a password (all privileges), and `cdc` with password `cdc`, who may what a change capture needs:
    /// REPLICATION SLAVE, REPLICATION CLIENT, SELECT.
    ///
    /// # Errors
    /// [`ServerError`]: not to be had, or its log's last lines.
    pub async fn start(flavour: Flavour, options: &[&str]) -> Result<Server, ServerError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        registry::remove_leftovers();
        let name = format!(
            "{}-{}-{}",
            flavour.name(),
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = registry::directory()?.join(name);
        Server::start_in(flavour, directory, options, true).await
    }

    /// Starts the instance of `servers up` and answers its URL.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(super) async fn start_standing(flavour: Flavour) -> Result<String, ServerError> {
        let directory = registry::standing_directory(flavour)?;
        registry::remove(&directory);
        let mut server = Server::start_in(flavour, directory, &[], true).await?;
        server.owned = false;
        Ok(server.url())
    }

    async fn start_in(
        flavour: Flavour,
        directory: PathBuf,
        options: &[&str],
        owned: bool,
    ) -> Result<Server, ServerError> {
        let standing = directory
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("up-"));
        let installation = tokio::task::block_in_place(|| install(flavour))?;
        fs::create_dir_all(directory.join("tmp")).map_err(ServerError::io(&directory))?;
        if !standing {
            registry::note(&directory.join("owner"), std::process::id())?;
        }
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Server {
            flavour,
            directory,
            port: 0,
            options,
            watcher: None,
            owned,
        };
        tokio::task::block_in_place(|| {
            prepare(flavour, &installation, &server.directory.join("data"))
        })?;
        server.launch(&installation, standing).await?;
        Ok(server)
    }

    /// Kills the server and starts it again on the same port and data, as after a crash of the machine.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.kill();
        let installation = tokio::task::block_in_place(|| install(self.flavour))?;
        self.launch(&installation, false).await
    }

    /// Which kind.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// `127.0.0.1` port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// URL of the user `root`, who may everything.
    pub fn url(&self) -> String {
        format!("{}://root@127.0.0.1:{}", self.flavour.name(), self.port)
    }

    /// URL of the user `cdc`, who may what a change capture needs.
    pub fn cdc_url(&self) -> String {
        format!("{}://cdc:cdc@127.0.0.1:{}", self.flavour.name(), self.port)
    }

    /// A connection as root, for SQL.
    ///
    /// # Errors
    /// Those of `mysql_async`.
    pub async fn connect(&self) -> Result<mysql_async::Conn, mysql_async::Error> {
        connect(self.port).await
    }

    /// The directory with data, log and socket.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    async fn launch(
        &mut self,
        installation: &Installation,
        standing: bool,
    ) -> Result<(), ServerError> {
        let mut reason = String::new();
        // The port may be taken between finding it and listening on it.
        for _ in 0..3 {
            let port = if self.port == 0 {
                free_port()?
            } else {
                self.port
            };
            self.spawn(installation, port, standing)?;
            match self.answers(port).await {
                Ok(()) => {
                    self.port = port;
                    let url = self.directory.join("url");
                    return fs::write(&url, self.url()).map_err(ServerError::io(&url));
                }
                Err(why) => reason = why,
            }
            self.kill();
        }
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let log = lines[lines.len().saturating_sub(12)..].join("\n");
        Err(ServerError::Start {
            flavour: self.flavour.title(),
            reason,
            log,
        })
    }

    fn spawn(
        &mut self,
        installation: &Installation,
        port: u16,
        standing: bool,
    ) -> Result<(), ServerError> {
        use std::os::unix::process::CommandExt as _;
        let init = self.directory.join("init.sql");
        fs::write(&init, users(self.flavour)).map_err(ServerError::io(&init))?;
        let raw_pid = self.directory.join("pid.raw");
        let _ = fs::remove_file(&raw_pid);
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(if standing { STANDING } else { WATCHER })
            .arg("walbrook-server");
        command
            .arg(self.directory.join("log"))
            .arg(&raw_pid)
            .args(&installation.command)
            .arg("--no-defaults");
        command
            .args(&installation.options)
            .args(self.server_options(port, &init))
            .args(&self.options);
        command.stdin(if standing {
            Stdio::null()
        } else {
            Stdio::piped()
        });
        // Its own process group: an interrupt at the terminal is for us, and we end it.
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = command
            .spawn()
            .map_err(|error| ServerError::Install(format!("cannot run sh: {error}")))?;
        if standing {
            let _ = child.wait();
        } else {
            self.watcher = Some(child);
        }
        let deadline = crate::clock::now() + Duration::from_secs(10);
        while !raw_pid.exists() && crate::clock::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let text = fs::read_to_string(&raw_pid).map_err(ServerError::io(&raw_pid))?;
        let pid = text
            .trim()
            .parse()
            .map_err(|_| ServerError::Install(format!("no process id in {}", raw_pid.display())))?;
        registry::note(&self.directory.join("pid"), pid)
    }

    fn server_options(&self, port: u16, init: &Path) -> Vec<String> {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let mut options = vec![
            format!("--datadir={}", at("data")),
            format!("--tmpdir={}", at("tmp")),
            format!("--socket={}", at("socket")),
            format!("--pid-file={}", at("mysqld.pid")),
            format!("--port={port}"),
            format!("--init-file={}", init.display()),
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
        match self.flavour {
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
            Flavour::Mariadb => options
                .extend(["--gtid-strict-mode=ON", "--plugin-maturity=unknown"].map(String::from)),
        }
        options
    }

    /// Waits until root can run a statement on `port` and the users are there.
    async fn answers(&self, port: u16) -> Result<(), String> {
        let deadline = crate::clock::now() + START_MAX;
        loop {
            let error = match connect(port).await {
                Ok(mut connection) => {
                    let users = connection
                        .query_first::<u64, _>("SELECT COUNT(*) FROM mysql.user WHERE user = 'cdc'")
                        .await;
                    let _ = connection.disconnect().await;
                    match users {
                        Ok(Some(1)) => return Ok(()),
                        Ok(_) => "the users have not been created".to_owned(),
                        Err(error) => error.to_string(),
                    }
                }
                Err(error) => error.to_string(),
            };
            if registry::running(&self.directory).is_none() {
                return Err("it ended at once".to_owned());
            }
            if crate::clock::now() > deadline {
                return Err(format!(
                    "no answer within {} s: {error}",
                    START_MAX.as_secs()
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn kill(&mut self) {
        registry::end(&self.directory);
        if let Some(mut watcher) = self.watcher.take() {
            drop(watcher.stdin.take());
            let _ = watcher.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.owned {
            self.kill();
            registry::remove(&self.directory);
        }
    }
}

async fn connect(port: u16) -> Result<mysql_async::Conn, mysql_async::Error> {
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

fn free_port() -> Result<u16, ServerError> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener
        .map(|address| address.port())
        .map_err(ServerError::io(Path::new("127.0.0.1")))
}

/// Statements at every start, idempotent; not written to the binlog, so that recordings begin with the workload.
fn users(flavour: Flavour) -> String {
    let password = match flavour {
        Flavour::Mysql => {
            "CREATE USER IF NOT EXISTS 'cdc'@'%' IDENTIFIED WITH caching_sha2_password BY 'cdc';"
        }
        Flavour::Mariadb => "CREATE USER IF NOT EXISTS 'cdc'@'%' IDENTIFIED BY 'cdc';",
    };
    let create_root = match flavour {
        Flavour::Mysql => "CREATE USER IF NOT EXISTS 'root'@'127.0.0.1';",
        Flavour::Mariadb => "CREATE USER IF NOT EXISTS 'root'@'127.0.0.1' IDENTIFIED BY '';",
    };
    format!(
        "SET SESSION sql_log_bin = 0;\n{create_root}\nGRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;\n{password}\n\
         GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'cdc'@'%';\n"
    )
}

/// Puts an initialised data directory at `data`, initialising one per installation and copying it afterwards.
fn prepare(flavour: Flavour, installation: &Installation, data: &Path) -> Result<(), ServerError> {
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
        .arg("--no-defaults")
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
        Flavour::Mariadb => {
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
