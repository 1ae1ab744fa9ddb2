//! Horizontal bars: one group per scenario, one bar per variant, with the range as a line.

use std::fmt::Write as _;

use super::escape;
use crate::programs::Program;
use crate::report::Spread;

/// Where bars begin at least; longer labels push them to the right.
const BAR_LEFT: f64 = 150.0;
const BAR_WIDTH: f64 = 510.0;
/// Room for the figure behind a bar.
const NUMBER_WIDTH: f64 = 120.0;
const BAR_HEIGHT: f64 = 15.0;

/// One figure of several things.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its headline.
    pub title: String,
    /// What was compared, and how much it was.
    pub bars: Vec<(String, Spread)>,
}

/// Draws groups of bars below each other.
#[must_use]
pub fn bars(groups: &[Group]) -> String {
    let mut body = String::new();
    let mut y = 20.0;
    let labels = groups.iter().flat_map(|group| &group.bars).map(|(label, _)| label.len());
    let left = BAR_LEFT.max(labels.max().map_or(0.0, |longest| 30.0 + 6.2 * longest as f64));
    let width = left + BAR_WIDTH + NUMBER_WIDTH;
    for Group { title, bars } in groups {
        let title = escape(title);
        let _ = writeln!(body, r#"<text x="10" y="{y}" font-weight="bold">{title}</text>"#);
        y += 8.0;
        draw_group(&mut body, bars, left, &mut y);
        y += 22.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{y}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn draw_group(body: &mut String, bars: &[(String, Spread)], left: f64, y: &mut f64) {
    let largest = bars.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = BAR_WIDTH / largest;
    for (label, spread) in bars {
        let colour = if label.contains(',') || label == Program::Ringway.name() {
            "#2166ac"
        } else {
            "#bbbbbb"
        };
        let (middle, text) = (*y + BAR_HEIGHT / 2.0, *y + BAR_HEIGHT - 3.0);
        let (from, to) = (left + spread.min * scale, left + spread.max * scale);
        let width = spread.median * scale;
        let _ = writeln!(body, r#"<text x="20" y="{text:.1}">{label}</text>"#);
        let _ = writeln!(
            body,
            r#"<rect x="{left:.1}" y="{y:.1}" width="{width:.1}" height="12" fill="{colour}"/>"#
        );
        let _ = writeln!(
            body,
            r#"<line x1="{from:.1}" y1="{middle:.1}" x2="{to:.1}" y2="{middle:.1}" stroke="black"/>"#
        );
        let _ = writeln!(body, r#"<text x="{:.1}" y="{text:.1}">{spread}</text>"#, to + 6.0);
        *y += BAR_HEIGHT;
    }
}
