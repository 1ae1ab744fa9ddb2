//! One picture: columns by category or curves over a count, a colour for each program, the range of
//! the repetitions as a line.

use std::fmt::Write as _;

use super::axis::{Axis, label};
use super::{colour, escape};
use crate::programs::Program;
use crate::report::{Better, Spread};

const LEFT: f64 = 70.0;
const TOP: f64 = 70.0;
const HEIGHT: f64 = 300.0;
const BOTTOM: f64 = TOP + HEIGHT;
/// Below the axis: categories, one line each.
const FOOT: f64 = 50.0;
const PLOT_WIDTH_MIN: f64 = 640.0;
const COLUMN_WIDTH: f64 = 18.0;
/// Between two categories.
const GAP: f64 = 26.0;

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Its headline.
    pub title: String,
    /// The unit of the values.
    pub unit: &'static str,
    /// Which way is better; told below the headline.
    pub better: Better,
    /// Whether the value axis is logarithmic.
    pub log: bool,
    /// What stands on the other axis.
    pub points: Points,
    /// A colour each.
    pub series: Vec<Series>,
}

/// What the values of a series belong to, in order.
#[derive(Clone, Debug)]
pub enum Points {
    /// Names: columns.
    Categories(Vec<String>),
    /// Counts, drawn by their logarithm: curves.
    Counts(&'static str, Vec<u32>),
}

/// The values of one program; `None` where it was not measured.
#[derive(Clone, Debug)]
pub struct Series {
    /// Which program.
    pub program: Program,
    /// One per point.
    pub values: Vec<Option<Spread>>,
}

impl Chart {
    /// Draws it.
    #[must_use]
    pub fn svg(&self) -> String {
        let values: Vec<f64> =
            self.series.iter().flat_map(|one| one.values.iter().flatten()).map(|v| v.max).collect();
        let lows = self.series.iter().flat_map(|one| one.values.iter().flatten()).map(|v| v.min);
        let mut values: Vec<f64> = values.into_iter().chain(lows).collect();
        if !self.log {
            // Room for the figure above the highest column.
            values.push(values.iter().copied().fold(0.0, f64::max) * 1.1);
        }
        let axis = Axis::of(&values, self.log, (BOTTOM, HEIGHT));
        let width = self.plot_width();
        let mut body = String::new();
        self.write_frame(&mut body, &axis, width);
        match &self.points {
            Points::Categories(names) => self.write_columns(&mut body, &axis, names, width),
            Points::Counts(what, counts) => {
                self.write_curves(&mut body, &axis, what, counts, width)
            }
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{:.0}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n",
            LEFT + width + 20.0,
            BOTTOM + FOOT
        )
    }

    fn plot_width(&self) -> f64 {
        match &self.points {
            Points::Categories(names) => {
                let columns = self.series.len() as f64 * COLUMN_WIDTH + GAP;
                (names.len() as f64 * columns).max(PLOT_WIDTH_MIN)
            }
            Points::Counts(..) => PLOT_WIDTH_MIN,
        }
    }

    /// Headline, legend, axis with its grid.
    fn write_frame(&self, body: &mut String, axis: &Axis, width: f64) {
        let direction = match self.better {
            Better::Higher => ", more is better",
            Better::Lower => ", less is better",
            Better::Neither => "",
        };
        let scale = if self.log { ", logarithmic" } else { "" };
        let (title, unit) = (escape(&self.title), escape(self.unit));
        let _ = writeln!(
            body,
            r#"<text x="10" y="20" font-size="15" font-weight="bold">{title}</text>"#
        );
        let _ =
            writeln!(body, r##"<text x="10" y="38" fill="#444">{unit}{direction}{scale}</text>"##);
        let mut x = LEFT;
        for series in &self.series {
            let (name, fill) = (series.program.name(), colour(series.program));
            let _ =
                writeln!(body, r#"<rect x="{x}" y="48" width="11" height="11" fill="{fill}"/>"#);
            let _ = writeln!(body, r#"<text x="{}" y="58">{name}</text>"#, x + 15.0);
            x += 30.0 + 7.0 * name.len() as f64;
        }
        for tick in axis.ticks() {
            let (y, right) = (axis.y(tick), LEFT + width);
            let _ = writeln!(
                body,
                r##"<line x1="{LEFT}" y1="{y:.1}" x2="{right:.1}" y2="{y:.1}" stroke="#ddd"/>"##
            );
            let text = label(tick);
            let (x, y) = (LEFT - 6.0, y + 4.0);
            let _ = writeln!(body, r#"<text x="{x}" y="{y:.1}" text-anchor="end">{text}</text>"#);
        }
    }

    fn write_columns(&self, body: &mut String, axis: &Axis, names: &[String], width: f64) {
        let slot = width / names.len().max(1) as f64;
        for (index, name) in names.iter().enumerate() {
            let start = LEFT + slot * index as f64;
            let centre = start + slot / 2.0;
            let measured: Vec<(Program, Spread)> = self
                .series
                .iter()
                .filter_map(|series| Some((series.program, series.values[index]?)))
                .collect();
            let mut x = centre - COLUMN_WIDTH * measured.len() as f64 / 2.0;
            for (program, spread) in measured {
                write_column(body, axis, x, program, spread);
                x += COLUMN_WIDTH;
            }
            let name = escape(name);
            let y = BOTTOM + 18.0;
            let _ = writeln!(
                body,
                r#"<text x="{centre:.1}" y="{y}" text-anchor="middle">{name}</text>"#
            );
        }
    }

    fn write_curves(&self, body: &mut String, axis: &Axis, what: &str, counts: &[u32], width: f64) {
        let decades = f64::from(counts.iter().copied().max().unwrap_or(1).max(10)).log10();
        let x_of = |count: u32| LEFT + 20.0 + (width - 60.0) * f64::from(count).log10() / decades;
        for count in counts {
            let (x, y) = (x_of(*count), BOTTOM + 18.0);
            let _ =
                writeln!(body, r#"<text x="{x:.1}" y="{y}" text-anchor="middle">{count}</text>"#);
        }
        let (x, y, what) = (LEFT + width / 2.0, BOTTOM + 38.0, escape(what));
        let _ = writeln!(body, r#"<text x="{x:.1}" y="{y}" text-anchor="middle">{what}</text>"#);
        for Series { program, values } in &self.series {
            let stroke = colour(*program);
            let measured: Vec<(f64, Spread)> = counts
                .iter()
                .zip(values)
                .filter_map(|(count, value)| Some((x_of(*count), (*value)?)))
                .collect();
            let path: Vec<String> = measured
                .iter()
                .map(|(x, spread)| format!("{x:.1},{:.1}", axis.y(spread.median)))
                .collect();
            let _ = writeln!(
                body,
                r#"<polyline points="{}" fill="none" stroke="{stroke}" stroke-width="2"/>"#,
                path.join(" ")
            );
            for (x, spread) in measured {
                let y = axis.y(spread.median);
                let _ =
                    writeln!(body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{stroke}"/>"#);
                write_range(body, axis, x, spread);
                if *program == Program::Ringway {
                    let text = label(spread.median);
                    let (x, y) = (x + 7.0, y - 7.0);
                    let _ = writeln!(body, r#"<text x="{x:.1}" y="{y:.1}">{text}</text>"#);
                }
            }
        }
    }
}

fn write_column(body: &mut String, axis: &Axis, x: f64, program: Program, spread: Spread) {
    let (top, fill) = (axis.y(spread.median), colour(program));
    let (width, height) = (COLUMN_WIDTH - 3.0, BOTTOM - top);
    let _ = writeln!(
        body,
        r#"<rect x="{x:.1}" y="{top:.1}" width="{width}" height="{height:.1}" fill="{fill}"/>"#
    );
    let middle = x + width / 2.0;
    write_range(body, axis, middle, spread);
    // Upright, so that columns may be narrow.
    let (x, y, text) = (middle + 4.0, axis.y(spread.max) - 4.0, label(spread.median));
    let _ = writeln!(
        body,
        r#"<text x="{x:.1}" y="{y:.1}" font-size="10" transform="rotate(-90 {x:.1} {y:.1})">{text}</text>"#
    );
}

fn write_range(body: &mut String, axis: &Axis, x: f64, spread: Spread) {
    let (low, high) = (axis.y(spread.min), axis.y(spread.max));
    let _ = writeln!(
        body,
        r#"<line x1="{x:.1}" y1="{low:.1}" x2="{x:.1}" y2="{high:.1}" stroke="black"/>"#
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Points, values: Vec<Option<Spread>>) -> Chart {
        let series = vec![Series { program: Program::Ringway, values }];
        let (title, unit) = ("a < b".to_owned(), "kpps");
        Chart { title, unit, better: Better::Higher, log: false, points, series }
    }

    #[test]
    fn a_column_is_as_high_as_its_value_and_text_is_escaped() {
        let names = vec!["one".to_owned(), "two".to_owned()];
        let svg = chart(Points::Categories(names), vec![Spread::of(&[50.0]), None]).svg();
        assert!(svg.contains(r##"height="250.0" fill="#2166ac""##), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("kpps, more is better"));
        assert_eq!(svg.matches("font-size=\"10\"").count(), 1, "what is missing has no column");
    }

    #[test]
    fn a_curve_has_a_point_for_each_measured_count() {
        let values = vec![Spread::of(&[1.0]), None, Spread::of(&[2.0])];
        let svg = chart(Points::Counts("sessions", vec![1, 10, 100]), values).svg();
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains(">sessions<") && svg.contains(">100<"));
    }
}
