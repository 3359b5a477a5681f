//! The end of an epoch: validation, measurements of the features.

use burn::tensor::Device;
use fixnorm_analysis::RiskConfig;

use super::{Session, Speed};
use crate::evaluate::{FeatureSet, evaluate};
use crate::run_dir::Split;
use crate::run_dir::event::{EpochRecord, Event, Observer, RiskRecord, Validation};
use crate::session::checkpoint::EpochResult;
use crate::{Evaluation, TrainError};

impl Session<'_> {
    /// Validates, if that is due, and advances to the next epoch.
    pub(super) fn end_epoch(
        &mut self,
        speed: Speed,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let epoch = self.progress.epoch;
        let (done, epochs) = (epoch + 1, self.plan.recipe.train.epochs);
        let is_due = done.is_multiple_of(self.plan.recipe.eval.every_epochs) || done == epochs;
        let validation = if is_due { Some(self.validate(observer)?) } else { None };
        let totals = std::mem::take(&mut self.progress.totals);
        self.progress.epoch += 1;
        self.progress.batch = 0;
        self.progress.last = validation.as_ref().map(|val| EpochResult {
            train_loss: totals.loss(),
            val_loss: val.val_loss,
            val_top1: val.val_top1,
            val_top5: val.val_top5,
        });
        let record = EpochRecord {
            epoch,
            step: self.progress.step,
            train_loss: totals.loss(),
            train_top1: totals.top1(),
            validation,
            images_per_second: speed.images_per_second,
            data_wait: speed.data_wait,
        };
        self.emit(Event::Epoch(record), observer)?;
        let every = self.plan.recipe.log.risk_every_epochs;
        if every.is_some_and(|every| done.is_multiple_of(every) || done == epochs) {
            self.measure_risk(epoch, observer)?;
        }
        Ok(())
    }

    fn validate(&mut self, observer: &mut dyn Observer) -> Result<Validation, TrainError> {
        let val = self.evaluate(Split::Val, observer)?;
        if !val.loss.is_finite() {
            return Err(
                self.diverged(self.progress.step, format!("the validation loss is {}", val.loss))
            );
        }
        Ok(Validation { val_loss: val.loss, val_top1: val.top1, val_top5: val.top5 })
    }

    /// Measures cross-boundary risk, margins, calibration and class means. Where they cannot be measured, for example since all
    /// features are equal, the run continues.
    fn measure_risk(
        &mut self,
        epoch: usize,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let most = self.plan.recipe.log.risk_pictures;
        let device: Device = self.learner().device.clone().inner();
        for (part, loader) in self.images.risk.clone() {
            let set = FeatureSet::of_model(self.result_model(), &loader, most, &device)?;
            let measured = set
                .risk(&RiskConfig::default())
                .and_then(|risk| Ok((Some(risk), Some(set.separation()?), None)));
            let (risk, separation, failed) =
                measured.unwrap_or_else(|error| (None, None, Some(error.to_string())));
            let step = self.progress.step;
            let record = RiskRecord { epoch, step, part, risk, separation, failed };
            self.emit(Event::Risk(record), observer)?;
        }
        Ok(())
    }

    pub(super) fn evaluate(
        &mut self,
        part: Split,
        observer: &mut dyn Observer,
    ) -> Result<Evaluation, TrainError> {
        let device: Device = self.learner().device.clone().inner();
        let loader = self.images.loader(part).expect("only splits that exist are evaluated");
        match evaluate(self.result_model(), loader, self.plan.recipe.eval.flip, &device) {
            Ok(mut evaluation) => {
                self.note_bad(part, std::mem::take(&mut evaluation.bad), observer)?;
                Ok(evaluation)
            }
            Err(error) => Err(self.failed(part, error, observer)),
        }
    }
}
