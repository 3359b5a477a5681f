//! Estimates with their intervals, a row each, about a line at zero.

use std::fmt::Write;

use super::page::escape;
use super::plot::{Mark, RIGHT, Scale, TOP, WIDTH, cell, draw, open, series, shortened};
use crate::analysis::dissect::stats::Interval;

/// A row for each estimate, from top to bottom.
#[derive(Clone, Debug)]
pub(crate) struct Forest {
    pub(crate) title: String,
    pub(crate) caption: String,
    /// What the estimates are of.
    pub(crate) x: String,
    pub(crate) rows: Vec<(String, Interval)>,
}

const ROW: f64 = 18.0;
const NAMES: f64 = 170.0;

impl Forest {
    /// Whether there is anything to draw.
    pub(crate) fn has_data(&self) -> bool {
        self.scale().is_some()
    }

    fn scale(&self) -> Option<Scale> {
        let ends = |(_, i): &(String, Interval)| [i.low, Some(i.estimate), i.high];
        let ends: Vec<f64> = self.rows.iter().flat_map(ends).flatten().collect();
        let zero = (!ends.is_empty()).then_some(0.0);
        Scale::of(ends.into_iter().chain(zero), NAMES, WIDTH - RIGHT, false)
    }

    /// As an SVG element.
    pub(crate) fn svg(&self) -> String {
        let Some(x) = self.scale() else { return String::new() };
        let bottom = TOP + ROW * self.rows.len() as f64;
        let mut svg = open(&self.title, bottom + 40.0);
        for (at, label) in x.ticks() {
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/><text class=\"middle\" x=\"{at:.1}\" y=\"{}\">{label}</text>",
                bottom + 16.0
            );
        }
        let y = Scale { from: 0.0, to: 1.0, low: TOP, high: bottom, log: false, whole: false };
        draw(&mut svg, &series("", 6, Mark::Dashed, vec![(0.0, 0.0), (0.0, 1.0)]), &x, &y);
        for (index, (name, interval)) in self.rows.iter().enumerate() {
            let row = (index as f64 + 0.5) / self.rows.len() as f64;
            if let (Some(low), Some(high)) = (interval.low, interval.high) {
                draw(&mut svg, &series("", 0, Mark::Line, vec![(low, row), (high, row)]), &x, &y);
            }
            draw(&mut svg, &series("", 0, Mark::Points, vec![(interval.estimate, row)]), &x, &y);
            let _ = write!(
                svg,
                "<text class=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>",
                NAMES - 8.0,
                TOP + ROW * (index as f64 + 0.5) + 4.0,
                escape(&shortened(name, 26))
            );
        }
        let _ = write!(
            svg,
            "<text class=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text></svg>",
            (NAMES + WIDTH - RIGHT) / 2.0,
            bottom + 34.0,
            escape(&self.x)
        );
        svg
    }

    /// Head and rows.
    pub(crate) fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let head = ["", &self.x, "low", "high", "n"].map(str::to_owned).to_vec();
        let rows = self.rows.iter().map(|(name, i)| {
            let end = |end: Option<f64>| cell(end.unwrap_or(f64::NAN));
            vec![name.clone(), cell(i.estimate), end(i.low), end(i.high), i.n.to_string()]
        });
        (head, rows.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_point_its_interval_and_zero_in_sight() {
        let with = |estimate, low, high| Interval { estimate, low, high, n: 5 };
        let rows = vec![
            ("a".to_owned(), with(-0.02, Some(-0.03), Some(-0.01))),
            ("b".to_owned(), with(-0.01, None, None)),
        ];
        let text = |text: &str| text.to_owned();
        let mut forest = Forest { title: text("t"), caption: text("c"), x: text("d"), rows };
        let svg = forest.svg();
        // Zero's line and one interval; the largest value is zero itself.
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("points=\"708.0,12.0 708.0,48.0\""), "{svg}");
        assert_eq!(svg.matches("class=\"point").count(), 2);
        assert_eq!(
            forest.table().1,
            [["a", "-0.02", "-0.03", "-0.01", "5"], ["b", "-0.01", "", "", "5"]]
        );
        forest.rows.clear();
        assert!(!forest.has_data() && forest.svg().is_empty());
    }
}
