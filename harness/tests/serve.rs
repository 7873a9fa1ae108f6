//! The replay servers proven with clients that share no code with them. MySQL: `mysql_async`, and Debian's `mariadb` and
//! `mariadb-binlog` where they are installed (without them their tests say so and pass). PostgreSQL: see there.

#[path = "serve/debian.rs"]
mod debian;
#[path = "serve/faults.rs"]
mod faults;
#[path = "serve/postgres/main.rs"]
mod postgres;
#[path = "serve/rust_client.rs"]
mod rust_client;

use fixtures::Recording;
use harness::serve::{ServeOptions, Server};
use protocol::mysql::auth::Plugin;

const USER: &str = "cdc";
const PASSWORD: &str = "a password";

/// Options that let in [`USER`] only.
fn guarded(auth_plugin: Plugin, tls: bool) -> ServeOptions {
    ServeOptions {
        user: Some((USER.into(), PASSWORD.into())),
        auth_plugin,
        tls,
        ..ServeOptions::default()
    }
}

async fn start(recording: &str, options: ServeOptions) -> Server {
    let recording = Recording::named(recording).unwrap();
    Server::start(&recording, "127.0.0.1:0", options)
        .await
        .unwrap()
}
