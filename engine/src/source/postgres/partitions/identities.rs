//! Partitions whose old rows hold less than the stream says that they do.
//!
//! What an old row holds is decided by the replica identity of the partition that it is in (`ExtractReplicaIdentity` in heapam.c). What it
//! says of itself is that of the table that it is sent as (`logicalrep_write_update` in proto.c), and `ALTER TABLE … REPLICA IDENTITY` of
//! a partitioned table does not reach its partitions. FULL is enough for every table.
//!
//! | sent as a table with | old rows lack | then |
//! |---|---|---|
//! | any identity | a column of the key | an update leaves a record under its old key, or a delete is one of a key that never was |
//! | FULL | other columns | `before` has nulls for them, or is null |

use super::Names;
use crate::config::{Keys, Selection};
use crate::source::postgres::checks::{Facts, listed, requirement};
use crate::source::postgres::publication::sends_old_rows;
use crate::source::postgres::server::{Publication, UserTable};
use crate::source::postgres::tables::{self, Described, DescribedColumn};
use crate::source::{Outcome, Requirement};

/// A partition whose old rows lack something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::source::postgres) struct Lesser {
    /// As SQL writes it.
    pub(in crate::source::postgres) quoted: String,
    /// The table that its rows are sent as, as SQL writes it.
    of: String,
    /// Columns of the key that its old rows lack.
    lacks: Vec<String>,
    /// The statement that mends it.
    mend: String,
}

#[cfg(test)]
impl Lesser {
    /// Of this name.
    pub(in crate::source::postgres) fn of(quoted: &str) -> Self {
        Self {
            quoted: quoted.into(),
            of: "log".into(),
            lacks: Vec::new(),
            mend: format!("ALTER TABLE {quoted} REPLICA IDENTITY FULL"),
        }
    }
}

/// Partitions whose old rows lack something.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::source::postgres) struct AtOdds {
    /// Those that lack columns of the key.
    pub(in crate::source::postgres) keys: Vec<Lesser>,
    /// Those that lack other columns, and are sent as if they lacked none.
    pub(in crate::source::postgres) images: Vec<Lesser>,
}

/// Captured partitions at odds with the table that `publication`, or a new one, sends them as. Needs [`UserTable::indices`].
pub(in crate::source::postgres) fn at_odds(
    tables: &[UserTable],
    publication: Option<&Publication>,
    published: &[(String, String)],
    selection: &Selection,
    keys: &Keys,
) -> AtOdds {
    let mut found = AtOdds::default();
    if !sends_old_rows(publication) || publication.is_some_and(|publication| !publication.via_root)
    {
        return found;
    }
    let names = Names::of(tables, publication, published);
    // Those without any identity are named for that.
    let partitions = (tables.iter())
        .filter(|table| table.is_partition && !table.partitioned)
        .filter(|table| table.identity != 'f' && !table.is_bare());
    for table in partitions {
        // What is not published yet will be by its root.
        let of = names.sent_as(table).or_else(|| names.line(table).last());
        let Some(of) = of.filter(|of| of.oid != table.oid) else {
            continue;
        };
        if !selection.includes(&of.schema, &of.name) {
            continue;
        }
        let has = identity_of(table);
        let lacks: Vec<String> = (key_of(of, keys).into_iter())
            .filter(|column| !has.contains(column))
            .collect();
        let list = match (lacks.is_empty(), of.identity) {
            (false, _) => &mut found.keys,
            (true, 'f') => &mut found.images,
            (true, _) => continue,
        };
        let identity = match (of.identity, of.has_index) {
            ('d', true) => "DEFAULT",
            _ => "FULL",
        };
        list.push(Lesser {
            quoted: table.quoted(),
            of: of.quoted(),
            lacks,
            mend: format!("ALTER TABLE {} REPLICA IDENTITY {identity}", table.quoted()),
        });
    }
    found
}

/// Columns that old rows of the table hold; of one with FULL those of its indices.
fn identity_of(table: &UserTable) -> Vec<String> {
    let columns = table.indices.iter().filter(|index| match table.identity {
        'd' => index.is_primary && !index.is_deferrable,
        'i' => index.is_identity && !index.is_deferrable,
        identity => identity == 'f',
    });
    columns.flat_map(|index| index.columns.clone()).collect()
}

/// The key of the records of `table`, as far as its old rows are taken to hold it: where a key of the configuration is not in the table's
/// own identity, the rows themselves are refused.
fn key_of(table: &UserTable, keys: &Keys) -> Vec<String> {
    let flagged = identity_of(table);
    let own = own_key(table, &flagged);
    match keys.of(&table.schema, &table.name) {
        Some(key) if key != own => match table.identity {
            'f' => key.to_vec(),
            _ if key.iter().all(|column| flagged.contains(column)) => key.to_vec(),
            _ => Vec::new(),
        },
        _ => own,
    }
}

/// The key that the table has by itself, as the decoder would find it.
fn own_key(table: &UserTable, flagged: &[String]) -> Vec<String> {
    let mut names: Vec<&String> = Vec::new();
    for name in table.indices.iter().flat_map(|index| &index.columns) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let column = |name: &&String| DescribedColumn {
        name: name.as_str().into(),
        type_oid: 0,
        type_modifier: -1,
        is_key: flagged.contains(name),
    };
    let described = Described {
        relation: table.oid,
        schema: table.schema.as_str().into(),
        name: table.name.as_str().into(),
        identity: u8::try_from(table.identity).unwrap_or(b'd'),
        columns: names.iter().map(column).collect(),
    };
    (tables::key(&described, &table.indices).iter())
        .filter_map(|number| names.get(usize::from(*number)).map(ToString::to_string))
        .collect()
}

/// Names partitions at odds; `None` where there are none.
pub(in crate::source::postgres) fn requirement_of(facts: &Facts<'_>) -> Option<Requirement> {
    let AtOdds { keys, images } = facts.at_odds();
    let outcome = match (why_keys(&keys), why_images(&images)) {
        (None, None) => return None,
        (Some(keys), None) => Outcome::Missing(keys),
        (None, Some(images)) => Outcome::Advice(images),
        (Some(keys), Some(images)) => Outcome::Missing(format!("{keys}; {images}")),
    };
    Some(requirement(
        "partitions have the replica identity of what they are sent as",
        outcome,
    ))
}

/// What is wrong with partitions whose old rows lack columns of the key; `None` where there are none.
pub(in crate::source::postgres) fn why_keys(partitions: &[Lesser]) -> Option<String> {
    let first = partitions.first()?;
    Some(format!(
        "{}: a partition's own replica identity decides what its old rows hold, and there it lacks columns of the key, so that updates and \
         deletes would come under wrong keys; run {}{}",
        named(partitions),
        first.mend,
        of_others(partitions),
    ))
}

/// What is lost of partitions whose old rows lack other columns; `None` where there are none.
pub(in crate::source::postgres) fn why_images(partitions: &[Lesser]) -> Option<String> {
    let first = partitions.first()?;
    Some(format!(
        "{}: a partition's own replica identity decides what its old rows hold, and there it is not FULL, so that before is null, or has \
         nulls where there were values; run {}{}",
        named(partitions),
        first.mend,
        of_others(partitions),
    ))
}

fn named(partitions: &[Lesser]) -> String {
    let name = |it: &Lesser| match it.lacks.is_empty() {
        true => format!("{} of {}", it.quoted, it.of),
        false => format!("{} of {} (lacks {})", it.quoted, it.of, it.lacks.join(", ")),
    };
    listed(&partitions.iter().map(name).collect::<Vec<_>>())
}

fn of_others(partitions: &[Lesser]) -> &'static str {
    match partitions.len() {
        0 | 1 => "",
        _ => ", and the same of each other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::postgres::tables::Index;

    fn index(name: &str, is_primary: bool, is_identity: bool, columns: &[&str]) -> Index {
        Index {
            name: name.into(),
            is_primary,
            is_identity,
            is_deferrable: false,
            columns: columns.iter().map(|&column| column.into()).collect(),
        }
    }

    fn primary(columns: &[&str]) -> Vec<Index> {
        vec![index("pkey", true, false, columns)]
    }

    /// With a primary key, and the index `uuid` for an identity.
    fn by_uuid(columns: &[&str]) -> Vec<Index> {
        let mut indices = primary(columns);
        indices.push(index("uuid", false, true, &["uuid"]));
        indices
    }

    /// `log` with its partition `log_1`.
    fn pair(root: (char, Vec<Index>), partition: (char, Vec<Index>)) -> [UserTable; 2] {
        let table = |oid, (identity, indices): (char, Vec<Index>)| UserTable {
            oid,
            schema: "public".into(),
            name: if oid == 1 { "log" } else { "log_1" }.into(),
            partitioned: oid == 1,
            is_partition: oid == 2,
            above: if oid == 1 { Vec::new() } else { vec![1] },
            has_index: match identity {
                'd' => indices.iter().any(|index| index.is_primary),
                'i' => indices.iter().any(|index| index.is_identity),
                _ => false,
            },
            indices,
            identity,
            owned: true,
        };
        [table(1, root), table(2, partition)]
    }

    fn publication(via_root: bool, lacks: &[&'static str]) -> Publication {
        Publication {
            all_tables: false,
            lacks: lacks.into(),
            truncates: true,
            via_root,
            owned: true,
        }
    }

    fn found(tables: &[UserTable], publication: Option<&Publication>, keys: &Keys) -> AtOdds {
        let published = [("public".to_owned(), "log".to_owned())];
        let selection = Selection::new(&["public.log"]).unwrap();
        at_odds(tables, publication, &published, &selection, keys)
    }

    #[test]
    fn old_rows_are_those_of_the_partitions_identity() {
        let by_root = publication(true, &[]);
        let said = |root, partition, key: &[&str]| {
            let keys = match key {
                [] => Keys::default(),
                key => Keys::new(&[("public", "log", key)]),
            };
            let AtOdds { keys, images } = found(&pair(root, partition), Some(&by_root), &keys);
            let named = |list: &[Lesser]| list.iter().map(|it| it.lacks.join(" ")).collect();
            let (keys, images): (Vec<String>, Vec<String>) = (named(&keys), named(&images));
            (keys, images.len())
        };
        let none = || (Vec::new(), 0);
        let lacks = |columns: &str| (vec![columns.to_owned()], 0);
        let id = || primary(&["id"]);
        // FULL has everything, whatever is above it; primary keys come from there.
        for root in ['d', 'f', 'n'] {
            assert_eq!(said((root, id()), ('f', id()), &["device"]), none());
        }
        assert_eq!(said(('d', id()), ('d', id()), &[]), none());
        assert_eq!(said(('n', id()), ('d', id()), &[]), none());
        // As ALTER TABLE of the root alone leaves it.
        assert_eq!(said(('f', id()), ('d', id()), &[]), (Vec::new(), 1));
        assert_eq!(said(('f', id()), ('d', id()), &["id"]), (Vec::new(), 1));
        let both = ["id", "device"];
        assert_eq!(said(('f', id()), ('d', id()), &["device"]), lacks("device"));
        assert_eq!(said(('f', id()), ('d', id()), &both), lacks("device"));
        // By an index of the partition, or of the root.
        let uuid = || by_uuid(&["id"]);
        assert_eq!(said(('d', id()), ('i', uuid()), &[]), lacks("id"));
        assert_eq!(said(('f', id()), ('i', uuid()), &[]), lacks("id"));
        assert_eq!(said(('n', id()), ('i', uuid()), &[]), lacks("id"));
        assert_eq!(said(('i', uuid()), ('d', id()), &[]), lacks("uuid"));
        assert_eq!(said(('i', uuid()), ('i', uuid()), &[]), none());
        // A unique index is the key where there is no primary one.
        let unique = || vec![index("u", false, false, &["uuid"])];
        assert_eq!(said(('d', unique()), ('d', id()), &[]), lacks("uuid"));
        assert_eq!(said(('d', Vec::new()), ('d', id()), &[]), none());
        // Rows that need what no identity here has are refused by themselves, as is what has none.
        assert_eq!(said(('d', id()), ('i', uuid()), &["device"]), none());
        assert_eq!(said(('f', id()), ('n', id()), &["device"]), none());
    }

    #[test]
    fn what_is_not_sent_as_another_table_is_not_at_odds() {
        let tables = pair(('f', primary(&["id"])), ('d', primary(&["id"])));
        let count = |publication: Option<&Publication>| {
            found(&tables, publication, &Keys::default()).images.len()
        };
        assert_eq!(count(Some(&publication(true, &[]))), 1);
        // It would be made so.
        assert_eq!(count(None), 1);
        assert_eq!(count(Some(&publication(false, &[]))), 0);
        let inserts = publication(true, &["update", "delete"]);
        assert_eq!(count(Some(&inserts)), 0);
        let selection = Selection::new(&["public.other"]).unwrap();
        let found = at_odds(&tables, None, &[], &selection, &Keys::default());
        assert_eq!(found, AtOdds::default());
    }

    #[test]
    fn the_statement_that_mends_it_is_named() {
        let id = || primary(&["id"]);
        let keys = Keys::new(&[("public", "log", &["device"])]);
        let lesser = |root, partition| found(&pair(root, partition), None, &keys);
        let text = why_keys(&lesser(('f', id()), ('d', id())).keys).unwrap();
        for words in [
            "public.log_1 of public.log (lacks device): ",
            "; run ALTER TABLE public.log_1 REPLICA IDENTITY FULL",
        ] {
            assert!(text.contains(words), "{text}");
        }
        let none = Keys::default();
        let found = found(&pair(('d', id()), ('i', by_uuid(&["id"]))), None, &none);
        let text = why_keys(&[found.keys.clone(), found.keys].concat()).unwrap();
        let words = "ALTER TABLE public.log_1 REPLICA IDENTITY DEFAULT, and the same of each other";
        assert!(text.contains(words), "{text}");
        assert_eq!((why_keys(&[]), why_images(&[])), (None, None));
    }
}
