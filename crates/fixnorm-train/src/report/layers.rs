//! Plots of one run with a curve for each layer.

use fixnorm::Role;
use fixnorm_analysis::LayerMeasure;

use super::heat_map::HeatMap;
use super::marks::{Mark, Series, series, thinned};
use super::page::Page;
use super::plot::plot;
use crate::run_dir::History;
use crate::run_dir::event::MeasureRecord;

/// Points of a curve at most: a page has many curves.
const POINTS: usize = 160;
/// Columns of the map of norms at most.
const COLUMNS: usize = 60;

/// Norm, effective learning rate, angular update and gradient of every weight over the steps.
pub(super) fn layers(page: &mut Page, run: &History, name: &str) {
    let Some(first) = run.measures.first() else { return };
    let scale_invariant = Some(Role::ScaleInvariant);
    page.figure(&plot(
        &format!("Effective learning rate of {name}"),
        "lr/‖w‖² of scale-invariant weights: the size of a step relative to the weight. Under FixNorm the curves \
         follow the schedule; under weight decay they result from the norms.",
        ["step", "lr/‖w‖²"],
        true,
        measured(run, scale_invariant, |l| Some(l.effective_lr), Mark::Line),
    ));
    let mut angles = measured(run, scale_invariant, |l| Some(l.angular_update), Mark::Line);
    let theory = measured(run, scale_invariant, |l| l.equilibrium, Mark::Dashed);
    angles.extend(theory.into_iter().next().map(|theory| Series {
        name: "theory: equilibrium under decay".to_owned(),
        colour: 6,
        ..theory
    }));
    page.figure(&plot(
        &format!("Angular update of {name}"),
        "The angle between a weight before and after a step. Dashed, under weight decay: the equilibrium that theory \
         expects at the step's learning rate.",
        ["step", "radians"],
        true,
        angles,
    ));
    let gradients = measured(run, None, |l| l.gradient_norm, Mark::Line);
    page.figure(&plot(&format!("Gradient norm of {name}"), "", ["step", "‖∇L‖"], true, gradients));
    let columns: Vec<&MeasureRecord> = thinned(&run.measures, COLUMNS).collect();
    let rows = first.layers.iter().enumerate().map(|(index, layer)| {
        // Rounding alone moves a norm that is held by a few parts in ten million.
        let log_ratio = |l: &LayerMeasure| ((l.norm / layer.norm).log2() * 1e4).round() / 1e4 + 0.0;
        let values = columns.iter().map(|m| m.layers.get(index).map_or(f64::NAN, log_ratio));
        (layer.path.clone(), values.collect())
    });
    page.figure(&HeatMap {
        title: format!("Norms of {name}"),
        caption: "Each weight's norm over its first one, as log2: 1 is twice as large.".to_owned(),
        x: "step".to_owned(),
        columns: columns.iter().map(|measure| measure.step as f64).collect(),
        rows: rows.collect(),
    });
}

/// A series for each weight with this role, or for all weights, where it was measured.
fn measured(
    run: &History,
    role: Option<Role>,
    of: fn(&LayerMeasure) -> Option<f64>,
    mark: Mark,
) -> Vec<Series> {
    let layers = run.measures.first().into_iter().flat_map(|first| first.layers.iter().enumerate());
    let layers = layers.filter(|(_, layer)| role.is_none_or(|role| layer.role == role));
    layers
        .map(|(index, layer)| {
            let points = thinned(&run.measures, POINTS).filter_map(|measure| {
                let layer = measure.layers.get(index)?;
                Some((measure.step as f64, of(layer)?))
            });
            series(&layer.path, index, mark, points.collect())
        })
        .filter(|series| !series.points.is_empty())
        .collect()
}
