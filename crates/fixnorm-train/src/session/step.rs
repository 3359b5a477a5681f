//! One training step: gradients on every device, then the update on the first.
//! Not here: the gradient of a batch (`gradient.rs`), further devices (`replicas.rs`) and processes (`exchange.rs`), when to stop, save or validate
//! (`train.rs`).

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor};
use fixnorm::average::{Averaged, interpolate};
use fixnorm::optim::step_together;
use fixnorm::{Roles, clip_grad_norm};
use fixnorm_analysis::measure::gradient_norms;
use fixnorm_data::Batch;
use fixnorm_nn::{Classifier, Criterion, StepRng};

use crate::ranks::Ranks;
use crate::session::exchange::over_ranks;
use crate::session::gradient::{Gradient, Share, gradients, is_read_at_once};
use crate::session::metrics::StepMetrics;
use crate::session::replicas::Replicas;

/// Model and optimizer. A step consumes the learner and returns it.
pub(crate) struct Learner {
    pub(crate) model: Classifier,
    pub(crate) optimizer: ModuleOptimizer,
    pub(crate) criterion: Criterion,
    /// Largest norm of a gradient.
    pub(crate) clip_norm: Option<f64>,
    /// Decides, with the step, what dropout and drop path leave out.
    pub(crate) seed: u64,
    /// The first device, with autodiff.
    pub(crate) device: Device,
    /// Further devices that share the batches.
    pub(crate) replicas: Replicas,
    /// The processes that share the batches.
    pub(crate) ranks: Ranks,
}

impl Learner {
    /// Whether values are read without waiting for the device.
    pub(crate) fn is_read_at_once(&self) -> bool {
        is_read_at_once(&self.device)
    }

    /// Takes step number `step` on the mean gradient of `batches`, which are of one size, and returns its metrics. On a CPU
    /// a loss that is not finite leaves model and optimizer unchanged. With `measured`, the norms of the gradients of these
    /// weights are returned, as they are before clipping.
    pub(crate) fn step(
        mut self,
        batches: Vec<Batch>,
        step: usize,
        lr: impl Into<ModuleLearningRate>,
        measured: Option<&Roles>,
    ) -> (Self, StepMetrics) {
        let of = batches.len() * (1 + self.replicas.len()) * self.ranks.count();
        let mut shares = self.shares(batches, step).into_iter();
        let own = shares.next().expect("there is a first device");
        self.replicas.start(&self.model, shares, of);
        let (device, peer) = (&self.device, self.replicas.peer());
        let mut gradient = Gradient::compute(&self.model, self.criterion, own, of, device, peer);
        for (joined, (copy, others)) in (1..).zip(self.replicas.finish()) {
            gradient = gradient.add(others, &self.model, device);
            // The mean of the running statistics, as if each copy had seen all images.
            let model = self.model.valid().train();
            self.model =
                interpolate(model, &copy, 1.0 / f64::from(joined + 1), Averaged::Statistics);
        }
        if self.ranks.count() > 1 {
            let with_statistics = self.replicas.peer().is_none();
            (self.model, gradient) = over_ranks(&self.ranks, self.model, gradient, with_statistics);
        }
        let Gradient { batches, grads } = gradient;
        let Some(grads) = grads else {
            return (self, StepMetrics { batches, gradient_norms: vec![] });
        };
        let norms = measured.map(|roles| gradient_norms(&self.model, roles, &grads));
        let metrics = StepMetrics { batches, gradient_norms: norms.unwrap_or_default() };
        (self.update(grads, lr), metrics)
    }

    /// The batches of step number `step`, shared evenly among the devices of all ranks: the shares of this rank's devices, the
    /// first one's first.
    fn shares(&self, batches: Vec<Batch>, step: usize) -> Vec<Vec<Share>> {
        let (count, devices) = (batches.len(), 1 + self.replicas.len());
        let (all, first) = (devices * self.ranks.count(), devices * self.ranks.rank());
        let mut shares: Vec<Vec<Share>> = vec![vec![]; devices];
        for (part, batch) in batches.into_iter().enumerate() {
            let own = batch.split(all).into_iter().skip(first).take(devices);
            for (device, batch) in own.enumerate() {
                let draw = (step * count + part) * all + first + device;
                shares[device].push((batch, StepRng::new(self.seed, draw)));
            }
        }
        shares
    }

    /// Takes step number `step` on one batch, on the first device, and returns its loss, which a GPU may not have computed
    /// yet. On a CPU a loss that is not finite leaves model and optimizer unchanged.
    pub(crate) fn step_on(
        self,
        x: Tensor<4>,
        labels: Tensor<1, Int>,
        step: usize,
        lr: f64,
    ) -> (Self, Tensor<1>) {
        let rng = StepRng::new(self.seed, step);
        let (loss, _, grads) =
            gradients(&self.model, self.criterion, x, &labels.into(), rng, 1, None);
        let learner = match grads {
            Some(grads) => self.update(grads, lr),
            None => self,
        };
        (learner, loss.inner())
    }

    fn update(mut self, grads: GradientsParams, lr: impl Into<ModuleLearningRate>) -> Self {
        let grads = match self.clip_norm {
            None => grads,
            Some(max_norm) => clip_grad_norm(&self.model, grads, max_norm).0,
        };
        self.model = step_together(&mut self.optimizer, lr, self.model, grads);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::threads;
    use burn::module::{ModuleVisitor, Param};
    use fixnorm_data::Pixels;
    use fixnorm_nn::{Input, ModelSpec};

    const CLASSES: usize = 3;

    fn learner(clip_norm: Option<f64>) -> Learner {
        let device = Device::flex().autodiff();
        let mut recipe = crate::Recipe::default();
        recipe.optimizer.step_rule = Some(fixnorm::StepRule::Raw);
        let recipe = recipe.resolved();
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
        let (replicas, ranks) = (Replicas::default(), Ranks::default());
        Learner { model, optimizer, criterion, clip_norm, seed: 0, device, replicas, ranks }
    }

    /// The same eight images in every part, each time with other labels. So the batch statistics of a part are those of all
    /// parts together, and the mean of the parts' gradients is the gradient of the whole batch.
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

    /// A model's learned values, or all of them.
    fn values(learner: &Learner, all: bool) -> Vec<f32> {
        struct Values(bool, Vec<f32>);
        impl ModuleVisitor for Values {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if self.0 || param.is_require_grad() {
                    self.1.extend(param.val().into_data().iter::<f32>());
                }
            }
        }
        let mut values = Values(all, vec![]);
        // Through `valid`, which brings running statistics up to date.
        learner.model.valid().train().visit(&mut values);
        values.1
    }

    fn weights(learner: &Learner) -> Vec<f32> {
        values(learner, false)
    }

    fn farthest(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn four_parts_are_one_batch() {
        let whole = joined((0..4).map(part));
        let step = |batches| {
            let (learner, stepped) = learner(None).step(batches, 0, 0.5, None);
            (weights(&learner), stepped.loss(), StepMetrics::read(&[&stepped])[0])
        };
        let (in_parts, loss, totals) = step((0..4).map(part).collect());
        let (at_once, whole_loss, whole_totals) = step(vec![whole]);
        let first = step(vec![part(0)]).0;
        assert!((loss - whole_loss).abs() < 1e-6, "{loss} {whole_loss}");
        assert_eq!((totals.correct, totals.images), (whole_totals.correct, whole_totals.images));
        let apart = farthest(&in_parts, &at_once);
        assert!(apart < 1e-5, "{apart}");
        // The parts' own gradients are not those of the whole.
        assert!(farthest(&first, &at_once) > 1e-2);
    }

    #[test]
    fn steps_are_read_in_their_order() {
        let (first, one) = learner(None).step(vec![part(0), part(1)], 0, 0.5, None);
        let (_, other) = first.step(vec![part(2)], 1, 0.5, None);
        let both = StepMetrics::read(&[&one, &other]);
        assert_eq!(both, [StepMetrics::read(&[&one])[0], StepMetrics::read(&[&other])[0]]);
        assert_eq!((both[0].images, both[1].images), (16, 8));
        assert!(both[0].loss() != both[1].loss());
    }

    fn shared(devices: usize, together: bool) -> Learner {
        let mut learner = learner(None);
        let further = vec![Device::flex(); devices - 1];
        learner.replicas = Replicas::new(further, learner.criterion, together, &learner.ranks);
        learner
    }

    /// Each normalizes its own share.
    fn on_devices(devices: usize) -> Learner {
        shared(devices, false)
    }

    fn together(devices: usize) -> Learner {
        shared(devices, true)
    }

    fn joined(parts: impl IntoIterator<Item = Batch>) -> Batch {
        let join = |mut all: Batch, one: Batch| {
            let pixels = [all.pixels.into_floats(), one.pixels.into_floats()].concat();
            all.pixels = Pixels::Floats(pixels);
            all.labels.extend(one.labels);
            all.indices.extend(one.indices);
            all.shape[0] += one.shape[0];
            all
        };
        parts.into_iter().reduce(join).unwrap()
    }

    #[test]
    fn several_devices_are_one() {
        let steps = |devices| {
            let mut learner = on_devices(devices);
            let mut read = vec![];
            for step in 0..3 {
                let batches = vec![joined((0..4).map(part)), joined((4..8).map(part))];
                let stepped;
                (learner, stepped) = learner.step(batches, step, 0.1, None);
                read.push(StepMetrics::read(&[&stepped])[0]);
            }
            (weights(&learner), read)
        };
        let (one, read) = steps(1);
        for devices in [2, 4] {
            let (several, read_there) = steps(devices);
            assert!(farthest(&one, &several) < 1e-4, "{devices}: {}", farthest(&one, &several));
            for (one, several) in read.iter().zip(&read_there) {
                assert!((one.loss() - several.loss()).abs() < 1e-5, "{one:?} {several:?}");
                assert_eq!((one.correct, one.images), (several.correct, several.images));
            }
        }
        // They are not each other's first step.
        assert!(farthest(&one, &weights(&on_devices(1))) > 1e-2);
    }

    #[test]
    fn running_statistics_are_the_mean_over_devices() {
        let brighter = |mut batch: Batch| {
            let pixels = batch.pixels.into_floats().into_iter().map(|pixel| 2.0 * pixel + 1.0);
            batch.pixels = Pixels::Floats(pixels.collect());
            batch
        };
        let step =
            |devices, batch| values(&on_devices(devices).step(vec![batch], 0, 0.0, None).0, true);
        let (dark, bright) = (part(0), brighter(part(1)));
        let own = [dark.clone(), bright.clone()].map(|batch| step(1, batch));
        let expected: Vec<f32> = own[0].iter().zip(&own[1]).map(|(a, b)| (a + b) / 2.0).collect();
        let found = step(2, joined([dark, bright]));
        let apart = [&expected, &own[0], &own[1]].map(|other| farthest(&found, other));
        assert!(apart[0] < 1e-6 && apart[1] > 0.01 && apart[2] > 0.01, "{apart:?}");
    }

    /// Different images, each part brighter than the last.
    fn brighter(number: usize) -> Batch {
        let mut batch = part(number);
        let pixels = batch.pixels.into_floats().into_iter().enumerate();
        let changed = |(i, pixel): (usize, f32)| {
            pixel * (1.0 + number as f32) + ((i * (7 + number)) % 13) as f32 / 5.0
        };
        batch.pixels = Pixels::Floats(pixels.map(changed).collect());
        batch
    }

    #[test]
    fn devices_that_normalize_together_are_one() {
        let steps = |mut learner: Learner| {
            for step in 0..3 {
                let batches = vec![joined((0..4).map(brighter)), joined((4..8).map(brighter))];
                learner = learner.step(batches, step, 0.1, None).0;
            }
            values(&learner, true)
        };
        let one = steps(on_devices(1));
        for devices in [2, 4] {
            let apart = farthest(&one, &steps(together(devices)));
            let alone = farthest(&one, &steps(on_devices(devices)));
            // Running statistics too.
            assert!(apart < 1e-3 && alone > 1e-2, "{devices}: {apart} {alone}");
        }
    }

    #[test]
    fn a_loss_that_breaks_on_any_device_leaves_the_weights_alone() {
        let mut broken = part(1);
        broken.pixels = Pixels::Floats(vec![f32::NAN; broken.pixels.len()]);
        for batch in [[broken.clone(), part(0)], [part(0), broken]] {
            let before = weights(&on_devices(2));
            let (after, stepped) = on_devices(2).step(vec![joined(batch.clone())], 0, 0.5, None);
            assert!(stepped.loss().is_nan());
            assert_eq!(weights(&after), before);
            let (after, stepped) = together(2).step(vec![joined(batch)], 0, 0.5, None);
            assert!(stepped.loss().is_nan());
            assert_eq!(weights(&after), before);
        }
    }

    /// On the first of `devices`, among ranks.
    fn ranked(ranks: Ranks, devices: usize, together: bool) -> Learner {
        let mut learner = learner(None);
        let further = vec![Device::flex(); devices - 1];
        learner.replicas = Replicas::new(further, learner.criterion, together, &ranks);
        learner.ranks = ranks;
        learner
    }

    #[test]
    fn ranks_are_devices() {
        let steps = |mut learner: Learner| {
            let mut read = vec![];
            for step in 0..3 {
                let batches = vec![joined((0..4).map(brighter)), joined((4..8).map(brighter))];
                let stepped;
                (learner, stepped) = learner.step(batches, step, 0.1, None);
                read.push(StepMetrics::read(&[&stepped])[0]);
            }
            (values(&learner, true), read)
        };
        for together in [false, true] {
            let (expected, read) = steps(shared(4, together));
            for (ranks, devices) in [(4, 1), (2, 2)] {
                let found = threads::run(ranks, |ranks| steps(ranked(ranks, devices, together)));
                for (values, read_there) in &found {
                    // Equal on all ranks, running statistics included.
                    assert_eq!(*values, found[0].0);
                    let apart = farthest(values, &expected);
                    assert!(apart < 1e-4, "{ranks} × {devices}, {together}: {apart}");
                    for (one, other) in read.iter().zip(read_there) {
                        assert!((one.loss() - other.loss()).abs() < 1e-5, "{one:?} {other:?}");
                        assert_eq!((one.correct, one.images), (other.correct, other.images));
                    }
                }
            }
        }
    }

    #[test]
    fn a_loss_that_breaks_on_any_rank_leaves_the_weights_of_all_alone() {
        let mut broken = part(1);
        broken.pixels = Pixels::Floats(vec![f32::NAN; broken.pixels.len()]);
        let before = weights(&learner(None));
        for together in [false, true] {
            let after = threads::run(2, |ranks| {
                let batch = joined([part(0), broken.clone()]);
                let (after, stepped) = ranked(ranks, 1, together).step(vec![batch], 0, 0.5, None);
                (weights(&after), stepped.loss().is_nan())
            });
            assert_eq!(after, vec![(before.clone(), true); 2]);
        }
    }

    #[test]
    #[should_panic(expected = "3 classes")]
    fn a_panic_on_another_device_is_the_steps() {
        let mut wrong = part(0);
        wrong.labels[0] = CLASSES as u32;
        let batch = || vec![joined([part(0), wrong.clone()])];
        let together = std::panic::catch_unwind(|| together(2).step(batch(), 0, 0.5, None));
        assert!(together.is_err());
        on_devices(2).step(batch(), 0, 0.5, None);
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
        assert!(moved(Some(0.01)) <= 0.01 + 1e-6, "{}", moved(Some(0.01)));
        assert!(moved(None) > 0.1 && (moved(Some(1e6)) - moved(None)).abs() < 1e-9);
    }
}
