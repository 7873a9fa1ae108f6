//! The header `pos`: `<transaction>/<row>`, ordered part by part as numbers.
//!
//! ```text
//! MySQL, MariaDB   binlog.000002:53632951/17        file : offset / row
//! PostgreSQL       0/16B3748/17                     commit LSN / row
//! ```

/// A position within one server's stream; ordered as the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RowPosition {
    /// The binlog file's number, or the LSN's upper half.
    file: u64,
    /// The offset in the file, or the LSN's lower half.
    offset: u64,
    row: u64,
}

impl RowPosition {
    /// Reads the header's text.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (transaction, row) = text.rsplit_once('/')?;
        let row = row.parse().ok()?;
        if let Some((file, offset)) = transaction.rsplit_once(':') {
            let (_, number) = file.rsplit_once('.')?;
            return Some(Self {
                file: number.parse().ok()?,
                offset: offset.parse().ok()?,
                row,
            });
        }
        let (high, low) = transaction.split_once('/')?;
        let hex = |digits| u64::from_str_radix(digits, 16).ok();
        Some(Self {
            file: hex(high)?,
            offset: hex(low)?,
            row,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_ordered_by_their_numbers() {
        let ordered = [
            "binlog.000002:4/0",
            "binlog.000002:99/0",
            "binlog.000002:100/2",
            "binlog.000002:100/10",
            "binlog.000010:4/0",
            "binlog.1000000:4/0",
        ];
        let parsed: Vec<_> = ordered
            .iter()
            .map(|text| RowPosition::parse(text.as_bytes()).unwrap())
            .collect();
        assert!(parsed.is_sorted_by(|a, b| a < b));
        let lsn = |text: &str| RowPosition::parse(text.as_bytes()).unwrap();
        assert!(lsn("0/FFFFFFFF/3") < lsn("1/0/0"));
        for wrong in [
            "",
            "binlog.000002:4",
            "binlog:4/0",
            "4/0",
            "binlog.000002:4/x",
        ] {
            assert_eq!(RowPosition::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
