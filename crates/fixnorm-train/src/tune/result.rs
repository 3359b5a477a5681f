//! A study's result: the choice, every trial, and a recipe with both knobs set.

use fixnorm_tune::search::Told;
use fixnorm_tune::store::{JobRow, Store, StoreError, TrialRow};
use fixnorm_tune::{Choice, Outcome, choose};
use serde_json::{Value, json};

use crate::tune::knobs::Knobs;
use crate::{Plan, TrainError};

/// A study's result so far.
pub struct Tuned {
    /// The best trial and how sure that is; none while no trial has a score.
    pub choice: Option<Choice>,
    /// Every trial.
    pub trials: Vec<TrialRow>,
    /// The knobs.
    pub knobs: Knobs,
    /// Whether an estimate of the choice was beyond all accuracies, and is given as the nearest one.
    pub is_clamped: bool,
}

impl Tuned {
    /// Reads a study.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn of(store: &dyn Store, knobs: Knobs) -> Result<Self, StoreError> {
        let trials = store.trials()?;
        let history: Vec<Told> = trials.iter().map(TrialRow::told).collect();
        let mut choice = store
            .study()
            .search
            .space()
            .and_then(|space| choose(space, &history, store.study().noise));
        let is_clamped = choice.as_mut().is_some_and(|choice| {
            let estimates = [&mut choice.score, &mut choice.optimum_score];
            estimates.map(|estimate| clamp(&mut estimate.mean)).contains(&true)
        });
        Ok(Self { choice, trials, knobs, is_clamped })
    }

    /// The settings of the best trial.
    pub fn best(&self) -> Option<([f64; 2], &TrialRow)> {
        let choice = self.choice.as_ref()?;
        Some((choice.point.map(f64::exp2), self.trials.get(choice.trial)?))
    }

    /// The mean of a result over all runs of the best setting, and their number; none if one of them lacks it.
    pub fn best_mean(&self, of: impl Fn(&JobRow) -> Option<f64>) -> Option<(f64, usize)> {
        let (_, best) = self.best()?;
        let same = self.trials.iter().filter(|trial| trial.point == best.point);
        let complete = same.flat_map(|trial| &trial.jobs).filter(|job| !job.state.is_open());
        let values: Vec<f64> = complete.map(of).collect::<Option<_>>()?;
        let count = values.len();
        (count > 0).then(|| (values.iter().sum::<f64>() / count as f64, count))
    }

    /// As JSON, as the command prints it: `best`, `choice` and `trials`.
    pub fn to_json(&self) -> Value {
        let knobs = |values: [f64; 2]| self.knobs.named(values);
        let best = self.best().map(|(values, trial)| {
            let mut best = knobs(values);
            let top1 = self.best_mean(|job| job.val_top1);
            best.insert("val_top1".to_owned(), json!(top1.map(|(mean, _)| mean)));
            let loss = self.best_mean(|job| job.val_loss);
            best.insert("val_loss".to_owned(), json!(loss.map(|(mean, _)| mean)));
            best.insert("runs".to_owned(), json!(top1.map(|(_, count)| count)));
            best.insert("trial".to_owned(), json!(trial.number));
            best
        });
        let choice = self.choice.as_ref().map(|choice| {
            json!({
                "score": choice.score,
                "noise": choice.noise,
                "noise_measured": choice.noise_measured,
                "within_noise": choice.within_noise,
                "optimum": knobs(choice.optimum.map(f64::exp2)),
                "optimum_score": choice.optimum_score,
                "optimum_std_octaves": choice.optimum_std,
                "curvature": choice.curvature,
                "clamped": self.is_clamped,
                "next": choice.next,
            })
        });
        let trials = self.trials.iter().map(|trial| {
            let mut row = knobs(trial.told().point.map(f64::exp2));
            let told = trial.told().outcome;
            let (state, std) = told.state();
            row.insert("trial".to_owned(), json!(trial.number));
            row.insert("state".to_owned(), json!(state));
            row.insert("val_top1".to_owned(), json!(told.score()));
            row.insert("std".to_owned(), json!(std));
            row.insert("cost".to_owned(), json!(trial.cost()));
            row.insert("seeds".to_owned(), json!(trial.jobs));
            row
        });
        json!({"best": best, "choice": choice, "trials": trials.collect::<Vec<_>>()})
    }
}

/// The plan's recipe with both knobs at the choice, as a file's text.
///
/// # Errors
/// No trial with a score.
pub fn tuned_recipe(tuned: &Tuned, plan: &Plan) -> Result<String, TrainError> {
    let (Some((values, _)), Some(choice)) = (tuned.best(), &tuned.choice) else {
        return Err(TrainError::NoScore);
    };
    let (top1, runs) = tuned.best_mean(|job| job.val_top1).unwrap_or((f64::NAN, 0));
    let recipe = tuned.knobs.set(&plan.recipe, values)?;
    let [first, second] = tuned.knobs.keys();
    let done = tuned.trials.iter().filter(|trial| trial.told().outcome != Outcome::Pending).count();
    Ok(format!(
        "# {} on {}: {first} and {second} tuned in {done} trials.\n# Validation accuracy {top1:.4}, {runs} seed(s); chosen \
         with an error of {:.4}.\n{}",
        recipe.model,
        recipe.data,
        choice.score.std,
        recipe.to_toml()
    ))
}

/// Moves an estimate by a fit to the nearest value that an accuracy can have. True if it was moved.
fn clamp(accuracy: &mut f64) -> bool {
    let estimated = *accuracy;
    *accuracy = estimated.clamp(0.0, 1.0);
    *accuracy != estimated
}

#[cfg(test)]
mod tests {
    use super::clamp;

    #[test]
    fn no_estimate_of_an_accuracy_is_above_1() {
        for (estimated, expected) in [(1.003, 1.0), (-0.1, 0.0), (1.0, 1.0), (0.42, 0.42)] {
            let mut accuracy = estimated;
            assert_eq!((clamp(&mut accuracy), accuracy), (estimated != expected, expected));
        }
    }
}
