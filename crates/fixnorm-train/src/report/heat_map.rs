//! A grid of values, darker for more.

use std::fmt::Write;

use super::figure::{Drawing, Table};
use super::frame::Frame;
use super::names::shortened;
use super::number::{cell, short};
use super::scale::Scale;
use super::svg::{Anchor, Hover, Svg, text, x_label};

/// A value for every cell of a grid.
#[derive(Clone, Debug)]
pub(super) struct HeatMap {
    pub(super) title: String,
    pub(super) caption: String,
    /// What the columns are.
    pub(super) x: String,
    /// From left to right.
    pub(super) columns: Vec<f64>,
    /// From top to bottom: a name and a value for each column.
    pub(super) rows: Vec<(String, Vec<f64>)>,
}

const ROW: f64 = 18.0;

impl Drawing for HeatMap {
    fn title(&self) -> &str {
        &self.title
    }

    fn caption(&self) -> &str {
        &self.caption
    }

    fn svg(&self, frame: &Frame) -> Option<Svg> {
        let values = self.rows.iter().flat_map(|row| row.1.iter().copied());
        let opacity = Scale::of(values, 0.08, 1.0, false).filter(|_| !self.columns.is_empty())?;
        let (left, right) = (frame.names, frame.width - frame.right);
        let width = (right - left) / self.columns.len() as f64;
        let mut body = String::new();
        let names: Vec<&str> = self.rows.iter().map(|row| row.0.as_str()).collect();
        let names = shortened(&names, Frame::characters(left - 10.0));
        for (index, ((_, values), name)) in self.rows.iter().zip(&names).enumerate() {
            let top = frame.top + ROW * index as f64;
            text(&mut body, Anchor::End, left - 6.0, top + 13.0, name);
            for (column, value) in values.iter().enumerate() {
                let Some(opacity) = opacity.at(*value) else { continue };
                let _ = write!(
                    body,
                    "<rect class=\"heat\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{}\" opacity=\"{opacity:.2}\"/>",
                    left + width * column as f64,
                    width + 0.5,
                    ROW - 1.0
                );
            }
        }
        let bottom = frame.top + ROW * self.rows.len() as f64;
        let edges = Hover::Cells([left, right, frame.top, bottom]);
        self.columns_below(&mut body, frame, bottom);
        let range = self.range();
        let y = bottom + 54.0;
        text(&mut body, Anchor::Middle, frame.width / 2.0, y, &range);
        let height = y + 10.0;
        Some(Svg {
            title: self.title.clone(),
            width: frame.width,
            height,
            full_height: height,
            hover: edges,
            body,
        })
    }

    /// A row for each column of the drawing.
    fn table(&self) -> Table {
        let names = self.rows.iter().map(|row| row.0.clone());
        let head = std::iter::once(self.x.clone()).chain(names).collect();
        let rows = self.columns.iter().enumerate().map(|(column, x)| {
            let cells =
                self.rows.iter().map(|row| row.1.get(column).map_or(String::new(), |v| cell(*v)));
            std::iter::once(cell(*x)).chain(cells).collect()
        });
        Table { head, rows: rows.collect() }
    }
}

impl HeatMap {
    /// The values of the lightest and the darkest cell.
    fn range(&self) -> String {
        let values = self.rows.iter().flat_map(|row| row.1.iter().copied());
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if low < high {
            format!("lightest {}, darkest {}", short(low), short(high))
        } else {
            format!("{} in every cell", short(low))
        }
    }

    /// The first and the last column and what columns are.
    fn columns_below(&self, body: &mut String, frame: &Frame, bottom: f64) {
        let (left, right) = (frame.names, frame.width - frame.right);
        if let [first, .., last] = self.columns[..] {
            text(body, Anchor::Start, left, bottom + 16.0, &short(first));
            text(body, Anchor::End, right, bottom + 16.0, &short(last));
        } else if let [only] = self.columns[..] {
            text(body, Anchor::Middle, (left + right) / 2.0, bottom + 16.0, &short(only));
        }
        x_label(body, left, right, bottom + 34.0, &self.x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(values: [f64; 6]) -> HeatMap {
        HeatMap {
            title: "norms".to_owned(),
            caption: String::new(),
            x: "step".to_owned(),
            columns: vec![0.0, 10.0, 20.0],
            rows: vec![
                ("a".to_owned(), values[..3].to_vec()),
                ("b".to_owned(), values[3..].to_vec()),
            ],
        }
    }

    #[test]
    fn every_value_has_a_cell_and_nan_has_none() {
        let cells = |map: &HeatMap| {
            let svg = map.svg(&Frame::WIDE).unwrap().in_page("wide");
            assert!(!svg.contains("NaN"), "{svg}");
            svg.matches("class=\"heat\"").count()
        };
        let whole = map([1.0, 2.0, 3.0, 3.0, 2.0, 1.0]);
        assert_eq!(cells(&whole), 6);
        assert_eq!(whole.table().rows[2], ["20", "3", "1"]);
        let torn = map([1.0, 2.0, f64::NAN, f64::INFINITY, 2.0, 1.0]);
        assert_eq!(cells(&torn), 4);
        assert_eq!(torn.table().rows[2], ["20", "", "1"]);
        let text = |map: &HeatMap| map.svg(&Frame::WIDE).unwrap().body;
        assert!(text(&torn).contains("lightest 1, darkest 2"));
        assert!(text(&map([0.5; 6])).contains("0.5 in every cell"));
        assert!(map([f64::NAN; 6]).svg(&Frame::WIDE).is_none());
    }
}
