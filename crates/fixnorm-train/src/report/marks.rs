//! Series of points and how they are drawn: lines, points, bars.
//!
//! Colours are CSS classes, so that the page's light, dark and print styles reach them; series differ in dash and
//! marker, too, for those who do not see colours and for printers without them.

use std::fmt::Write;

use super::scale::Scale;

/// A curve or a cloud of points.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// In the legend and in the head of the table.
    pub(super) name: String,
    /// In any order for points, from left to right for curves.
    pub(super) points: Vec<(f64, f64)>,
    pub(super) mark: Mark,
    /// Number of its colour; theory and measurement of one thing share it.
    pub(super) colour: usize,
}

/// A series.
pub(super) fn series(name: &str, colour: usize, mark: Mark, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.to_owned(), points, mark, colour }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Line,
    /// Theory beside measurement.
    Dashed,
    Points,
    /// Bars from zero up, as wide as the distance between points.
    Bars,
}

/// Number of different colours. The ninth series has the first colour again, dotted or with another shape.
pub(super) const COLOURS: usize = 8;

/// At most about `most` of the values, evenly spread; the first and the last are among them.
pub(super) fn thinned<T>(values: &[T], most: usize) -> impl Iterator<Item = &T> {
    let step = values.len().div_ceil(most).max(1);
    let last = values.last().filter(|_| values.len() % step != 1 && step > 1);
    values.iter().step_by(step).chain(last)
}

/// Appends a series, number `index` of its drawing; curves have at most about `most` points.
pub(super) fn draw(
    body: &mut String,
    (index, series): (usize, &Series),
    [x, y]: [&Scale; 2],
    most: usize,
) {
    let places: Vec<(f64, f64)> =
        series.points.iter().filter_map(|p| Some((x.at(p.0)?, y.at(p.1)?))).collect();
    let colour = series.colour % COLOURS;
    let _ = write!(body, "<g data-i=\"{index}\">");
    match series.mark {
        Mark::Line | Mark::Dashed => line(body, series, &places, most),
        Mark::Points => {
            for place in places {
                point(body, series.colour, place);
            }
        }
        Mark::Bars => bars(body, colour, &places, y),
    }
    body.push_str("</g>");
}

fn line(body: &mut String, series: &Series, places: &[(f64, f64)], most: usize) {
    let colour = series.colour % COLOURS;
    // A line needs two points.
    if let [(x, y)] = places {
        let left = x - 3.0;
        let _ = write!(
            body,
            "<path class=\"line c{colour}\" d=\"M{left:.1} {y:.1}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0\"/>"
        );
        return;
    }
    let class = match series.mark {
        Mark::Dashed => "line dashed",
        _ if series.colour >= COLOURS => "line dotted",
        _ => "line",
    };
    let places: Vec<String> =
        thinned(places, most).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(body, "<polyline class=\"{class} c{colour}\" points=\"{}\"/>", places.join(" "));
}

fn point(body: &mut String, colour: usize, (x, y): (f64, f64)) {
    // Circle, square, diamond, triangle: four shapes beside eight colours.
    let path = match (colour + colour / COLOURS) % 4 {
        0 => format!("M{:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", x - 4.0),
        1 => format!("M{:.1} {:.1}h7v7h-7z", x - 3.5, y - 3.5),
        2 => format!("M{x:.1} {:.1}l5 5l-5 5l-5 -5z", y - 5.0),
        _ => format!("M{x:.1} {:.1}l5 9h-10z", y - 5.0),
    };
    let _ = write!(body, "<path class=\"point c{}\" d=\"{path}\"/>", colour % COLOURS);
}

fn bars(body: &mut String, colour: usize, places: &[(f64, f64)], y: &Scale) {
    let Some(zero) = y.at(0.0) else { return };
    let width = places.windows(2).map(|w| w[1].0 - w[0].0).fold(f64::INFINITY, f64::min);
    let width = if width.is_finite() { width.max(1.0) } else { 8.0 };
    for (x, y) in places {
        let (left, height) = (x - width / 2.0, (zero - y).max(0.0));
        let _ = write!(
            body,
            "<rect class=\"bar c{colour}\" x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        );
    }
}

/// Appends a sample of a series for a legend: 22 wide, its middle at height `y`.
pub(super) fn sample(body: &mut String, (index, series): (usize, &Series), x: f64, y: f64) {
    let sample = Series {
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
    draw(body, (index, &sample), [&Scale::unit(x, x + 22.0), &Scale::unit(y, y)], 2);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_curves_are_thinned_and_keep_their_ends() {
        let values: Vec<usize> = (0..10_000).collect();
        let found: Vec<usize> = thinned(&values, 160).copied().collect();
        assert_eq!((found.len(), found[1], found[found.len() - 1]), (160, 63, 9999));
        assert_eq!(thinned(&values[..3], 160).count(), 3);
        for length in 0..40 {
            let found: Vec<usize> = thinned(&values[..length], 7).copied().collect();
            assert_eq!(found.last(), values[..length].last(), "{length}");
            assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{length}: {found:?}");
        }
    }

    #[test]
    fn nan_is_left_out_and_one_point_is_a_circle() {
        let scale = Scale::unit(0.0, 100.0);
        let drawn = |points: Vec<(f64, f64)>| {
            let mut body = String::new();
            draw(&mut body, (0, &series("", 0, Mark::Line, points)), [&scale, &scale], 100);
            body
        };
        let curve = drawn(vec![(0.0, 0.0), (0.5, f64::NAN), (1.0, 1.0)]);
        assert!(curve.contains("points=\"0.0,0.0 100.0,100.0\""), "{curve}");
        assert!(drawn(vec![(0.0, 1.0), (0.5, f64::NAN)]).contains("<path"));
        assert!(!drawn(vec![(0.0, f64::NAN)]).contains("NaN"));
    }
}
