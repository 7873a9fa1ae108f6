//! The colours of pages and pictures, light and dark. Pictures are drawn in the light ones, which are good where an SVG stands
//! alone; in a page, rules for their attributes exchange each for the variable of its name, so that both follow the reader's choice.

use plotters::style::RGBColor;

/// One colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colour {
    name: &'static str,
    /// On light ground.
    pub light: RGBColor,
    dark: RGBColor,
}

const fn colour(name: &'static str, light: (u8, u8, u8), dark: (u8, u8, u8)) -> Colour {
    Colour {
        name,
        light: RGBColor(light.0, light.1, light.2),
        dark: RGBColor(dark.0, dark.1, dark.2),
    }
}

/// Text of axes.
pub const SOFT: Colour = colour("soft", (71, 85, 105), (159, 176, 199));
/// Lines of grids.
pub const LINE: Colour = colour("line", (226, 232, 240), (42, 55, 78));
/// Throughput, and what is judged.
pub const BLUE: Colour = colour("blue", (37, 99, 235), (96, 156, 255));
/// Processor, and what is better.
pub const TEAL: Colour = colour("teal", (13, 148, 136), (45, 196, 180));
/// Memory.
pub const VIOLET: Colour = colour("violet", (124, 58, 237), (167, 128, 255));
/// Latency.
pub const AMBER: Colour = colour("amber", (217, 119, 6), (245, 166, 35));
/// Faults, and what is worse.
pub const RED: Colour = colour("red", (220, 38, 38), (255, 107, 107));
/// Limits, and what others are compared with.
pub const GREY: Colour = colour("grey", (100, 116, 139), (139, 154, 179));

const ALL: [Colour; 8] = [SOFT, LINE, BLUE, TEAL, VIOLET, AMBER, RED, GREY];

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// CSS: the colours as variables for both grounds, and the rules that put them into pictures.
#[must_use]
pub fn css() -> String {
    let variables = |of: fn(&Colour) -> RGBColor| -> String {
        ALL.iter()
            .map(|colour| format!("--{}:{};", colour.name, hex(of(colour))))
            .collect()
    };
    let mut css = format!(
        ":root{{color-scheme:light dark;{}--ink:#0f172a;--paper:#f4f7fb;--card:#fff;--good:#047857;--good-ground:#d1fae5;\
         --bad:#b91c1c;--bad-ground:#fee2e2;--code:#eef2f7;--shade:rgba(15,23,42,.06)}}\
         @media(prefers-color-scheme:dark){{:root{{{}--ink:#e6edf7;--paper:#0b1220;--card:#131c2e;--good:#6ee7b7;--good-ground:#064e3b;\
         --bad:#fecaca;--bad-ground:#7f1d1d;--code:#1d2940;--shade:rgba(0,0,0,.4)}}}}",
        variables(|colour| colour.light),
        variables(|colour| colour.dark),
    );
    for colour in ALL {
        let (name, light) = (colour.name, hex(colour.light));
        for attribute in ["fill", "stroke"] {
            css += &format!("svg [{attribute}=\"{light}\"]{{{attribute}:var(--{name})}}");
        }
    }
    css
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_can_be_told_from_the_others() {
        // The rules go by the light value: two names with one value would both get the last rule.
        for (place, colour) in ALL.iter().enumerate() {
            assert!(
                ALL[place + 1..]
                    .iter()
                    .all(|other| hex(other.light) != hex(colour.light))
            );
        }
    }
}
