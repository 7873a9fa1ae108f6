//! The same rows through MySQL's and PostgreSQL's encoder: records are equal but for `source` and the place.

use super::super as mysql;
use super::*;
use proptest::prelude::*;

fn without_source(record: &Read) -> Option<serde_json::Value> {
    record.value.as_ref().map(|_| {
        let mut value = record.json();
        value.as_object_mut().unwrap().remove("source").unwrap();
        value
    })
}

proptest! {
    #[test]
    fn records_do_not_betray_the_source(
        rows in proptest::collection::vec((any::<i64>(), "\\PC{0,12}", proptest::option::of("[a-z.\"\\\\]{0,20}"), 0..4_000_000_000_u32, 0..3_u8), 1..30),
    ) {
        let timestamp = |seconds: u32| {
            // Independent of both encoders: days counted from 1970.
            let (mut day, mut year) = (seconds / 86_400, 1970);
            let leap = |year: u32| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
            while day >= 365 + u32::from(leap(year)) {
                day -= 365 + u32::from(leap(year));
                year += 1;
            }
            let mut month = 0;
            let lengths = [31, 28 + u32::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            while day >= lengths[month] {
                day -= lengths[month];
                month += 1;
            }
            let clock = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
            format!("{year:04}-{:02}-{:02} {:02}:{:02}:{:02}", month + 1, day + 1, clock.0, clock.1, clock.2)
        };
        use protocol::mysql::ColumnType as M;
        let theirs = mysql::table("events", &[0], vec![
            mysql::column("id", M::BigInt { unsigned: false }),
            mysql::varchar("category"),
            mysql::varchar("domain"),
            mysql::column("timestamp", M::Timestamp { fsp: 0, old: false }),
        ]);
        let ours = table("events", &[0], &[
            ("id", ColumnType::Integer),
            ("category", ColumnType::Text),
            ("domain", ColumnType::Text),
            ("timestamp", ColumnType::Timestamp),
        ]);
        let (mut from_mysql, mut from_postgres) = (mysql::Maker::new(), Maker::new());
        for (id, category, domain, seconds, change) in &rows {
            let seconds = seconds + 1;
            let stored = |id: i64| [
                Some(id.to_le_bytes().to_vec()),
                mysql::stored_text(category),
                domain.as_ref().and_then(mysql::stored_text),
                Some(seconds.to_be_bytes().to_vec()),
            ];
            let (id_text, next_text, at) = (id.to_string(), id.wrapping_add(1).to_string(), timestamp(seconds));
            let domain = domain.as_deref().map_or(Null, Text);
            let cells = [Text(&id_text), Text(category), domain, Text(&at)];
            let next = [Text(&next_text), Text(category), domain, Text(&at)];
            from_mysql.group(&theirs);
            match change {
                0 => {
                    from_mysql.row(None, Some(&stored(*id)));
                    from_postgres.create(&ours, &cells);
                }
                1 => {
                    from_mysql.row(Some(&stored(*id)), Some(&stored(id.wrapping_add(1))));
                    from_postgres.update(&ours, Before::Full(&cells), &next);
                }
                _ => {
                    from_mysql.row(Some(&stored(*id)), None);
                    from_postgres.delete(&ours, Before::Full(&cells));
                }
            }
        }
        let (theirs, ours) = (mysql::encode(&from_mysql.batch), encode(&from_postgres.batch));
        prop_assert_eq!(theirs.len(), ours.len());
        for (theirs, ours) in theirs.iter().zip(&ours) {
            prop_assert_eq!(&theirs.key, &ours.key);
            prop_assert_eq!(without_source(theirs), without_source(ours));
            let names = |record: &Read| record.headers.iter().map(|(name, _)| name.clone()).filter(|name| name != "gtid").collect::<Vec<_>>();
            prop_assert_eq!(names(theirs), names(ours));
            if theirs.key.is_some() {
                prop_assert_eq!(theirs.partition, ours.partition);
            }
        }
    }
}
