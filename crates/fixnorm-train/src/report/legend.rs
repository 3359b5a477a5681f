//! Legends: as a list of the page, which wraps at any width, and inside an SVG that is saved as a file.

use std::fmt::Write;

use super::frame::Frame;
use super::marks::{Series, sample};
use super::names::shortened;
use super::svg::{Anchor, escape, text};

const ROW: f64 = 19.0;
/// Width of the sample, and of the gaps around it.
const SAMPLE: f64 = 30.0;
const GAP: f64 = 16.0;
/// Characters of a name on the page.
const MOST: usize = 44;

fn names(series: &[Series], most: usize) -> Vec<String> {
    let names: Vec<&str> = series.iter().map(|series| series.name.as_str()).collect();
    shortened(&names, most)
}

/// As a list; hovering over an entry picks out its series. The whole name is shown on hover.
pub(super) fn list(series: &[Series]) -> String {
    let mut html = String::from("<ul class=\"legend\">");
    for (index, (series, name)) in series.iter().zip(names(series, MOST)).enumerate() {
        let mut key = String::new();
        sample(&mut key, (index, series), 1.0, 7.0);
        let _ = write!(
            html,
            "<li data-i=\"{index}\" title=\"{}\"><svg viewBox=\"0 0 24 14\" aria-hidden=\"true\">{key}</svg>{}</li>",
            escape(&series.name),
            escape(&name)
        );
    }
    html.push_str("</ul>");
    html
}

/// Appends it under a drawing that ends at `top`; returns its height.
pub(super) fn draw(body: &mut String, series: &[Series], frame: &Frame, top: f64) -> f64 {
    let whole = frame.width - frame.left - frame.right;
    let names = names(series, Frame::characters(whole - SAMPLE));
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    // As many columns as the longest name has room in.
    let column = SAMPLE + longest as f64 * Frame::CHARACTER + GAP;
    let columns = ((whole + GAP) / column).floor().clamp(1.0, 4.0) as usize;
    body.push_str("<g class=\"legend\">");
    for (index, (series, name)) in series.iter().zip(&names).enumerate() {
        let x = frame.left + (index % columns) as f64 * column;
        let y = top + 8.0 + (index / columns) as f64 * ROW;
        sample(body, (index, series), x, y);
        text(body, Anchor::Start, x + SAMPLE, y + 4.0, name);
    }
    body.push_str("</g>");
    4.0 + ROW * series.len().div_ceil(columns) as f64
}

#[cfg(test)]
mod tests {
    use super::super::marks::{Mark, series};
    use super::*;

    /// Left edges and texts of a legend, by row.
    fn entries(names: &[&str], frame: &Frame) -> Vec<(f64, f64, String)> {
        let series: Vec<Series> =
            names.iter().map(|name| series(name, 0, Mark::Line, vec![])).collect();
        let mut body = String::new();
        draw(&mut body, &series, frame, 0.0);
        let texts = body.split("<text x=\"").skip(1).map(|text| {
            let (x, rest) = text.split_once("\" y=\"").unwrap();
            let (y, rest) = rest.split_once("\">").unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            (x, y, rest.split_once('<').unwrap().0.to_owned())
        });
        texts.collect()
    }

    #[test]
    fn no_entry_runs_into_its_neighbour_or_over_the_edge() {
        let sets: [&[&str]; 3] = [
            &["training, while the weights moved", "validation", "training, augmented"],
            &["a", "b", "c", "d", "e"],
            &[&"directory/".repeat(20), &"folder/".repeat(30)],
        ];
        for names in sets {
            for frame in [Frame::WIDE, Frame::NARROW] {
                let found = entries(names, &frame);
                assert_eq!(found.len(), names.len());
                for (i, (x, y, name)) in found.iter().enumerate() {
                    let end = x + name.chars().count() as f64 * Frame::CHARACTER;
                    assert!(end <= frame.width, "{name} ends at {end} of {}", frame.width);
                    for (next, row, _) in &found[i + 1..] {
                        assert!(row > y || end <= *next, "{name} ends at {end}, next at {next}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_list_has_the_whole_name_as_title() {
        let name = format!("{}<end>", "long/".repeat(20));
        let html = list(&[series(&name, 0, Mark::Line, vec![])]);
        assert!(html.contains(&format!("title=\"{}\"", escape(&name))), "{html}");
        assert!(html.contains('…') && !html.contains("<end>"));
    }
}
