//! One training step, and the sums of an epoch.
//! Not here: when to stop, save or validate (`run.rs`).

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor};
use fixnorm::Roles;
use fixnorm::measure::gradient_norms;
use fixnorm_data::Batch;
use fixnorm_nn::loss::cross_entropy;
use fixnorm_nn::{Classifier, StepRng};
use serde::{Deserialize, Serialize};

use crate::evaluate::{hits, labels, pictures};

/// Loss and hits of an epoch so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EpochSums {
    loss: f64,
    hits: usize,
    pub(crate) pictures: usize,
}

impl EpochSums {
    fn add(&mut self, loss: f64, hits: usize, pictures: usize) {
        self.loss += loss * pictures as f64;
        self.hits += hits;
        self.pictures += pictures;
    }

    pub(crate) fn loss(&self) -> f64 {
        self.loss / self.pictures as f64
    }

    pub(crate) fn top1(&self) -> f64 {
        self.hits as f64 / self.pictures as f64
    }
}

/// What a step was like.
pub(crate) struct Stepped {
    /// Of its batch.
    pub(crate) loss: f64,
    /// By path, where they were asked for.
    pub(crate) gradient_norms: Vec<(String, f64)>,
}

/// Model and optimizer, which a step takes and gives back.
pub(crate) struct Learner {
    pub(crate) model: Classifier,
    pub(crate) optimizer: ModuleOptimizer,
    pub(crate) label_smoothing: f64,
    /// Decides, with the step, what is dropped.
    pub(crate) seed: u64,
    /// With autodiff.
    pub(crate) device: Device,
}

impl Learner {
    /// Takes step number `step`, adds to the epoch's sums, and returns what it was like.
    pub(crate) fn step(
        self,
        mut batch: Batch,
        step: usize,
        lr: impl Into<ModuleLearningRate>,
        sums: &mut EpochSums,
        measured: Option<&Roles>,
    ) -> (Self, Stepped) {
        let (labels, x) = (labels(&batch, &self.device), pictures(&mut batch, &self.device));
        let (learner, stepped, logits) = self.step_on(x, labels, step, lr, measured);
        if stepped.loss.is_finite() {
            let logits: Vec<f32> = logits.into_data().iter().collect();
            sums.add(stepped.loss, hits(&logits, &batch.labels).0, batch.labels.len());
        }
        (learner, stepped)
    }

    /// Takes step number `step` and returns what it was like and its logits. A loss that is not finite leaves
    /// everything as it was. Gradients are measured where there are roles that name the weights.
    pub(crate) fn step_on(
        mut self,
        x: Tensor<4>,
        labels: Tensor<1, Int>,
        step: usize,
        lr: impl Into<ModuleLearningRate>,
        measured: Option<&Roles>,
    ) -> (Self, Stepped, Tensor<2>) {
        let logits = self.model.forward_train(x, StepRng::new(self.seed, step));
        let loss = cross_entropy(logits.clone(), labels, self.label_smoothing);
        let value = loss.clone().into_scalar::<f64>();
        let mut stepped = Stepped { loss: value, gradient_norms: vec![] };
        if value.is_finite() {
            let grads = GradientsParams::from_grads(loss.backward(), &self.model);
            if let Some(roles) = measured {
                stepped.gradient_norms = gradient_norms(&self.model, roles, &grads);
            }
            self.model = self.optimizer.step(lr, self.model, grads);
        }
        (self, stepped, logits)
    }
}
