//! Distances of features to class boundaries, and cross-boundary risk.

use fixnorm_analysis::Risk;
use fixnorm_analysis::risk::RiskAt;

use super::figure::Table;
use super::marks::{Mark, series};
use super::plot::{Plot, plot};

/// Histograms of d/σ, as shares of the images: bars for one, lines for several.
pub(super) fn distances(title: &str, risks: &[(&str, &Risk)]) -> Plot {
    let mark = if risks.len() == 1 { Mark::Bars } else { Mark::Line };
    let curves = risks.iter().enumerate().map(|(colour, (name, risk))| {
        let histogram = &risk.distance.histogram;
        let width = (histogram.to - histogram.from) / histogram.counts.len() as f64;
        let points = histogram.counts.iter().enumerate().map(|(bin, count)| {
            (histogram.from + (bin as f64 + 0.5) * width, *count as f64 / risk.count as f64)
        });
        series(name, colour, mark, points.collect())
    });
    plot(
        title,
        "d/σ: the distance to the nearest class boundary over the spread of the features of a class. Images left of \
         zero are misclassified; the first and the last bin include all values beyond.",
        ["d/σ", "share of images"],
        false,
        curves.collect(),
    )
}

/// Risk at each τ: a row for each, with the name of the run or part.
pub(super) fn risk_table(risks: &[(String, &Risk)]) -> Table {
    let head = ["images", "number", "tau", "risk", "standard error", "lower bound", "upper bound"];
    let rows = risks.iter().flat_map(|(name, risk)| {
        risk.risk.iter().map(|at: &RiskAt| {
            let values = [at.cbr, at.standard_error, at.lower, at.upper];
            let start = [name.clone(), risk.count.to_string(), at.tau.to_string()];
            start.into_iter().chain(values.map(|value| format!("{value:.5}"))).collect()
        })
    });
    Table { head: head.map(str::to_owned).to_vec(), rows: rows.collect() }
}
