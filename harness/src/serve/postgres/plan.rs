//! What START_REPLICATION gets: the LSN that it begins at, and which stretches of the film commit from there on.

use protocol::postgres::Lsn;

use super::film::{Film, Stretch};

/// Where a stream really begins: a server forwards a client that asks for what its slot has confirmed, and says nothing.
pub(super) fn begins_at(requested: Lsn, confirmed: Lsn) -> Lsn {
    requested.max(confirmed)
}

/// The stretches for a client that begins at `from`: a transaction is sent whole, or not at all when its commit record stands
/// before that place.
pub(super) fn stretches(film: &Film, from: Lsn) -> impl Iterator<Item = &Stretch> {
    film.stretches
        .iter()
        .filter(move |stretch| stretch.commit >= from)
}
