//! PostgreSQL: `tokio_postgres`, and Debian's `psql` and `pg_recvlogical` where they are installed (without them their tests say so
//! and pass); and a client of a few lines for what they do not show.

mod clients;
mod raw;
mod stream;

use harness::serve::{AuthMethod, PostgresOptions, ServeOptions};

/// Options that let in [`crate::USER`] only.
fn guarded(auth: AuthMethod, tls: bool) -> ServeOptions {
    ServeOptions {
        user: Some((crate::USER.into(), crate::PASSWORD.into())),
        postgres: PostgresOptions {
            auth,
            ..PostgresOptions::default()
        },
        tls,
        ..ServeOptions::default()
    }
}
