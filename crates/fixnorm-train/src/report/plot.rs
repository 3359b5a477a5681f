//! Plots as inline SVG, each with the table it is drawn from.
//! Not here: which plots there are (`sections.rs`), the page around them (`page.rs`).
//!
//! Colours are CSS classes, so that the page's light, dark and print styles reach them; series differ in dash and
//! marker, too, for those who do not see colours and for printers without them.

use std::fmt::Write;

use super::page::escape;

/// A curve or a cloud of points.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// In the legend and the table's head.
    pub(crate) name: String,
    /// In any order for points, from left to right for curves.
    pub(crate) points: Vec<(f64, f64)>,
    /// Drawn as.
    pub(crate) mark: Mark,
    /// Number of its colour; theory and measurement of one thing share it.
    pub(crate) colour: usize,
}

pub(super) fn series(name: &str, colour: usize, mark: Mark, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.to_owned(), points, mark, colour }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Line,
    /// Theory beside measurement.
    Dashed,
    Points,
    /// Bars from zero up, as wide as the distance between points.
    Bars,
}

/// Axes with series on them.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    /// What to look for, in a sentence.
    pub(crate) caption: String,
    pub(crate) x: String,
    pub(crate) y: String,
    /// Whether y is drawn by its logarithm; values that have none are left out.
    pub(crate) log_y: bool,
    pub(crate) series: Vec<Series>,
}

/// A value for every cell of a grid, darker for more.
#[derive(Clone, Debug)]
pub(crate) struct HeatMap {
    pub(crate) title: String,
    pub(crate) caption: String,
    /// From left to right.
    pub(crate) x: String,
    pub(crate) columns: Vec<f64>,
    /// From top to bottom: name and a value for each column.
    pub(crate) rows: Vec<(String, Vec<f64>)>,
}

pub(super) const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
pub(super) const RIGHT: f64 = 12.0;
pub(super) const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// A number as people write it.
pub(crate) fn number(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        v if !v.is_finite() => v.to_string(),
        v if (1e-3..1e5).contains(&v.abs()) => {
            let digits = (3 - v.abs().log10().floor() as i32).clamp(0, 6) as usize;
            let text = format!("{v:.digits$}");
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text,
            }
        }
        v => {
            let text = format!("{v:.2e}");
            let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

/// A number in a table, to six digits; empty where there is none.
pub(super) fn cell(value: f64) -> String {
    if value.is_nan() {
        return String::new();
    }
    let rounded = format!("{value:.5e}").parse::<f64>();
    rounded.map_or_else(|_| value.to_string(), |rounded| rounded.to_string())
}

/// Round values that divide a range into about five parts, `least` or more apart.
fn ticks(from: f64, to: f64, least: f64) -> Vec<f64> {
    let raw = (to - from) / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw);
    let step = step.unwrap_or(power).max(least);
    let first = (from / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|v| *v <= to + step * 1e-9).collect()
}

/// From data to picture along one axis.
pub(super) struct Scale {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) log: bool,
    /// Whether all values are whole, as epochs are: nothing is to be read between two.
    pub(super) whole: bool,
}

impl Scale {
    pub(super) fn of(
        values: impl Iterator<Item = f64>,
        low: f64,
        high: f64,
        log: bool,
    ) -> Option<Self> {
        let values = values.map(|v| if log { v.log10() } else { v }).filter(|v| v.is_finite());
        let (from, to, whole) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY, true), |(a, b, whole), v| {
                (a.min(v), b.max(v), whole && v.fract() == 0.0)
            });
        if from > to {
            return None;
        }
        // A flat curve lies in the middle.
        let room = match to > from {
            true => 0.0,
            false => from.abs().max(1.0) * 0.05,
        };
        Some(Self { from: from - room, to: to + room, low, high, log, whole })
    }

    fn at(&self, value: f64) -> Option<f64> {
        let value = if self.log { value.log10() } else { value };
        let share = (value - self.from) / (self.to - self.from);
        value.is_finite().then_some(self.low + share * (self.high - self.low))
    }

    /// Positions and labels.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let values = match self.log {
            false => ticks(self.from, self.to, if self.whole { 1.0 } else { 0.0 }),
            true if self.to - self.from < 1.0 => {
                let (from, to) = (10f64.powf(self.from), 10f64.powf(self.to));
                ticks(from, to, 0.0).into_iter().filter(|v| *v > 0.0).collect()
            }
            true => {
                let decades = self.from.ceil() as i32..=self.to.floor() as i32;
                decades.map(|decade| 10f64.powi(decade)).collect()
            }
        };
        values.into_iter().filter_map(|v| Some((self.at(v)?, number(v)))).collect()
    }
}

impl Plot {
    /// Whether there is anything to draw.
    pub(crate) fn has_data(&self) -> bool {
        self.scales().is_some()
    }

    fn scales(&self) -> Option<(Scale, Scale)> {
        let points = || self.series.iter().flat_map(|s| s.points.iter().copied());
        let bars = self.series.iter().any(|s| s.mark == Mark::Bars);
        let zero = bars.then_some(0.0);
        let x = Scale::of(points().map(|p| p.0), LEFT, WIDTH - RIGHT, false)?;
        let y = Scale::of(points().map(|p| p.1).chain(zero), HEIGHT - BOTTOM, TOP, self.log_y)?;
        Some((x, y))
    }

    /// As an SVG element, legend included.
    pub(crate) fn svg(&self) -> String {
        let Some((x, y)) = self.scales() else { return String::new() };
        let legend_rows = self.series.len().div_ceil(3);
        let height = HEIGHT + 18.0 * legend_rows as f64;
        let mut svg = open(&self.title, height);
        axes(&mut svg, &x, &y, &self.x, &self.y);
        for (index, series) in self.series.iter().enumerate() {
            draw(&mut svg, series, &x, &y);
            let (column, row) = ((index % 3) as f64, (index / 3) as f64);
            let (at, line) = (LEFT + column * 216.0, HEIGHT + 8.0 + 18.0 * row);
            let key = Series {
                points: match series.mark {
                    Mark::Points => vec![(0.5, 0.0)],
                    _ => vec![(0.0, 0.0), (1.0, 0.0)],
                },
                mark: match series.mark {
                    Mark::Bars => Mark::Line,
                    mark => mark,
                },
                ..series.clone()
            };
            let flat =
                |low, high| Scale { from: 0.0, to: 1.0, low, high, log: false, whole: false };
            draw(&mut svg, &key, &flat(at, at + 22.0), &flat(line - 4.0, line - 4.0));
            let name = shortened(&series.name, 30);
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{line:.1}\">{}</text>",
                at + 28.0,
                escape(&name)
            );
        }
        svg.push_str("</svg>");
        svg
    }

    /// Head and rows: x, then a column for each series.
    pub(crate) fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let scatter = self.series.iter().any(|series| series.mark == Mark::Points);
        if scatter {
            let head = vec!["series".to_owned(), self.x.clone(), self.y.clone()];
            let rows = self.series.iter().flat_map(|series| {
                let row = |p: &(f64, f64)| vec![series.name.clone(), cell(p.0), cell(p.1)];
                series.points.iter().map(row).collect::<Vec<_>>()
            });
            return (head, rows.collect());
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
        (head, rows.collect())
    }
}

pub(super) fn open(title: &str, height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{}\" xmlns=\"http://www.w3.org/2000/svg\">",
        escape(title)
    )
}

fn axes(svg: &mut String, x: &Scale, y: &Scale, x_label: &str, y_label: &str) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for (at, label) in y.ticks() {
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/><text class=\"end\" x=\"{}\" y=\"{:.1}\">{label}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for (at, label) in x.ticks() {
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/><text class=\"middle\" x=\"{at:.1}\" y=\"{}\">{label}</text>",
            bottom + 16.0
        );
    }
    let middle = (TOP + bottom) / 2.0;
    let _ = write!(
        svg,
        "<text class=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text><text class=\"middle\" transform=\"translate(12 {middle:.1}) rotate(-90)\">{}</text>",
        (LEFT + right) / 2.0,
        HEIGHT - 10.0,
        escape(x_label),
        escape(y_label)
    );
}

/// Colours that differ for most people's eyes; the ninth series has the first one's again, dotted or with another shape.
const COLOURS: usize = 8;

pub(super) fn draw(svg: &mut String, series: &Series, x: &Scale, y: &Scale) {
    let colour = series.colour % COLOURS;
    let places = series.points.iter().filter_map(|p| Some((x.at(p.0)?, y.at(p.1)?)));
    match series.mark {
        Mark::Line | Mark::Dashed => {
            let class = match series.mark {
                Mark::Dashed => "line dashed",
                _ if series.colour >= COLOURS => "line dotted",
                _ => "line",
            };
            let places: Vec<(f64, f64)> = places.collect();
            if let [(x, y)] = places[..] {
                // A line needs two.
                let left = x - 3.0;
                let _ = write!(
                    svg,
                    "<path class=\"line c{colour}\" d=\"M{left:.1} {y:.1}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0\"/>"
                );
                return;
            }
            let places: Vec<String> =
                places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = write!(
                svg,
                "<polyline class=\"{class} c{colour}\" points=\"{}\"/>",
                places.join(" ")
            );
        }
        Mark::Points => {
            for (x, y) in places {
                // Circle, square, diamond, triangle: four shapes beside eight colours.
                let path = match (series.colour + series.colour / COLOURS) % 4 {
                    0 => format!("M{:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", x - 4.0),
                    1 => format!("M{:.1} {:.1}h7v7h-7z", x - 3.5, y - 3.5),
                    2 => format!("M{x:.1} {:.1}l5 5l-5 5l-5 -5z", y - 5.0),
                    _ => format!("M{x:.1} {:.1}l5 9h-10z", y - 5.0),
                };
                let _ = write!(svg, "<path class=\"point c{colour}\" d=\"{path}\"/>");
            }
        }
        Mark::Bars => {
            let places: Vec<(f64, f64)> = places.collect();
            let Some(zero) = y.at(0.0) else { return };
            let width = places.windows(2).map(|w| w[1].0 - w[0].0).fold(f64::INFINITY, f64::min);
            let width = if width.is_finite() { width.max(1.0) } else { 8.0 };
            for (x, y) in places {
                let (left, height) = (x - width / 2.0, (zero - y).max(0.0));
                let _ = write!(
                    svg,
                    "<rect class=\"bar c{colour}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
                );
            }
        }
    }
}

pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        // Paths differ at their ends.
        true => {
            format!("…{}", text.chars().skip(text.chars().count() - most + 1).collect::<String>())
        }
        false => text.to_owned(),
    }
}

impl HeatMap {
    /// Whether there is anything to draw.
    pub(crate) fn has_data(&self) -> bool {
        !self.columns.is_empty() && !self.rows.is_empty()
    }

    /// As an SVG element.
    pub(crate) fn svg(&self) -> String {
        const ROW: f64 = 16.0;
        const NAMES: f64 = 210.0;
        let height = TOP + ROW * self.rows.len() as f64 + BOTTOM;
        let mut svg = open(&self.title, height);
        let values = || self.rows.iter().flat_map(|row| row.1.iter().copied());
        let Some(scale) = Scale::of(values(), 0.08, 1.0, false) else { return String::new() };
        let width = (WIDTH - NAMES - RIGHT) / self.columns.len().max(1) as f64;
        for (index, (name, values)) in self.rows.iter().enumerate() {
            let top = TOP + ROW * index as f64;
            let name = escape(&shortened(name, 34));
            let _ = write!(
                svg,
                "<text class=\"end\" x=\"{}\" y=\"{:.1}\">{name}</text>",
                NAMES - 6.0,
                top + 12.0
            );
            for (column, value) in values.iter().enumerate() {
                let Some(share) = scale.at(*value) else { continue };
                let left = NAMES + width * column as f64;
                let _ = write!(
                    svg,
                    "<rect class=\"heat\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{}\" opacity=\"{share:.3}\"/>",
                    width + 0.5,
                    ROW - 1.0
                );
            }
        }
        let bottom = TOP + ROW * self.rows.len() as f64 + 16.0;
        let ends = [(self.columns.first(), 0.0), (self.columns.last(), 1.0)];
        for (value, at) in ends.into_iter().filter_map(|(value, at)| Some((value?, at))) {
            let x = NAMES + at * (WIDTH - NAMES - RIGHT);
            let class = if at == 0.0 { "start" } else { "end" };
            let _ = write!(
                svg,
                "<text class=\"{class}\" x=\"{x:.1}\" y=\"{bottom:.1}\">{}</text>",
                number(*value)
            );
        }
        let _ = write!(
            svg,
            "<text class=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}; lightest {}, darkest {}</text></svg>",
            (WIDTH + NAMES) / 2.0,
            bottom + 16.0,
            escape(&self.x),
            number(scale.from),
            number(scale.to)
        );
        svg
    }

    /// Head and rows: a row for each column of the picture.
    pub(crate) fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let names = self.rows.iter().map(|row| row.0.clone());
        let head = std::iter::once(self.x.clone()).chain(names).collect();
        let rows = self.columns.iter().enumerate().map(|(column, x)| {
            let cells =
                self.rows.iter().map(|row| row.1.get(column).map_or(String::new(), |v| cell(*v)));
            std::iter::once(cell(*x)).chain(cells).collect()
        });
        (head, rows.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>, mark: Mark, log_y: bool) -> Plot {
        let series = Series { name: "a<b".to_owned(), points, mark, colour: 0 };
        let text = |text: &str| text.to_owned();
        Plot {
            title: text("t"),
            caption: text("c"),
            x: text("step"),
            y: text("y"),
            log_y,
            series: vec![series],
        }
    }

    #[test]
    fn curves_run_from_edge_to_edge_and_names_are_escaped() {
        let svg = plot(vec![(0.0, 1.0), (10.0, 3.0)], Mark::Line, false).svg();
        assert!(svg.contains("points=\"64.0,256.0 708.0,12.0\""), "{svg}");
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out_of_the_picture_and_not_of_the_table() {
        let zero = plot(vec![(0.0, 0.0), (1.0, 1.0), (2.0, 100.0)], Mark::Line, true);
        assert!(zero.svg().contains("points=\"386.0,256.0 708.0,12.0\""), "{}", zero.svg());
        assert_eq!(zero.table().1.len(), 3);
        assert!(!plot(vec![], Mark::Line, false).has_data());
        assert!(!plot(vec![(1.0, f64::NAN)], Mark::Line, false).has_data());
        // A single point is seen as a curve, too, and a flat curve lies in the middle.
        assert!(plot(vec![(1.0, 2.0)], Mark::Line, false).svg().contains("<path"));
        for points in [vec![(1.0, 2.0)], vec![(0.0, 0.0), (1.0, 0.0)]] {
            let svg = plot(points, Mark::Points, false).svg();
            assert!(svg.contains("<path") && !svg.contains("NaN"), "{svg}");
        }
    }

    #[test]
    fn ticks_are_round_and_numbers_short() {
        assert_eq!(ticks(0.0, 10.0, 0.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(-0.3, 0.3, 0.0).len(), 3);
        let epochs = Scale::of([1.0, 2.0].into_iter(), 0.0, 1.0, false).unwrap();
        assert_eq!(epochs.ticks(), [(0.0, "1".to_owned()), (1.0, "2".to_owned())]);
        let numbers = [0.5, 1234.0, 0.0123456, 1e-7, 0.0, -2.5].map(number);
        assert_eq!(numbers, ["0.5", "1234", "0.01235", "1e-7", "0", "-2.5"]);
    }

    #[test]
    fn heat_map_has_a_cell_for_every_value() {
        let map = HeatMap {
            title: "norms".to_owned(),
            caption: String::new(),
            x: "step".to_owned(),
            columns: vec![0.0, 10.0, 20.0],
            rows: vec![
                ("a".to_owned(), vec![1.0, 2.0, 3.0]),
                ("b".to_owned(), vec![3.0, 2.0, 1.0]),
            ],
        };
        assert_eq!(map.svg().matches("class=\"heat\"").count(), 6);
        assert_eq!(map.table().1[2], ["20", "3", "1"]);
    }
}
