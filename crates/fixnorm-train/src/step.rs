//! One training step, and the sums of an epoch.
//! Not here: when to stop, save or validate (`run.rs`).

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor};
use fixnorm::measure::gradient_norms;
use fixnorm::{Roles, clip_grad_norm};
use fixnorm_data::Batch;
use fixnorm_nn::{Classifier, Criterion, StepRng, Targets};
use serde::{Deserialize, Serialize};

use crate::evaluate::{as_large, labels, on_device, pictures};

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

    pub(crate) fn join(&mut self, other: Self) {
        self.loss += other.loss;
        self.hits += other.hits;
        self.pictures += other.pictures;
    }

    pub(crate) fn loss(&self) -> f64 {
        self.loss / self.pictures as f64
    }

    pub(crate) fn top1(&self) -> f64 {
        self.hits as f64 / self.pictures as f64
    }
}

/// What a step was like. Its numbers are the device's until they are read.
pub(crate) struct Stepped {
    parts: Vec<Part>,
    /// By path, where they were asked for.
    pub(crate) gradient_norms: Vec<(String, f64)>,
}

/// Of a batch of a step: the mean loss, and how many pictures were told right, both `[1]`.
struct Part {
    loss: Tensor<1>,
    hits: Tensor<1>,
    pictures: usize,
}

impl Stepped {
    /// The sums of each of these steps. A GPU is waited for, once for all of them.
    pub(crate) fn read(steps: &[&Self]) -> Vec<EpochSums> {
        let parts = steps.iter().flat_map(|step| &step.parts);
        let numbers = parts.flat_map(|part| [part.loss.clone(), part.hits.clone()]).collect();
        let numbers: Vec<f32> = Tensor::cat(numbers, 0).into_data().iter().collect();
        let mut numbers = numbers.chunks_exact(2);
        let mut sums = |step: &&Self| {
            let mut sums = EpochSums::default();
            for (part, numbers) in step.parts.iter().zip(&mut numbers) {
                sums.add(f64::from(numbers[0]), numbers[1] as usize, part.pictures);
            }
            sums
        };
        steps.iter().map(&mut sums).collect()
    }

    /// The loss, which a GPU is waited for.
    pub(crate) fn loss(&self) -> f64 {
        Self::read(&[self])[0].loss()
    }
}

/// What a batch's pictures show, on `device`.
pub(crate) fn targets(batch: &Batch, device: &Device) -> Targets {
    let mixed = batch.mixed.as_ref();
    Targets {
        labels: labels(batch, device),
        mixed: mixed.map(|mixed| (on_device(&mixed.labels, device), f64::from(mixed.lambda))),
    }
}

/// Model and optimizer, which a step takes and gives back.
pub(crate) struct Learner {
    pub(crate) model: Classifier,
    pub(crate) optimizer: ModuleOptimizer,
    pub(crate) criterion: Criterion,
    /// Largest norm of a gradient; 0 for any.
    pub(crate) clip_norm: f64,
    /// Decides, with the step, what is dropped.
    pub(crate) seed: u64,
    /// With autodiff.
    pub(crate) device: Device,
}

impl Learner {
    /// Whether reading a number waits for nothing.
    pub(crate) fn is_at_hand(&self) -> bool {
        self.device == Device::flex()
    }

    /// Takes step number `step` on the mean gradient of `batches`, which are of one size, and returns what it was like. On a
    /// CPU a loss that is not finite leaves everything as it was. Gradients are measured, before they are clipped, where there
    /// are roles that name the weights.
    pub(crate) fn step(
        self,
        batches: Vec<Batch>,
        step: usize,
        lr: impl Into<ModuleLearningRate>,
        measured: Option<&Roles>,
    ) -> (Self, Stepped) {
        let count = batches.len();
        let (mut all, mut parts) = (GradientsAccumulator::new(), vec![]);
        for (part, mut batch) in batches.into_iter().enumerate() {
            let targets = targets(&batch, &self.device);
            let x = pictures(&mut batch, &self.device);
            let rng = StepRng::new(self.seed, step * count + part);
            let (loss, logits, grads) = self.gradients(x, &targets, rng, count);
            let labels = targets.labels.inner();
            let hits = as_large(logits.inner(), labels).equal_scalar(1).int().sum().float();
            let part = Part { loss: loss.inner(), hits, pictures: batch.labels.len() };
            let Some(grads) = grads else {
                return (self, Stepped { parts: vec![part], gradient_norms: vec![] });
            };
            all.accumulate(&self.model, grads);
            parts.push(part);
        }
        let grads = all.grads();
        let norms = measured.map(|roles| gradient_norms(&self.model, roles, &grads));
        (self.update(grads, lr), Stepped { parts, gradient_norms: norms.unwrap_or_default() })
    }

    /// Takes step number `step` on one batch and returns its loss. On a CPU a loss that is not finite leaves everything
    /// as it was.
    pub(crate) fn step_on(
        self,
        x: Tensor<4>,
        labels: Tensor<1, Int>,
        step: usize,
        lr: f64,
    ) -> (Self, f64) {
        let (loss, _, grads) = self.gradients(x, &labels.into(), StepRng::new(self.seed, step), 1);
        let learner = match grads {
            Some(grads) => self.update(grads, lr),
            None => self,
        };
        (learner, loss.into_scalar())
    }

    /// Loss and logits of a batch, and what it adds to the mean gradient of `of` such batches; on a CPU none if the loss is
    /// not finite. Elsewhere looking at it would wait for the device.
    fn gradients(
        &self,
        x: Tensor<4>,
        targets: &Targets,
        rng: StepRng,
        of: usize,
    ) -> (Tensor<1>, Tensor<2>, Option<GradientsParams>) {
        let logits = self.model.forward_train(x, rng);
        let loss = self.criterion.forward(logits.clone(), targets);
        if self.is_at_hand() && !loss.clone().into_scalar::<f64>().is_finite() {
            return (loss, logits, None);
        }
        let part = match of {
            1 => loss.clone(),
            _ => loss.clone().div_scalar(of as f64),
        };
        let grads = GradientsParams::from_grads(part.backward(), &self.model);
        (loss, logits, Some(grads))
    }

    fn update(mut self, grads: GradientsParams, lr: impl Into<ModuleLearningRate>) -> Self {
        let grads = match self.clip_norm {
            0.0 => grads,
            max_norm => clip_grad_norm(&self.model, grads, max_norm).0,
        };
        self.model = self.optimizer.step(lr, self.model, grads);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::{Module, ModuleVisitor, Param};
    use fixnorm_data::Pixels;
    use fixnorm_nn::{Input, ModelSpec};

    const CLASSES: usize = 3;

    fn learner(clip_norm: f64) -> Learner {
        let device = Device::flex().autodiff();
        let recipe = crate::Recipe::default();
        let spec = ModelSpec::find("resnet8").unwrap();
        let model = spec.init(Input { channels: 1, classes: CLASSES }, 0, &device);
        let roles = recipe
            .probe()
            .with_role("*", fixnorm::Role::Free)
            .with_role("fc.weight", fixnorm::Role::Head)
            .run(&model, |_| Tensor::zeros([1], &device))
            .unwrap();
        let (model, optimizer) = recipe.optimizer_config().init(model, &roles).unwrap();
        let criterion = recipe.train.criterion();
        Learner { model, optimizer, criterion, clip_norm, seed: 0, device }
    }

    /// The same eight pictures in every part, each time with other labels. So the batch statistics of a part are those
    /// of all parts together, and the gradient, linear in what the loss sends back, is that of the whole batch.
    fn part(number: usize) -> Batch {
        let pixels = (0..8 * 9 * 7).map(|i: usize| (i * 37 % 101) as f32 / 50.0 - 1.0);
        let labels = (0..8).map(|i| ((i * i + number) % CLASSES) as u32).collect();
        Batch {
            pixels: Pixels::Floats(pixels.collect()),
            labels,
            indices: (0..8).collect(),
            shape: [8, 9, 7, 1],
            mixed: None,
            bad: vec![],
        }
    }

    fn weights(learner: &Learner) -> Vec<f32> {
        struct Values(Vec<f32>);
        impl ModuleVisitor for Values {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if param.is_require_grad() {
                    self.0.extend(param.val().into_data().iter::<f32>());
                }
            }
        }
        let mut values = Values(vec![]);
        learner.model.visit(&mut values);
        values.0
    }

    fn farthest(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn four_parts_are_one_batch() {
        let whole = (0..4).map(part).reduce(|mut all, one| {
            let pixels = [all.pixels.into_floats(), one.pixels.into_floats()].concat();
            all.pixels = Pixels::Floats(pixels);
            all.labels.extend(one.labels);
            all.shape[0] += one.shape[0];
            all
        });
        let step = |batches| {
            let (learner, stepped) = learner(0.0).step(batches, 0, 0.5, None);
            (weights(&learner), stepped.loss(), Stepped::read(&[&stepped])[0])
        };
        let (in_parts, loss, sums) = step((0..4).map(part).collect());
        let (at_once, whole_loss, whole_sums) = step(vec![whole.unwrap()]);
        let first = step(vec![part(0)]).0;
        assert!((loss - whole_loss).abs() < 1e-6, "{loss} {whole_loss}");
        assert_eq!((sums.hits, sums.pictures), (whole_sums.hits, whole_sums.pictures));
        let apart = farthest(&in_parts, &at_once);
        assert!(apart < 1e-5, "{apart}");
        // The parts' own gradients are not those of the whole.
        assert!(farthest(&first, &at_once) > 1e-2);
    }

    #[test]
    fn steps_are_read_in_their_order() {
        let (first, one) = learner(0.0).step(vec![part(0), part(1)], 0, 0.5, None);
        let (_, other) = first.step(vec![part(2)], 1, 0.5, None);
        let both = Stepped::read(&[&one, &other]);
        assert_eq!(both, [Stepped::read(&[&one])[0], Stepped::read(&[&other])[0]]);
        assert_eq!((both[0].pictures, both[1].pictures), (16, 8));
        assert!(both[0].loss() != both[1].loss());
    }

    #[test]
    fn a_clipped_gradient_moves_less() {
        let moved = |clip_norm| {
            let before = weights(&learner(clip_norm));
            let after = learner(clip_norm).step(vec![part(0)], 0, 1.0, None).0;
            let after = weights(&after);
            after.iter().zip(&before).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
        };
        // The first step is the gradient, and the head's is turned back onto its sphere.
        assert!(moved(0.01) <= 0.01 + 1e-6, "{}", moved(0.01));
        assert!(moved(0.0) > 0.1 && (moved(1e6) - moved(0.0)).abs() < 1e-9);
    }
}
