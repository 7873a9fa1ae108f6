//! What the server says between the rows.

use super::*;

/// A NoticeResponse.
fn warning(code: &str, message: &str) -> Vec<u8> {
    let fields = format!("SWARNUNG\0VWARNING\0C{code}\0M{message}\0\0");
    let length = fields.len() as u32 + 4;
    [b"N", &length.to_be_bytes()[..], fields.as_bytes()].concat()
}

/// With it the server says that what follows is not whole: it must not be read over, and nothing behind it read before it is known.
#[test]
fn a_warning_is_handed_on_where_it_stands() {
    let frames = frames("postgres-15-20k");
    let expected = whole(&frames, &["*.*"], 1 << 20).0;
    let (before, behind) = frames.split_at(500);
    let skipped = "skipped loading publication \"walbrook_shop\"";
    let mut memory = Memory::new(&["*.*"], 1 << 20);
    memory.feed(&before.concat()).unwrap();
    let rows = memory.batch.events.len();
    assert!(rows > 0);
    let wire = [warning("55000", skipped), behind.concat()].concat();
    memory.batch.bytes.extend_from_slice(&wire);
    let step = memory.stream.decode(&mut memory.batch).unwrap();
    let Step::Warned(warning) = step else {
        panic!("{step:?}");
    };
    assert_eq!(
        (&*warning.severity, &*warning.code, &*warning.message),
        ("WARNING", "55000", skipped)
    );
    assert_eq!(memory.batch.events.len(), rows);
    // One that does not matter is no obstacle.
    memory.run().unwrap();
    assert!(memory.finish().0 == expected);
}
