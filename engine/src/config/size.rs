//! Sizes such as `32MiB`.

/// Units, longest first so that `MiB` is not read as `B`.
const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Reads a whole number with a unit; without one it is bytes.
pub(super) fn parse(text: &str) -> Result<usize, String> {
    let invalid = || {
        format!(
            "\"{text}\" is not a size: expected a whole number with a unit, for example \"32MiB\""
        )
    };
    let trimmed = text.trim();
    let (number, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| {
            trimmed
                .strip_suffix(unit)
                .map(|number| (number.trim_end(), *factor))
        })
        .unwrap_or((trimmed, 1));
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid());
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(invalid)
}

/// The shortest exact text of a size.
pub(super) fn show(bytes: usize) -> String {
    let (unit, factor) = match bytes as u64 {
        0 => ("B", 1),
        n if n % (1 << 30) == 0 => ("GiB", 1 << 30),
        n if n % (1 << 20) == 0 => ("MiB", 1 << 20),
        n if n % (1 << 10) == 0 => ("KiB", 1 << 10),
        _ => ("B", 1),
    };
    format!("{}{unit}", bytes as u64 / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_shows() {
        for (text, bytes) in [
            ("32MiB", 32 << 20),
            ("1 KiB", 1024),
            ("512", 512),
            ("512B", 512),
            ("2GiB", 2 << 30),
            ("3MB", 3_000_000),
            ("0B", 0),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
            assert_eq!(parse(&show(bytes)), Ok(bytes));
        }
        assert_eq!(show(64 << 20), "64MiB");
        for text in [
            "",
            "MiB",
            "-1MiB",
            "1.5MiB",
            "12 parsec",
            "99999999999GiB",
            "1mib",
        ] {
            assert!(
                parse(text).unwrap_err().contains("for example \"32MiB\""),
                "{text}"
            );
        }
    }
}
