//! A plain SVG of horizontal bars: one group per scenario, one bar per program, with the range as a
//! line.

use std::fmt::Write as _;

use crate::programs::Program;
use crate::report::{Better, Results, Spread};

const WIDTH: f64 = 760.0;
const BAR_LEFT: f64 = 150.0;
const BAR_RIGHT: f64 = 660.0;
const BAR_HEIGHT: f64 = 15.0;

/// Draws the first compared figure that costs (less is better), else the first compared one, of
/// each scenario.
#[must_use]
pub fn svg(results: &Results) -> String {
    let mut body = String::new();
    let mut y = 20.0;
    for scenario in results.scenarios() {
        let rows = results.rows(&scenario);
        let Some(name) = rows.first().and_then(|row| {
            let find = |wanted| row.cells.iter().find(|(_, better, _)| *better == wanted);
            find(Better::Lower).or_else(|| find(Better::Higher)).map(|(name, ..)| *name)
        }) else {
            continue;
        };
        let bars: Vec<(Program, Spread)> = rows
            .iter()
            .filter_map(|row| {
                let cell = row.cells.iter().find(|(other, ..)| *other == name)?;
                Some((row.program, cell.2))
            })
            .collect();
        let _ =
            writeln!(body, r#"<text x="10" y="{y}" font-weight="bold">{scenario}: {name}</text>"#);
        y += 8.0;
        draw_group(&mut body, &bars, &mut y);
        y += 22.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn draw_group(body: &mut String, bars: &[(Program, Spread)], y: &mut f64) {
    let largest = bars.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (BAR_RIGHT - BAR_LEFT) / largest;
    for (program, spread) in bars {
        let colour = if *program == Program::Ringway { "#2166ac" } else { "#bbbbbb" };
        let (middle, text) = (*y + BAR_HEIGHT / 2.0, *y + BAR_HEIGHT - 3.0);
        let (from, to) = (BAR_LEFT + spread.min * scale, BAR_LEFT + spread.max * scale);
        let width = spread.median * scale;
        let _ = writeln!(body, r#"<text x="20" y="{text:.1}">{program}</text>"#);
        let _ = writeln!(
            body,
            r#"<rect x="{BAR_LEFT}" y="{y:.1}" width="{width:.1}" height="12" fill="{colour}"/>"#
        );
        let _ = writeln!(
            body,
            r#"<line x1="{from:.1}" y1="{middle:.1}" x2="{to:.1}" y2="{middle:.1}" stroke="black"/>"#
        );
        let _ = writeln!(body, r#"<text x="{:.1}" y="{text:.1}">{spread}</text>"#, to + 6.0);
        *y += BAR_HEIGHT;
    }
}
