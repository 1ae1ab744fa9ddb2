//! A client's file as a QR code in a terminal, for the camera of a phone.

use std::fmt::Write as _;

use qrcode::render::unicode::Dense1x2;
use qrcode::{Color, EcLevel, QrCode};
use zeroize::Zeroizing;

use crate::failure::{Failure, Status};

/// White on black whatever the colours of the terminal are, and back to them.
const COLOURS: (&str, &str) = ("\x1b[97;40m", "\x1b[0m");

/// Draws `text`, two modules per character cell, with the quiet zone that scanners want. `coloured`
/// adds the escape sequences without which a terminal with dark letters on light ground shows a
/// negative.
///
/// # Errors
/// A text too long for a QR code (about 2,900 bytes).
pub fn draw(text: &str, coloured: bool) -> Result<String, Failure> {
    // The lowest redundancy: a screen is clean, and fewer modules are easier to scan.
    let code = QrCode::with_error_correction_level(text, EcLevel::L).map_err(|_| {
        let message = format!(
            "The client file has {} bytes, too many for a QR code: use fewer --allowed-ips",
            text.len()
        );
        Failure::new(Status::Usage, message)
    })?;
    let drawn = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .quiet_zone(true)
        .build();
    let (on, off) = if coloured { COLOURS } else { ("", "") };
    Ok(drawn.lines().map(|line| format!("{on}{line}{off}\n")).collect())
}

/// Draws `text` as an SVG image with the quiet zone that scanners want, one unit per module; none
/// if the text is too long for a QR code. It shows what the text says: erased when dropped.
#[must_use]
pub fn svg(text: &str) -> Option<Zeroizing<String>> {
    const QUIET: usize = 4;
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let (width, colours) = (code.width(), code.to_colors());
    let side = width + 2 * QUIET;
    // Room for a path of every second module, so that no secret is left by a growing buffer.
    let mut out = Zeroizing::new(String::with_capacity(512 + 8 * colours.len()));
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" \
         shape-rendering=\"crispEdges\"><path fill=\"#fff\" d=\"M0 0h{side}v{side}H0z\"/>\
         <path d=\""
    );
    for (y, row) in colours.chunks(width).enumerate() {
        let mut x = 0;
        while let Some(run) = row.get(x..).filter(|rest| !rest.is_empty()) {
            let same = run.iter().take_while(|colour| **colour == run[0]).count();
            if run[0] == Color::Dark {
                let _ = write!(out, "M{} {}h{same}v1h-{same}z", x + QUIET, y + QUIET);
            }
            x += same;
        }
    }
    out.push_str("\"/></svg>");
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawing_is_square_with_a_quiet_zone() {
        let drawn = draw(&"x".repeat(300), false).unwrap();
        let columns: Vec<usize> = drawn.lines().map(|line| line.chars().count()).collect();
        // 300 bytes at the lowest redundancy need version 11: 61 modules, and 4 around.
        assert!(columns.iter().all(|count| *count == 61 + 8), "{columns:?}");
        assert_eq!(columns.len(), (61_usize + 8).div_ceil(2));
        let first = drawn.lines().next().unwrap();
        assert!(first.chars().all(|cell| cell == '█'), "the zone is light: {first}");
    }

    #[test]
    fn finder_patterns_stand_where_a_scanner_looks() {
        let drawn = draw("ringway", false).unwrap();
        let row = drawn.lines().nth(2).unwrap();
        let cells: Vec<char> = row.chars().collect();
        // The top two rows of a finder: seven dark modules over dark, five light, dark.
        assert_eq!(cells[4..11].iter().collect::<String>(), " ▄▄▄▄▄ ");
    }

    #[test]
    fn an_image_has_every_dark_module_once_and_a_quiet_zone() {
        let text = "x".repeat(300);
        let drawn = svg(&text).unwrap();
        assert!(drawn.contains("viewBox=\"0 0 69 69\""), "{}", &drawn[..100]);
        let code = QrCode::with_error_correction_level(&text, EcLevel::L).unwrap();
        let dark = code.to_colors().iter().filter(|colour| **colour == Color::Dark).count();
        let path = drawn.rsplit_once("d=\"").unwrap().1;
        let runs = path
            .split('M')
            .skip(1)
            .map(|run| run.split(['h', 'v']).nth(1).unwrap().parse::<usize>().unwrap());
        assert_eq!(runs.sum::<usize>(), dark);
        assert!(svg(&"x".repeat(4000)).is_none());
    }

    #[test]
    fn a_text_that_is_too_long_is_refused_with_advice() {
        let failure = draw(&"x".repeat(4000), false).unwrap_err();
        assert!(failure.message.contains("--allowed-ips"), "{failure}");
    }
}
