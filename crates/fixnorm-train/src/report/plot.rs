//! Axes with curves, points or bars on them.
//! Not here: drawing one series (`marks.rs`), which plots there are (`runs.rs`, `dissection.rs`, `study.rs`).

use std::fmt::Write;

use super::figure::{Drawing, Table};
use super::frame::Frame;
use super::legend;
use super::marks::{Mark, Series, draw};
use super::names::shortened;
use super::number::cell;
use super::scale::Scale;
use super::svg::{Anchor, Hover, Svg, escape, grid_line, text, x_label};

/// Axes with series on them.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) title: String,
    /// What to look for, in a sentence.
    pub(super) caption: String,
    pub(super) x: String,
    pub(super) y: String,
    /// A logarithmic y axis; values up to 0 are not drawn.
    pub(super) log_y: bool,
    pub(super) series: Vec<Series>,
}

/// A plot of those series that have points.
pub(super) fn plot(
    title: &str,
    caption: &str,
    [x, y]: [&str; 2],
    log_y: bool,
    series: Vec<Series>,
) -> Plot {
    Plot {
        title: title.to_owned(),
        caption: caption.to_owned(),
        x: x.to_owned(),
        y: y.to_owned(),
        log_y,
        series: series.into_iter().filter(|series| !series.points.is_empty()).collect(),
    }
}

impl Plot {
    fn scales(&self, frame: &Frame) -> Option<[Scale; 2]> {
        let points = || self.series.iter().flat_map(|s| s.points.iter().copied());
        let bars = self.series.iter().any(|s| s.mark == Mark::Bars);
        let zero = bars.then_some(0.0);
        // Markers at the ends of an axis stay inside it.
        let inset = if self.has_points() { 8.0 } else { 0.0 };
        let (left, right) = (frame.left + inset, frame.width - frame.right - inset);
        let x = Scale::of(points().map(|p| p.0), left, right, false)?;
        let (bottom, top) = (frame.height - frame.bottom - inset, frame.top + inset);
        let y = Scale::of(points().map(|p| p.1).chain(zero), bottom, top, self.log_y)?;
        Some([x, y])
    }

    fn has_points(&self) -> bool {
        self.series.iter().any(|series| series.mark == Mark::Points)
    }

    fn axes(&self, body: &mut String, [x, y]: [&Scale; 2], frame: &Frame) {
        let (right, bottom) = (frame.width - frame.right, frame.height - frame.bottom);
        for (at, label) in y.ticks() {
            grid_line(body, (frame.left, at), (right, at));
            text(body, Anchor::End, frame.left - 6.0, at + 4.0, &label);
        }
        for (at, label) in x.horizontal_ticks() {
            grid_line(body, (at, frame.top), (at, bottom));
            text(body, Anchor::Middle, at, bottom + 17.0, &label);
        }
        x_label(body, frame.left, right, frame.height - 10.0, &self.x);
        let most = Frame::characters(bottom - frame.top);
        let _ = write!(
            body,
            "<text class=\"middle\" transform=\"translate(13 {:.1}) rotate(-90)\">{}</text>",
            (frame.top + bottom) / 2.0,
            escape(&shortened(&[&self.y], most)[0])
        );
    }
}

impl Drawing for Plot {
    fn title(&self) -> &str {
        &self.title
    }

    fn caption(&self) -> &str {
        &self.caption
    }

    fn svg(&self, frame: &Frame) -> Option<Svg> {
        let [x, y] = self.scales(frame)?;
        let mut body = String::new();
        self.axes(&mut body, [&x, &y], frame);
        for series in self.series.iter().enumerate() {
            draw(&mut body, series, [&x, &y], frame.points);
        }
        let (x, y) = (x.attribute(), y.attribute());
        let legend = legend::draw(&mut body, &self.series, frame, frame.height);
        let hover = if self.has_points() { Hover::Points { x, y } } else { Hover::Curves { x, y } };
        Some(Svg {
            title: self.title.clone(),
            width: frame.width,
            height: frame.height,
            full_height: frame.height + legend,
            hover,
            body,
        })
    }

    fn legend(&self) -> String {
        legend::list(&self.series)
    }

    /// Where there are points, rows of series, x, y; otherwise rows of x and a value for each series.
    fn table(&self) -> Table {
        if self.has_points() {
            let head = vec!["series".to_owned(), self.x.clone(), self.y.clone()];
            let rows = self.series.iter().flat_map(|series| {
                let row = |p: &(f64, f64)| vec![series.name.clone(), cell(p.0), cell(p.1)];
                series.points.iter().map(row).collect::<Vec<_>>()
            });
            return Table { head, rows: rows.collect() };
        }
        let mut xs: Vec<f64> =
            self.series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let names = self.series.iter().map(|series| series.name.clone());
        let head = std::iter::once(self.x.clone()).chain(names).collect();
        let rows = xs.iter().map(|x| {
            let cells = self.series.iter().map(|series| {
                let point = series.points.binary_search_by(|p| p.0.total_cmp(x));
                point.map_or_else(|_| String::new(), |i| cell(series.points[i].1))
            });
            std::iter::once(cell(*x)).chain(cells).collect()
        });
        Table { head, rows: rows.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::marks::series;
    use super::*;

    fn example(points: Vec<(f64, f64)>, mark: Mark, log_y: bool) -> Plot {
        plot("t", "c", ["step", "y"], log_y, vec![series("a<b", 0, mark, points)])
    }

    fn drawn(plot: &Plot) -> String {
        plot.svg(&Frame::WIDE).unwrap().in_page("wide")
    }

    #[test]
    fn curves_run_from_edge_to_edge_and_names_are_escaped() {
        let svg = drawn(&example(vec![(0.0, 1.0), (10.0, 3.0)], Mark::Line, false));
        assert!(svg.contains("points=\"72.0,262.0 698.0,12.0\""), "{svg}");
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert!(svg.contains("data-x=\"72 698 0 10 0\""), "{svg}");
    }

    #[test]
    fn values_without_a_place_are_missing_in_the_drawing_and_not_in_the_table() {
        let zero = example(vec![(0.0, 0.0), (1.0, 1.0), (2.0, 100.0)], Mark::Line, true);
        assert!(drawn(&zero).contains("points=\"385.0,262.0 698.0,12.0\""), "{}", drawn(&zero));
        assert_eq!(zero.table().rows.len(), 3);
        for points in [vec![], vec![(1.0, f64::NAN)]] {
            assert!(example(points, Mark::Line, false).svg(&Frame::WIDE).is_none());
        }
        // A single point is visible as a curve, too, and a flat curve lies in the middle.
        assert!(drawn(&example(vec![(1.0, 2.0)], Mark::Line, false)).contains("<path"));
        for points in [vec![(1.0, 2.0)], vec![(0.0, 0.0), (1.0, 0.0)]] {
            let svg = drawn(&example(points, Mark::Points, false));
            assert!(svg.contains("<path") && !svg.contains("NaN"), "{svg}");
        }
    }

    #[test]
    fn series_of_other_steps_share_a_table_with_gaps() {
        let a = series("a", 0, Mark::Line, vec![(0.0, 1.0), (2.0, 3.0)]);
        let b = series("b", 1, Mark::Line, vec![(1.0, 5.0), (2.0, f64::NAN)]);
        let table = plot("t", "", ["x", "y"], false, vec![a, b]).table();
        assert_eq!(table.head, ["x", "a", "b"]);
        assert_eq!(table.rows, [["0", "1", ""], ["1", "", "5"], ["2", "3", ""]]);
    }

    #[test]
    fn labels_stay_inside_both_frames() {
        let long = "a name of an axis that is far longer than the axis itself is wide or high, whatever it measures";
        let points = vec![(0.0, 1e-4), (100_000.0, 1e5)];
        let wide = plot("t", "", [long, long], true, vec![series("s", 0, Mark::Line, points)]);
        for frame in [Frame::WIDE, Frame::NARROW] {
            let svg = wide.svg(&frame).unwrap().in_page("");
            for text in svg.split("<text").skip(1).filter_map(|text| text.split("</text>").next()) {
                let characters = text.split_once('>').unwrap().1.chars().count() as f64;
                assert!(characters * Frame::CHARACTER <= frame.width, "{text}");
            }
        }
    }
}
