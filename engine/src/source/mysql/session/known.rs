//! Whether a server that goes by the name of the one before has the same log.
//!
//! What a server says of itself is not unique: a cluster behind a proxy may give all its servers one number (Galera's `wsrep_gtid_mode` does),
//! and a server may have been built anew under its old uuid. Places of one log say nothing of another one. So where GTIDs can say where to go
//! on, the place before has to prove that it is one of this log; otherwise the log counts as another server's, and GTIDs alone decide.

use protocol::mysql::gtid::{Flavour, GtidSet};

use super::{
    Connection, ConnectionError, From, Identity, Place, Plan, SourceError, Variables, Verdict, ask,
    present, server,
};

/// The name of the server that calls itself `identity`, with the number of its log as far as the plan's place tells.
pub(super) async fn named(
    connection: &mut Connection,
    plan: &Plan,
    variables: &Variables,
    identity: Identity,
) -> Result<Identity, SourceError> {
    let (Some(before), From::Point(point)) = (&plan.server, &plan.from) else {
        return Ok(identity);
    };
    if !before.is_called_as(&identity) {
        return Ok(identity);
    }
    // Without GTIDs there is nothing else to go on by: a place that is not there halts.
    let Some(set) = point.gtids.as_ref().filter(|_| variables.has_gtids()) else {
        return Ok(before.clone());
    };
    if has_place(connection, variables.flavour(), &point.place, set).await? {
        return Ok(before.clone());
    }
    let other = before.with_another_log();
    tracing::warn!(
        was = %before, now = %other, place = %point.place.to_position(),
        "the server has the name of the one before, but not its place in the binary log: taken for another server"
    );
    Ok(other)
}

/// Whether `set` is what stands before `place` in the server's log, as far as it can say: MariaDB tells the set before a place, MySQL only
/// which files there are and how long they are.
async fn has_place(
    connection: &mut Connection,
    flavour: Flavour,
    place: &Place,
    set: &GtidSet,
) -> Result<bool, SourceError> {
    if place.file.is_empty() {
        return Ok(false);
    }
    let position = place.to_position();
    // MariaDB takes 32 bits of an offset.
    if flavour == Flavour::MySql || u32::try_from(place.offset).is_err() {
        return match present(connection, &position).await {
            Ok(()) => Ok(true),
            Err(error) if error.verdict() == Verdict::Resync => Ok(false),
            Err(error) => Err(error),
        };
    }
    match ask(connection, &server::gtid_position(&position)).await {
        Ok(answer) => {
            // NULL: no such file, or no event ends there.
            let text = answer.into_iter().flatten().flatten().next();
            let before = text.and_then(|text| GtidSet::parse(flavour, &text).ok());
            Ok(before.is_some_and(|before| before == *set || before.is_empty() && set.is_empty()))
        }
        Err(ConnectionError::Refused { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
