//! Numbers as people read them.

/// 1234567 as `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits: `1234` as `1230`, `0.01234` as `0.0123`.
#[must_use]
pub fn three_digits(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return if number == 0.0 {
            "0".into()
        } else {
            "–".into()
        };
    }
    let places = 2 - number.abs().log10().floor() as i32;
    if places <= 0 {
        let step = 10f64.powi(-places);
        return format!("{}", (number / step).round() * step);
    }
    format!("{number:.*}", places.min(9) as usize)
}

/// A count with its magnitude: `1.35 M`, `42 k`, `17`.
#[must_use]
pub fn magnitude(number: f64) -> String {
    let (scaled, unit) = match number.abs() {
        n if n >= 1e9 => (number / 1e9, " G"),
        n if n >= 1e6 => (number / 1e6, " M"),
        n if n >= 1e3 => (number / 1e3, " k"),
        _ => (number, ""),
    };
    format!("{}{unit}", three_digits(scaled))
}

/// A time in milliseconds with a unit that fits: `850 µs`, `12.3 ms`, `1.20 s`.
#[must_use]
pub fn milliseconds(ms: f64) -> String {
    match ms.abs() {
        n if n >= 1e3 => format!("{} s", three_digits(ms / 1e3)),
        n if n >= 1.0 || n == 0.0 => format!("{} ms", three_digits(ms)),
        n if n >= 1e-3 => format!("{} µs", three_digits(ms * 1e3)),
        _ => format!("{} ns", three_digits(ms * 1e6)),
    }
}

/// A ratio as a signed change: 1.034 as `+3.4 %`.
#[must_use]
pub fn change(ratio: f64) -> String {
    let percent = (ratio - 1.0) * 100.0;
    // Nothing is told as minus nought.
    let percent = if percent.abs() < 0.05 { 0.0 } else { percent };
    if percent.abs() >= 1000.0 {
        return format!("× {}", three_digits(ratio));
    }
    let places = usize::from(percent.abs() < 100.0);
    let sign = if percent > 0.0 { "+" } else { "" };
    format!("{sign}{percent:.places$} %").replace('-', "−")
}

/// A ratio above 1 as percent, without a sign: 1.05 as `5 %`.
#[must_use]
pub fn percent(ratio: f64) -> String {
    let percent = format!("{:.1}", (ratio - 1.0) * 100.0);
    format!("{} %", percent.trim_end_matches(".0"))
}

/// A count with its noun, which is regular: `1 run`, `5 runs`, `2 processes`.
#[must_use]
pub fn counted(count: usize, noun: &str) -> String {
    match (count, noun.ends_with('s')) {
        (1, _) => format!("1 {noun}"),
        (_, true) => format!("{count} {noun}es"),
        (_, false) => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(three_digits(1234.0), "1230");
        assert_eq!(three_digits(0.012_34), "0.0123");
        assert_eq!(three_digits(9.999), "10.00");
        assert_eq!(magnitude(1_354_000.0), "1.35 M");
        assert_eq!(magnitude(17.0), "17.0");
        assert_eq!(milliseconds(0.85), "850 µs");
        assert_eq!(milliseconds(12.34), "12.3 ms");
        assert_eq!(milliseconds(0.000_029), "29.0 ns");
        assert_eq!(change(1.034), "+3.4 %");
        assert_eq!(change(0.5), "−50.0 %");
        assert_eq!(change(0.9999), "0.0 %");
        assert_eq!(change(34.5), "× 34.5");
        assert_eq!(percent(1.05), "5 %");
        assert_eq!(percent(1.025), "2.5 %");
        assert_eq!(counted(0, "run"), "0 runs");
        assert_eq!(counted(1, "process"), "1 process");
        assert_eq!(counted(2, "process"), "2 processes");
    }
}
