//! Estimates with their intervals, a row each, about a line at zero.

use super::figure::{Drawing, Table};
use super::frame::Frame;
use super::marks::{Mark, draw, series};
use super::names::shortened;
use super::number::cell;
use super::scale::Scale;
use super::svg::{Anchor, Hover, Svg, grid_line, text, x_label};
use crate::analysis::dissect::stats::Interval;

/// A row for each estimate, from top to bottom.
#[derive(Clone, Debug)]
pub(super) struct Forest {
    pub(super) title: String,
    pub(super) caption: String,
    /// The quantity that is estimated.
    pub(super) x: String,
    pub(super) rows: Vec<(String, Interval)>,
}

const ROW: f64 = 20.0;

impl Forest {
    fn scale(&self, frame: &Frame) -> Option<Scale> {
        let ends = |(_, i): &(String, Interval)| [i.low, Some(i.estimate), i.high];
        let ends: Vec<f64> = self.rows.iter().flat_map(ends).flatten().collect();
        let zero = ends.iter().any(|end| end.is_finite()).then_some(0.0);
        Scale::of(ends.into_iter().chain(zero), frame.names, frame.width - frame.right, false)
    }
}

impl Drawing for Forest {
    fn title(&self) -> &str {
        &self.title
    }

    fn caption(&self) -> &str {
        &self.caption
    }

    fn svg(&self, frame: &Frame) -> Option<Svg> {
        let x = self.scale(frame)?;
        let bottom = frame.top + ROW * self.rows.len() as f64;
        let mut body = String::new();
        for (at, label) in x.horizontal_ticks() {
            grid_line(&mut body, (at, frame.top), (at, bottom));
            text(&mut body, Anchor::Middle, at, bottom + 17.0, &label);
        }
        let scales = [&x, &Scale::unit(frame.top, bottom)];
        let zero = series("", 6, Mark::Dashed, vec![(0.0, 0.0), (0.0, 1.0)]);
        draw(&mut body, (0, &zero), scales, 2);
        let names: Vec<&str> = self.rows.iter().map(|row| row.0.as_str()).collect();
        let names = shortened(&names, Frame::characters(frame.names - 12.0));
        for (index, ((_, interval), name)) in self.rows.iter().zip(&names).enumerate() {
            let row = (index as f64 + 0.5) / self.rows.len() as f64;
            if let (Some(low), Some(high)) = (interval.low, interval.high) {
                let line = series("", 0, Mark::Line, vec![(low, row), (high, row)]);
                draw(&mut body, (1, &line), scales, 2);
            }
            let estimate = series("", 0, Mark::Points, vec![(interval.estimate, row)]);
            draw(&mut body, (2, &estimate), scales, 2);
            let y = frame.top + ROW * (index as f64 + 0.5) + 4.0;
            text(&mut body, Anchor::End, frame.names - 8.0, y, name);
        }
        // Over the whole width: it says what the rows are compared with.
        x_label(&mut body, 0.0, frame.width, bottom + 36.0, &self.x);
        let height = bottom + 46.0;
        Some(Svg {
            title: self.title.clone(),
            width: frame.width,
            height,
            full_height: height,
            hover: Hover::Rows([frame.top, bottom]),
            body,
        })
    }

    fn table(&self) -> Table {
        let head = ["", &self.x, "low", "high", "n"].map(str::to_owned).to_vec();
        let rows = self.rows.iter().map(|(name, i)| {
            let end = |end: Option<f64>| cell(end.unwrap_or(f64::NAN));
            vec![name.clone(), cell(i.estimate), end(i.low), end(i.high), i.n.to_string()]
        });
        Table { head, rows: rows.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_point_its_interval_and_zero_in_view() {
        let with = |estimate, low, high| Interval { estimate, low, high, n: 5 };
        let rows = vec![
            ("a".to_owned(), with(-0.02, Some(-0.03), Some(-0.01))),
            ("b".to_owned(), with(-0.01, None, None)),
        ];
        let text = |text: &str| text.to_owned();
        let mut forest = Forest { title: text("t"), caption: text("c"), x: text("d"), rows };
        let svg = forest.svg(&Frame::WIDE).unwrap().in_page("wide");
        // Zero's line and one interval; the largest value is zero itself.
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("points=\"698.0,12.0 698.0,52.0\""), "{svg}");
        assert_eq!(svg.matches("class=\"point").count(), 2);
        assert_eq!(
            forest.table().rows,
            [["a", "-0.02", "-0.03", "-0.01", "5"], ["b", "-0.01", "", "", "5"]]
        );
        forest.rows.clear();
        assert!(forest.svg(&Frame::WIDE).is_none());
    }
}
