//! Values of the API as people read them: sizes, rates, times, words.
//!
//! Bits are decimal and per second, bytes are binary, times are UTC, as everywhere in Ringway. What
//! comes from outside cannot command the terminal ([`plain`]). Pure.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::config::units::show_duration;

/// What is shown for what is not there.
pub(crate) const NOTHING: &str = "-";

/// Text without anything that a terminal obeys.
pub(crate) fn plain(text: &str) -> String {
    if !text.chars().any(|c| c.is_control() || turns(c)) {
        return text.to_owned();
    }
    let shown = |c: char| {
        if c.is_control() || turns(c) { c.escape_default().to_string() } else { c.to_string() }
    };
    text.chars().map(shown).collect()
}

/// Text of several lines without anything else that a terminal obeys. What is not shown as it is
/// stands as TOML escapes it, so that quoted text of a configuration means the same.
pub(crate) fn lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\n' | '\t' => out.push(letter),
            // An end of line as others write it.
            '\r' if letters.peek() == Some(&'\n') => out.push(letter),
            // All of them are in the first plane.
            _ if letter.is_control() || turns(letter) => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            _ => out.push(letter),
        }
    }
    out
}

/// Whether a letter turns the direction of text, or breaks lines unseen.
const fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON that means the same, without anything that a terminal obeys.
pub(crate) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut is_string, mut is_escaped) = (false, false);
    for letter in text.chars() {
        if is_string && (letter.is_control() || turns(letter)) {
            // All of them are in the first plane: one escape each.
            out.push_str(&format!("\\u{:04x}", u32::from(letter)));
            is_escaped = false;
            continue;
        }
        if !is_string && letter != '\n' && (letter.is_control() || turns(letter)) {
            // White space at best.
            out.push(' ');
            continue;
        }
        match letter {
            '"' if !is_escaped => is_string = !is_string,
            _ => (),
        }
        is_escaped = is_string && letter == '\\' && !is_escaped;
        out.push(letter);
    }
    out
}

/// The value at `pointer` in a few characters.
pub(crate) fn word(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => NOTHING.to_owned(),
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(Value::String(text)) if text.is_empty() => NOTHING.to_owned(),
        Some(Value::String(text)) => plain(text),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Array(items)) if items.is_empty() => NOTHING.to_owned(),
        Some(Value::Array(items)) => {
            items.iter().map(|item| word(item, "")).collect::<Vec<_>>().join(",")
        }
        Some(object @ Value::Object(_)) => plain(&object.to_string()),
    }
}

/// The number at `pointer`.
pub(crate) fn number(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer)?.as_u64()
}

/// The size at `pointer`.
pub(crate) fn size(value: &Value, pointer: &str) -> String {
    number(value, pointer).map_or_else(|| NOTHING.to_owned(), bytes)
}

/// The rate at `pointer`.
pub(crate) fn rate(value: &Value, pointer: &str) -> String {
    number(value, pointer).map_or_else(|| NOTHING.to_owned(), bps)
}

/// The moment at `pointer`, to the minute.
pub(crate) fn moment(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer).and_then(Value::as_str) {
        // 2027-01-31T12:00:00.000Z
        Some(text) if text.len() >= 20 && text.is_ascii() && text.ends_with('Z') => {
            plain(&format!("{} {}Z", &text[..10], &text[11..16]))
        }
        Some(other) => plain(other),
        None => NOTHING.to_owned(),
    }
}

/// The rates at `pointer`, up and down.
pub(crate) fn both_rates(value: &Value, pointer: &str) -> String {
    let part = |field: &str| {
        number(value, &format!("{pointer}/{field}")).map_or_else(|| "unlimited".to_owned(), bps)
    };
    match value.pointer(pointer) {
        None | Some(Value::Null) => NOTHING.to_owned(),
        Some(_) => {
            let (up, down) = (part("up_bps"), part("down_bps"));
            let burst = number(value, &format!("{pointer}/burst_bytes"));
            let burst = burst.map(|burst| format!(", burst {}", bytes(burst))).unwrap_or_default();
            if up == down && burst.is_empty() && up == "unlimited" {
                return up;
            }
            format!("{up} up, {down} down{burst}")
        }
    }
}

/// The quota at `pointer`.
pub(crate) fn quota(value: &Value, pointer: &str) -> String {
    let at = |field: &str| format!("{pointer}/{field}");
    let Some(limit) = number(value, &at("bytes")) else { return NOTHING.to_owned() };
    let (period, action) = (word(value, &at("period")), word(value, &at("action")));
    let throttle = number(value, &at("throttle_bps"));
    let throttle = throttle.map(|rate| format!(" to {}", bps(rate))).unwrap_or_default();
    format!("{}/{period}, then {action}{throttle}", bytes(limit))
}

/// Seconds at `pointer`, where 0 is `zero`.
pub(crate) fn seconds(value: &Value, pointer: &str, zero: &str) -> String {
    match number(value, pointer) {
        None => NOTHING.to_owned(),
        Some(0) => zero.to_owned(),
        Some(seconds) => show_duration(Duration::from_secs(seconds)),
    }
}

/// A size: `1.5 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// A rate: `20 Mbit/s`.
pub(crate) fn bps(bits: u64) -> String {
    scaled(bits, 1000, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

/// A count: `1.5 M`, for what is many.
pub(crate) fn count(count: u64) -> String {
    scaled(count, 1000, &["", "k", "M", "G", "T"]).trim_end().to_owned()
}

/// An age in its two largest units: `3d 4h`.
pub(crate) fn age(seconds: u64) -> String {
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m")];
    let first = parts.iter().position(|(value, _)| *value > 0);
    match first {
        None => format!("{}s", seconds % 60),
        Some(2) => format!("{}m {}s", parts[2].0, seconds % 60),
        Some(at) => {
            format!("{}{} {}{}", parts[at].0, parts[at].1, parts[at + 1].0, parts[at + 1].1)
        }
    }
}

/// With one decimal below ten of a unit unless it is zero, with none above.
fn scaled(value: u64, step: u64, units: &[&str]) -> String {
    let mut unit = 0;
    let mut size: u64 = 1;
    // Half a unit is rounded, so 999.6 k is 1 M.
    while unit + 1 < units.len() && (value / size >= step || rounds_up(value, size, step)) {
        size = size.saturating_mul(step);
        unit += 1;
    }
    let tenths = u128::from(value) * 10 / u128::from(size);
    let rounded = (u128::from(value) * 10 + u128::from(size) / 2) / u128::from(size);
    if unit > 0 && tenths < 100 && !rounded.is_multiple_of(10) {
        return format!("{}.{} {}", rounded / 10, rounded % 10, units[unit]);
    }
    let whole = (u128::from(value) + u128::from(size) / 2) / u128::from(size);
    format!("{whole} {}", units[unit])
}

const fn rounds_up(value: u64, size: u64, step: u64) -> bool {
    size > 1 && value / size + 1 == step && value % size >= size.div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn sizes_and_rates_are_as_people_say_them() {
        for (value, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (10 << 20, "10 MiB"),
            ((50_u64 << 30) + 1, "50 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(value), expected);
        }
        for (value, expected) in [
            (8_000, "8 kbit/s"),
            (20_000_000, "20 Mbit/s"),
            (2_500_000_000, "2.5 Gbit/s"),
            (999_999, "1 Mbit/s"),
            (999_499, "999 kbit/s"),
        ] {
            assert_eq!(bps(value), expected);
        }
        assert_eq!(count(999), "999");
        assert_eq!(count(1_500), "1.5 k");
    }

    #[test]
    fn an_age_has_two_units_at_most() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m 1s"),
            (3_600, "1h 0m"),
            (90_061, "1d 1h"),
            (86_400 * 400, "400d 0h"),
        ] {
            assert_eq!(age(seconds), expected);
        }
    }

    #[test]
    fn values_of_records_are_read_by_people() {
        let user = json!({
            "name": "ada", "expires_at": "2027-01-31T12:00:00.000Z", "role": null, "totp": true,
            "rate": {"up_bps": null, "down_bps": 20_000_000, "burst_bytes": null},
            "quota": {"bytes": 53_687_091_200_u64, "period": "month", "action": "throttle",
                      "throttle_bps": 1_000_000},
            "dns": ["9.9.9.9", "::1"], "idle": 0, "timeout": 28_800
        });
        assert_eq!(word(&user, "/name"), "ada");
        assert_eq!(word(&user, "/role"), "-");
        assert_eq!(word(&user, "/totp"), "yes");
        assert_eq!(word(&user, "/dns"), "9.9.9.9,::1");
        assert_eq!(moment(&user, "/expires_at"), "2027-01-31 12:00Z");
        assert_eq!(both_rates(&user, "/rate"), "unlimited up, 20 Mbit/s down");
        assert_eq!(quota(&user, "/quota"), "50 GiB/month, then throttle to 1 Mbit/s");
        assert_eq!(seconds(&user, "/idle", "never"), "never");
        assert_eq!(seconds(&user, "/timeout", "never"), "8h");
        assert_eq!(both_rates(&user, "/none"), "-");
    }

    #[test]
    fn a_configuration_is_shown_as_it_is_but_for_what_a_terminal_obeys() {
        let text = "# é 日本\r\n[a]\n\tb = \"\\u001b[2J\" # ok\n";
        assert_eq!(lines(text), text);
        let evil = "# \u{1b}]0;x\u{7}\rb = 1\r\n# \u{9b}2J\u{202e}\u{7f}\r";
        assert_eq!(
            lines(evil),
            "# \\u001b]0;x\\u0007\\u000db = 1\r\n# \\u009b2J\\u202e\\u007f\\u000d"
        );
    }

    proptest! {
        #[test]
        fn a_shown_configuration_means_the_same_and_commands_nobody(text in any::<String>()) {
            let noise = "\u{9b}2J \u{202e}\u{2028} \u{85}";
            // What TOML takes as it is.
            let is_taken = |c: &char| !c.is_ascii_control() && !"\"\\".contains(*c);
            let quoted: String = text.chars().filter(is_taken).collect();
            let file = format!("# {quoted}{noise}\r\na = \"{quoted}{noise}\"\n");
            let shown = lines(&file);
            let is_obeyed = |c: char| (c.is_control() && !"\r\n\t".contains(c)) || turns(c);
            prop_assert!(!shown.contains(is_obeyed), "{shown:?}");
            let document = |text: &str| text.parse::<toml_edit::DocumentMut>().unwrap();
            let (before, after) = (document(&file), document(&shown));
            prop_assert_eq!(after["a"].as_str(), before["a"].as_str());
            prop_assert!(before["a"].as_str().unwrap().ends_with(noise));
            let rest = lines(&text).replace("\r\n", "");
            prop_assert!(!rest.contains('\r') && !rest.contains(is_obeyed), "{rest:?}");
        }

        #[test]
        fn nothing_of_outside_commands_the_terminal(text in any::<String>()) {
            prop_assert!(!plain(&text).chars().any(char::is_control));
            let value = json!({ text.as_str(): [&text, "\u{1b}]0;x\u{7} \u{9b}2J \u{202e} \\\" \u{7f}"] });
            for form in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                let shown = json(&form);
                prop_assert!(!shown.chars().any(|c| (c.is_control() && c != '\n') || turns(c)));
                prop_assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value.clone());
            }
            // Whatever it is, nothing in it is obeyed.
            let shown = json(&text);
            prop_assert!(!shown.chars().any(|c| (c.is_control() && c != '\n') || turns(c)));
        }

        #[test]
        fn a_scaled_number_is_short(value in any::<u64>()) {
            prop_assert!(bytes(value).len() <= 8, "{}", bytes(value));
            prop_assert!(bps(value).len() <= 15, "{}", bps(value));
        }

        #[test]
        fn a_shown_size_is_near_the_size(value in 1_u64..1 << 50) {
            let shown = bytes(value);
            let (number, unit) = shown.split_once(' ').unwrap();
            let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
            let power = units.iter().position(|own| *own == unit).unwrap();
            let back = number.parse::<f64>().unwrap() * 1024_f64.powi(power as i32);
            prop_assert!((back / value as f64 - 1.0).abs() < 0.06, "{shown} of {value}");
        }
    }
}
