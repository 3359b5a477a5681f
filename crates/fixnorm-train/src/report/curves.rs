//! Quantities of a run over its epochs, as points of curves.
//! Not here: quantities of single layers (`layers.rs`).

use fixnorm::{Role, StepRule};
use fixnorm_analysis::LayerMeasure;
use fixnorm_analysis::migrate::geometric_mean;

use crate::run_dir::event::MeasureRecord;
use crate::run_dir::{EpochRecord, History};

/// Points of a curve.
pub(super) type Points = Vec<(f64, f64)>;

/// Points of a curve of step losses: each is the mean of as many steps as this leaves.
const BINS: usize = 160;

/// A value of each epoch that has it.
pub(super) fn by_epoch(run: &History, of: fn(&EpochRecord) -> Option<f64>) -> Points {
    run.epochs.iter().filter_map(|e| Some(((e.epoch + 1) as f64, of(e)?))).collect()
}

/// The epochs that are done once `step` is taken, with a fraction.
fn epochs(run: &History, step: usize) -> f64 {
    (step + 1) as f64 / run.plan.derived.steps_per_epoch.max(1) as f64
}

/// Loss of the logged steps, smoothed by means over neighbours.
pub(super) fn step_loss(run: &History) -> Points {
    let points: Points = run.steps.iter().map(|s| (epochs(run, s.step), s.loss)).collect();
    binned(&points, BINS)
}

/// Learning rate of the logged steps.
pub(super) fn learning_rate(run: &History) -> Points {
    let steps = super::marks::thinned(&run.steps, BINS);
    steps.map(|s| (epochs(run, s.step), s.lr)).collect()
}

/// The angle that the schedule asks for, under the angular step rule alone.
pub(super) fn scheduled_angle(run: &History) -> Points {
    let angles = match run.plan.recipe.optimizer.step_rule() {
        StepRule::Angular => learning_rate(run),
        _ => vec![],
    };
    // The scale is logarithmic.
    angles.into_iter().filter(|(_, angle)| *angle > 0.0).collect()
}

/// Geometric mean over scale-invariant weights at each measurement.
pub(super) fn layer_mean(run: &History, of: fn(&LayerMeasure) -> Option<f64>) -> Points {
    let measures = super::marks::thinned(&run.measures, BINS);
    measures.filter_map(|m| Some((epochs(run, m.step), mean_of(m, of)?))).collect()
}

/// The mean over those weights that have a value above 0: a weight without a gradient does not turn.
fn mean_of(measure: &MeasureRecord, of: fn(&LayerMeasure) -> Option<f64>) -> Option<f64> {
    let layers = measure.layers.iter().filter(|layer| layer.role == Role::ScaleInvariant);
    geometric_mean(layers.filter_map(of).filter(|value| *value != 0.0))
}

/// Means of neighbours, so that about `most` points remain.
fn binned(points: &[(f64, f64)], most: usize) -> Points {
    let mean = |bin: &[(f64, f64)]| {
        let count = bin.len() as f64;
        let x = bin[bin.len() - 1].0;
        (x, bin.iter().map(|point| point.1).sum::<f64>() / count)
    };
    points.chunks(points.len().div_ceil(most).max(1)).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_means_at_their_last_step() {
        let points: Points = (0..10).map(|i| (f64::from(i), f64::from(i))).collect();
        assert_eq!(binned(&points, 3), [(3.0, 1.5), (7.0, 5.5), (9.0, 8.5)]);
        assert_eq!(binned(&points, 10), points);
        assert!(binned(&[], 10).is_empty());
    }
}
