//! What a session leaves behind: checkpoints, and weights and result at the end.
//! Not here: what a checkpoint holds (`session/checkpoint.rs`).

use std::path::PathBuf;
use std::time::Instant;

use fixnorm::Ema;
use fixnorm_analysis::WeightSnapshot;

use super::Session;
use crate::TrainError;
use crate::run_dir::event::{Event, Observer};
use crate::run_dir::{Split, Summary};
use crate::session::further::compare;
use crate::session::outcome::Outcome;
use crate::weights::bundle;

impl Session<'_> {
    /// Writes a checkpoint and removes those that are no longer wanted.
    pub(super) fn save(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.write_checkpoint(observer)?;
        self.checkpoints.prune()
    }

    pub(super) fn write_checkpoint(
        &mut self,
        observer: &mut dyn Observer,
    ) -> Result<PathBuf, TrainError> {
        self.read(observer)?;
        let broken = WeightSnapshot::take(self.model(), &self.roles);
        if broken.norms().any(|(_, norm)| !norm.is_finite()) {
            return Err(self.diverged(self.progress.step, "a weight is not finite".to_owned()));
        }
        compare(self.learner(), self.progress.step)?;
        self.progress.logs = self.logs.lengths()?;
        if let Some(trajectory) = &self.trajectory {
            trajectory.sync()?;
        }
        let learner = self.learner();
        let ema = self.ema.as_ref().map(Ema::model);
        let path =
            self.checkpoints.save(&self.progress, &learner.model, ema, &learner.optimizer)?;
        let event = Event::Checkpoint { step: self.progress.step, path: path.clone() };
        observer.event(&event);
        Ok(path)
    }

    pub(super) fn finish(mut self, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        let clock = Instant::now();
        bundle::save(self.result_model(), self.plan, &self.dir.files().weights_path())?;
        let test = match self.images.loader(Split::Test) {
            Some(_) => Some(self.evaluate(Split::Test, observer)?),
            None => None,
        };
        let last = self.progress.last.clone().ok_or(TrainError::NoEpoch)?;
        let recipe = &self.plan.recipe;
        let seconds = self.progress.seconds;
        let images = self.progress.step * recipe.train.step_size();
        let summary = Summary {
            model: recipe.model.clone(),
            data: recipe.data.clone(),
            epochs: recipe.train.epochs,
            steps: self.progress.step,
            seed: recipe.train.seed,
            train_loss: last.train_loss,
            val_loss: last.val_loss,
            val_top1: last.val_top1,
            val_top5: last.val_top5,
            test_top1: test.map(|test| test.top1),
            bad_pictures: self.images.skipped(),
            images_per_second: images as f64 / seconds,
            seconds: seconds + clock.elapsed().as_secs_f64(),
            out: self.dir.root().to_owned(),
        };
        self.emit(Event::End(summary.clone()), observer)?;
        self.dir.save_result(&summary)?;
        Ok(Outcome::Finished(Box::new(summary)))
    }
}
