//! The result of a study of any knobs and any metric, for people and programs.
//! Not here: how the two-knob search chooses (`choice.rs`).

use crate::choice::{Choice, choose};
use crate::search::Told;
use crate::store::{Store, StoreError, Study, TrialRow};
use serde_json::{Map, Value, json};

/// A study's result so far, of any number of knobs.
pub struct StudyResult {
    /// Definition of the study.
    pub study: Study,
    /// Every trial.
    pub trials: Vec<TrialRow>,
    /// The choice of a two-knob search.
    pub choice: Option<Choice>,
}

impl StudyResult {
    /// Reads a study.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn of(store: &dyn Store) -> Result<Self, StoreError> {
        let (study, trials) = (store.study().clone(), store.trials()?);
        let history: Vec<Told> = trials.iter().map(TrialRow::told).collect();
        let is_ours = study.search.name() == "two-knob";
        let space = study.search.space().filter(|_| is_ours);
        let choice = space.and_then(|space| choose(space, &history, study.noise));
        Ok(Self { study, trials, choice })
    }

    /// The best trial: the choice of the two-knob search, the largest score otherwise.
    pub fn best(&self) -> Option<&TrialRow> {
        if let Some(choice) = &self.choice {
            return self.trials.get(choice.trial);
        }
        let scored = self.trials.iter().filter_map(|t| Some((t.outcome().score()?, t)));
        scored.reduce(|best, other| if other.0 > best.0 { other } else { best }).map(|(_, t)| t)
    }

    /// The values of a trial's knobs by name.
    pub fn knobs(&self, trial: &TrialRow) -> Map<String, Value> {
        let axes = self.study.search.axes().iter().zip(&trial.point);
        axes.map(|(axis, &x)| (axis.name.clone(), json!(axis.value(x)))).collect()
    }

    /// The mean over seeds of a trial's metric, if all seeds have one.
    pub fn value(&self, trial: &TrialRow) -> Option<f64> {
        trial.outcome().score().map(|score| self.study.metric.flip(score))
    }

    /// As JSON, as the command prints it: `best` and `trials`, and `choice` of the two-knob search.
    pub fn to_json(&self) -> Value {
        let metric = &self.study.metric;
        let best = self.best().map(|trial| {
            let mut best = self.knobs(trial);
            best.insert(metric.name.clone(), json!(self.value(trial)));
            best.insert("trial".to_owned(), json!(trial.number));
            best
        });
        let trials = self.trials.iter().map(|trial| {
            let mut row = self.knobs(trial);
            let (state, std) = trial.outcome().state();
            row.insert("trial".to_owned(), json!(trial.number));
            row.insert("state".to_owned(), json!(state));
            row.insert(metric.name.clone(), json!(self.value(trial)));
            row.insert("std".to_owned(), json!(std));
            row.insert("cost".to_owned(), json!(trial.cost()));
            row.insert("seeds".to_owned(), self.seeds(trial));
            row
        });
        let choice = self.choice.as_ref().map(|choice| {
            json!({"score": choice.score, "noise": choice.noise, "within_noise": choice.within_noise, "next": choice.next})
        });
        json!({
            "best": best,
            "choice": choice,
            "metric": metric,
            "trials": trials.collect::<Vec<_>>(),
        })
    }

    fn seeds(&self, trial: &TrialRow) -> Value {
        let metric = &self.study.metric;
        let seeds = trial.jobs.iter().map(|job| {
            let curve: Vec<Value> = job
                .curve
                .iter()
                .map(|epoch| json!({"step": epoch.epoch, (metric.name.as_str()): metric.flip(epoch.val_top1)}))
                .collect();
            json!({
                "seed": job.seed,
                "state": job.state,
                "attempt": job.attempt,
                (metric.name.as_str()): job.val_top1.map(|score| metric.flip(score)),
                "diverged": job.diverged,
                "reason": job.reason,
                "started_ms": job.started_ms,
                "ended_ms": job.ended_ms,
                "curve": curve,
            })
        });
        seeds.collect()
    }
}
