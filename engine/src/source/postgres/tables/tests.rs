//! Keys, and what of a description is asked.

use super::*;

fn described(identity: u8, columns: &[(&str, bool)]) -> Described {
    Described {
        relation: 16_384,
        schema: "public".into(),
        name: "t".into(),
        identity,
        columns: (columns.iter())
            .map(|(name, is_key)| DescribedColumn {
                name: (*name).into(),
                type_oid: 25,
                type_modifier: -1,
                is_key: *is_key,
            })
            .collect(),
    }
}

fn index(name: &str, is_primary: bool, is_identity: bool, columns: &[&str]) -> Index {
    Index {
        name: name.into(),
        is_primary,
        is_identity,
        is_deferrable: false,
        columns: columns.iter().map(|c| (*c).to_owned()).collect(),
    }
}

#[test]
fn keys_follow_the_catalog_where_it_fits_the_stream() {
    let pk = || index("t_pkey", true, false, &["b", "a"]);
    let unique = || index("t_u", false, false, &["c"]);
    let all = [("a", true), ("b", true), ("c", true)];
    let two = [("a", true), ("b", true), ("c", false)];
    let third = [("a", false), ("b", false), ("c", true)];
    let none = [("a", false), ("b", false), ("c", false)];
    let cases: [(Described, Vec<Index>, &[u16]); 9] = [
        // Key order is the index's, not the table's.
        (described(b'd', &two), vec![pk(), unique()], &[1, 0]),
        // REPLICA IDENTITY FULL flags everything; the primary key stays the key.
        (described(b'f', &all), vec![pk(), unique()], &[1, 0]),
        (described(b'f', &all), vec![unique()], &[2]),
        (described(b'f', &all), vec![], &[]),
        (described(b'n', &none), vec![pk()], &[1, 0]),
        // By an index that lacks the primary key: old images have nothing but the index's columns.
        (
            described(b'i', &third),
            vec![pk(), index("t_u", false, true, &["c"])],
            &[2],
        ),
        (
            described(b'i', &all),
            vec![pk(), index("t_u", false, true, &["c", "a", "b"])],
            &[1, 0],
        ),
        // The catalog has moved on: what the stream flags is the key.
        (
            described(b'd', &two),
            vec![index("t_pkey", true, false, &["c"])],
            &[0, 1],
        ),
        (
            described(b'd', &none),
            vec![unique(), index("a_u", false, false, &["gone"])],
            &[2],
        ),
    ];
    for (described, indices, expected) in cases {
        assert_eq!(
            &*key(&described, &indices),
            expected,
            "{described:?} {indices:?}"
        );
    }
}

/// What is advised for such a table, REPLICA IDENTITY FULL, keeps its key.
#[test]
fn a_deferrable_primary_key_is_a_key() {
    let deferrable = Index {
        is_deferrable: true,
        ..index("t_pkey", true, false, &["b", "a"])
    };
    let unique = index("t_u", false, false, &["c"]);
    let indices = [deferrable.clone(), unique];
    let columns = |flagged| [("a", flagged), ("b", flagged), ("c", flagged)];
    for (identity, flagged) in [(b'f', true), (b'n', false), (b'd', false)] {
        let described = described(identity, &columns(flagged));
        assert_eq!(&*key(&described, &indices), &[1, 0], "{identity}");
        assert!(is_of_its_time(&described, Some(identity), &indices));
    }
    // Flagged columns are of a time with another primary key.
    let before = described(b'd', &[("a", false), ("b", false), ("c", true)]);
    assert_eq!(&*key(&before, std::slice::from_ref(&deferrable)), &[2]);
    assert!(!is_of_its_time(&before, Some(b'd'), &[deferrable]));
}

#[test]
fn a_description_is_a_version_only_when_it_says_something_new() {
    let mut tables = Tables::new("shop");
    let everything = Selection::everything();
    let version = |tables: &mut Tables| match &tables.find(16_384).unwrap().shape {
        Shape::Captured(table) => table.version,
        other => panic!("{other:?}"),
    };
    let first = described(b'd', &[("a", true), ("b", false)]);
    assert_eq!(tables.note(first.clone(), &everything), None);
    let one = version(&mut tables);
    assert_eq!(tables.note(first, &everything), None);
    assert_eq!(version(&mut tables), one);
    let other = described(b'd', &[("a", true), ("c", false)]);
    assert_eq!(tables.note(other, &everything), None);
    assert_ne!(version(&mut tables), one);
}

#[test]
fn what_the_stream_does_not_say_is_asked() {
    let mut tables = Tables::new("shop");
    let everything = Selection::everything();
    let mut table = described(b'd', &[("a", true), ("b", false)]);
    table.columns[1].type_oid = 99_999;
    let wanted = tables.note(table, &everything).expect("an unknown type");
    assert_eq!(wanted.types, [99_999]);
    assert!(matches!(tables.find(16_384).unwrap().shape, Shape::Wanted));
    tables.complete(&wanted, None, &[index("t_pkey", true, false, &["a"])]);
    let Shape::Captured(table) = &tables.find(16_384).unwrap().shape else {
        panic!("still wanted");
    };
    assert_eq!(&*table.key, &[0]);
    let excluded = Selection::new(&["shop.*"]).unwrap();
    assert_eq!(
        tables.note(described(b'f', &[("a", true)]), &excluded),
        None
    );
    assert!(matches!(
        tables.find(16_384).unwrap().shape,
        Shape::Excluded
    ));
    assert!(tables.find(1).is_none());
}

#[test]
fn a_key_that_no_description_shows_is_asked_for_again() {
    let pk = |columns: &[&str]| vec![index("t_pkey", true, false, columns)];
    let identity = |columns: &[&str]| vec![index("t_u", false, true, columns)];
    let all = [("a", true), ("b", true)];
    let none = [("a", false), ("b", false)];
    // The table, what the catalog says first and later, and the keys of both.
    let cases = [
        (
            described(b'f', &all),
            pk(&["a"]),
            pk(&["b", "a"]),
            ["a", "b a"],
        ),
        (described(b'f', &all), vec![], pk(&["b"]), ["", "b"]),
        (described(b'f', &all), pk(&["a"]), vec![], ["a", ""]),
        (described(b'n', &none), pk(&["a"]), pk(&["b"]), ["a", "b"]),
        (
            described(b'd', &all),
            pk(&["a", "b"]),
            pk(&["b", "a"]),
            ["a b", "b a"],
        ),
        (
            described(b'i', &all),
            identity(&["a", "b"]),
            identity(&["b", "a"]),
            ["a b", "b a"],
        ),
    ];
    for (table, first, later, keys) in cases {
        let mut tables = Tables::new("shop");
        let mut describe = |answer: Option<&[Index]>| -> (u64, String) {
            let everything = Selection::everything();
            let wanted = tables.note(table.clone(), &everything);
            let wanted = wanted.expect("a question");
            let relation = answer.map(|_| table.identity);
            tables.complete(&wanted, relation, answer.unwrap_or_default());
            // The description that led to the question is read once more.
            assert_eq!(tables.note(table.clone(), &everything), None);
            let Shape::Captured(found) = &tables.find(16_384).unwrap().shape else {
                panic!("still wanted");
            };
            let name = |n: &u16| &*table.columns[usize::from(*n)].name;
            let key: Vec<&str> = found.key.iter().map(name).collect();
            (found.version, key.join(" "))
        };
        let one = describe(Some(&first));
        assert_eq!(one.1, keys[0], "{table:?}");
        // As after every reconnect; the third time the table is gone, while the stream is not there yet.
        assert_eq!(describe(Some(&first)), one);
        assert_eq!(describe(None), one);
        let two = describe(Some(&later));
        assert_eq!(two.1, keys[1], "{table:?}");
        assert_ne!(two.0, one.0);
        assert_eq!(describe(Some(&later)), two);
    }
    // What the description shows needs no catalog.
    let mut tables = Tables::new("shop");
    let everything = Selection::everything();
    let sole = described(b'd', &[("a", true), ("b", false)]);
    for _ in 0..3 {
        assert_eq!(tables.note(sole.clone(), &everything), None);
    }
}

#[test]
fn a_new_key_is_of_a_new_table_in_the_batch() {
    let mut tables = Tables::new("shop");
    let everything = Selection::everything();
    let table = described(b'f', &[("a", true), ("b", true)]);
    for (column, slot) in [("a", Entry::NO_SLOT), ("a", (7, 3)), ("b", Entry::NO_SLOT)] {
        let wanted = tables.note(table.clone(), &everything).unwrap();
        let keys = [index("t_pkey", true, false, &[column])];
        tables.complete(&wanted, Some(b'f'), &keys);
        tables.note(table.clone(), &everything);
        let entry = tables.find(16_384).unwrap();
        assert_eq!(entry.slot, slot, "{column}");
        entry.slot = (7, 3);
    }
}

#[test]
fn a_catalog_of_another_time_changes_no_key() {
    let pk = |columns: &[&str]| vec![index("t_pkey", true, false, columns)];
    let full = described(b'f', &[("a", true), ("b", true)]);
    let default = described(b'd', &[("b", true), ("a", true), ("c", false)]);
    let cases: [(Described, Option<u8>, Vec<Index>); 6] = [
        // A column that comes later, another identity, and a table that is gone or has another name.
        (full.clone(), Some(b'f'), pk(&["later"])),
        (full.clone(), Some(b'd'), pk(&["b"])),
        (full, None, pk(&["b"])),
        // The flagged columns are another primary key's, whose order nobody knows any more.
        (default.clone(), Some(b'd'), pk(&["a", "c"])),
        (default.clone(), Some(b'd'), pk(&["a"])),
        (default, Some(b'd'), vec![]),
    ];
    for (table, identity, indices) in cases {
        let mut tables = Tables::new("shop");
        let everything = Selection::everything();
        let mut complete = |identity, indices: &[Index]| -> Box<[u16]> {
            let wanted = tables.note(table.clone(), &everything).unwrap();
            tables.complete(&wanted, identity, indices);
            tables.note(table.clone(), &everything);
            match &tables.find(16_384).unwrap().shape {
                Shape::Captured(table) => table.key.clone(),
                other => panic!("{other:?}"),
            }
        };
        let first: &[&str] = match table.identity {
            b'f' => &["a"],
            _ => &["a", "b"],
        };
        let one = complete(Some(table.identity), &pk(first));
        assert_eq!(complete(identity, &indices), one, "{table:?} {indices:?}");
    }
}

#[test]
fn a_type_that_nobody_knows_is_named_once() {
    let mut of = described(b'd', &[("id", true), ("mood", false), ("odd", false)]);
    for (column, oid) in of.columns.iter_mut().zip([23, 70_000, 0]) {
        column.type_oid = oid;
    }
    let mut tables = Tables::new("shop");
    let said = tables.unknown(&of);
    assert_eq!(said.len(), 2, "{said:?}");
    for (text, words) in said
        .iter()
        .zip(["column mood of public.t", "column odd of public.t"])
    {
        assert!(text.starts_with(words), "{text}");
    }
    assert!(
        said[0].contains("(OID 70000)") && !said[1].contains("OID"),
        "{said:?}"
    );
    assert_eq!(tables.unknown(&of), [""; 0]);
    of.columns[1].type_oid = 70_001;
    assert_eq!(tables.unknown(&of).len(), 1);
}

/// `lc_monetary` of the database says where the point of its money is, and no row does.
#[test]
fn money_has_the_digits_that_were_asked_for() {
    for digits in [0, 2, 3] {
        let mut tables = Tables::new("shop");
        let mut table = described(b'd', &[("a", true), ("b", false)]);
        table.columns[1].type_oid = 790;
        let wanted = tables.note(table, &Selection::everything()).unwrap();
        assert_eq!(wanted.types, [790]);
        let shape = shapes::Shape {
            money_digits: Some(digits),
            ..shapes::Shape::default()
        };
        tables.learn(&shape);
        tables.complete(&wanted, None, &[index("t_pkey", true, false, &["a"])]);
        let Shape::Captured(table) = &tables.find(16_384).unwrap().shape else {
            panic!("still wanted");
        };
        let Columns::Postgres(of) = &table.columns else {
            panic!("{:?}", table.columns);
        };
        let money = protocol::postgres::ColumnType::Money { digits };
        assert_eq!(of.columns[1].kind, money);
    }
}
