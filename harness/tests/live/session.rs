//! A session of whoever changes a database while the engine reads it.

use harness::seed::postgres as seed;
use harness::servers::{Flavour, Server};
use mysql_async::prelude::Queryable as _;

/// Slot and publication of a source `live`.
const NAME: &str = "walbrook_live";

/// Whoever runs the statements.
pub(crate) enum Session {
    MySql(mysql_async::Conn),
    Postgres(tokio_postgres::Client),
}

impl Session {
    pub(crate) async fn of(server: &Server) -> Self {
        match server.flavour() {
            Flavour::Mysql | Flavour::Mariadb => {
                Self::MySql(server.connect().await.expect("a connection"))
            }
            _ => Self::Postgres(server.connect_postgres().await.expect("a connection")),
        }
    }

    pub(crate) async fn run(&mut self, statement: &str) {
        let done = match self {
            Self::MySql(of) => of.query_drop(statement).await.map_err(|e| e.to_string()),
            Self::Postgres(of) => (of.batch_execute(statement).await).map_err(|e| format!("{e:?}")),
        };
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// Makes the publication of a source `live`, and its slot of `plugin`: what is changed from then on is in it.
pub(crate) async fn slot(client: &tokio_postgres::Client, plugin: &str) {
    seed::publish(client, NAME, None)
        .await
        .expect("a publication");
    seed::make_slot(client, NAME, plugin, false)
        .await
        .expect("a slot");
}
