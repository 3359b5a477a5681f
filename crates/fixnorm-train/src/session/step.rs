//! One training step, and the sums of an epoch.
//! Not here: when to stop, save or validate (`train.rs`), further devices (`replicas.rs`).

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Int, Tensor};
use fixnorm::{Roles, clip_grad_norm};
use fixnorm_analysis::measure::gradient_norms;
use fixnorm_data::Batch;
use fixnorm_nn::{Classifier, Criterion, Peer, StepRng, Targets};
use serde::{Deserialize, Serialize};

use crate::evaluate::{as_large, labels, on_device, pictures};
use crate::session::average::{Of, toward};
use crate::session::replicas::Replicas;

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

/// A batch, and what is drawn at random for it.
pub(crate) type Shown = (Batch, StepRng);

/// What batches came to.
pub(crate) struct Found {
    parts: Vec<Part>,
    /// The sum of their gradients; on a CPU none if a loss is not finite.
    grads: Option<GradientsParams>,
}

impl Found {
    /// What batches come to, of all `of` of a step, on `device`; with a peer, together with the other devices.
    pub(crate) fn of(
        model: &Classifier,
        criterion: Criterion,
        batches: Vec<Shown>,
        of: usize,
        device: &Device,
        peer: Option<&Peer>,
    ) -> Self {
        let Some(peer) = peer else {
            return Self::of_all(model, criterion, batches, of, device);
        };
        let found = peer.run(|| Self::of_all(model, criterion, batches, of, device));
        if found.grads.is_none() {
            // The others may be on their ways back.
            peer.leave();
        }
        found
    }

    fn of_all(
        model: &Classifier,
        criterion: Criterion,
        batches: Vec<Shown>,
        of: usize,
        device: &Device,
    ) -> Self {
        let (mut all, mut parts) = (GradientsAccumulator::new(), vec![]);
        for (mut batch, rng) in batches {
            let targets = targets(&batch, device);
            let x = pictures(&mut batch, device);
            let (loss, logits, grads) = gradients(model, criterion, x, &targets, rng, of);
            let labels = targets.labels.inner();
            let hits = as_large(logits.inner(), labels).equal_scalar(1).int().sum().float();
            parts.push(Part { loss: loss.inner(), hits, pictures: batch.labels.len() });
            match grads {
                Some(grads) => all.accumulate(model, grads),
                None => return Self { parts, grads: None },
            }
        }
        Self { parts, grads: Some(all.grads()) }
    }

    /// With what a copy of `model` on another device found, taken to this one.
    pub(crate) fn join(mut self, other: Self, model: &Classifier, device: &Device) -> Self {
        let plain = device.clone().inner();
        self.parts.extend(other.parts.into_iter().map(|part| Part {
            loss: part.loss.to_device(&plain),
            hits: part.hits.to_device(&plain),
            ..part
        }));
        self.grads = self.grads.zip(other.grads).map(|(own, others)| {
            let mut all = GradientsAccumulator::new();
            all.accumulate(model, own);
            all.accumulate(model, others.to_device(&plain, model));
            all.grads()
        });
        self
    }
}

/// Loss and logits of a batch, and what it adds to the mean gradient of `of` such batches; on a CPU none if the loss is not
/// finite. Elsewhere looking at it would wait for the device.
fn gradients(
    model: &Classifier,
    criterion: Criterion,
    x: Tensor<4>,
    targets: &Targets,
    rng: StepRng,
    of: usize,
) -> (Tensor<1>, Tensor<2>, Option<GradientsParams>) {
    let at_hand = is_at_hand(&x.device());
    let logits = model.forward_train(x, rng);
    let loss = criterion.forward(logits.clone(), targets);
    if at_hand && !loss.clone().into_scalar::<f64>().is_finite() {
        return (loss, logits, None);
    }
    let part = match of {
        1 => loss.clone(),
        _ => loss.clone().div_scalar(of as f64),
    };
    let grads = GradientsParams::from_grads(part.backward(), model);
    (loss, logits, Some(grads))
}

/// Whether reading a number of this device, which has autodiff, waits for nothing.
fn is_at_hand(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
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
    /// Further devices to share batches with.
    pub(crate) replicas: Replicas,
}

impl Learner {
    /// Whether reading a number waits for nothing.
    pub(crate) fn is_at_hand(&self) -> bool {
        is_at_hand(&self.device)
    }

    /// Takes step number `step` on the mean gradient of `batches`, which are of one size, and returns what it was like. On a
    /// CPU a loss that is not finite leaves everything as it was. Gradients are measured, before they are clipped, where there
    /// are roles that name the weights.
    pub(crate) fn step(
        mut self,
        batches: Vec<Batch>,
        step: usize,
        lr: impl Into<ModuleLearningRate>,
        measured: Option<&Roles>,
    ) -> (Self, Stepped) {
        let of = batches.len() * (1 + self.replicas.len());
        let mut shares = self.shares(batches, step).into_iter();
        let own = shares.next().expect("there is a first device");
        self.replicas.start(&self.model, shares, of);
        let (device, peer) = (&self.device, self.replicas.peer());
        let mut found = Found::of(&self.model, self.criterion, own, of, device, peer);
        for (joined, (copy, others)) in (1..).zip(self.replicas.finish()) {
            found = found.join(others, &self.model, device);
            // The mean of them all, as if each copy had seen all pictures.
            let model = self.model.valid().train();
            self.model = toward(model, &copy, 1.0 / f64::from(joined + 1), Of::Statistics);
        }
        let Found { parts, grads } = found;
        let Some(grads) = grads else {
            return (self, Stepped { parts, gradient_norms: vec![] });
        };
        let norms = measured.map(|roles| gradient_norms(&self.model, roles, &grads));
        (self.update(grads, lr), Stepped { parts, gradient_norms: norms.unwrap_or_default() })
    }

    /// The batches of step number `step`, shared evenly among the devices, the first one's first.
    fn shares(&self, batches: Vec<Batch>, step: usize) -> Vec<Vec<Shown>> {
        let (count, devices) = (batches.len(), 1 + self.replicas.len());
        let mut shares: Vec<Vec<Shown>> = vec![vec![]; devices];
        for (part, batch) in batches.into_iter().enumerate() {
            for (device, batch) in batch.split(devices).into_iter().enumerate() {
                let draw = (step * count + part) * devices + device;
                shares[device].push((batch, StepRng::new(self.seed, draw)));
            }
        }
        shares
    }

    /// Takes step number `step` on one batch, on the first device, and returns its loss. On a CPU a loss that is not finite
    /// leaves everything as it was.
    pub(crate) fn step_on(
        self,
        x: Tensor<4>,
        labels: Tensor<1, Int>,
        step: usize,
        lr: f64,
    ) -> (Self, f64) {
        let rng = StepRng::new(self.seed, step);
        let (loss, _, grads) = gradients(&self.model, self.criterion, x, &labels.into(), rng, 1);
        let learner = match grads {
            Some(grads) => self.update(grads, lr),
            None => self,
        };
        (learner, loss.into_scalar())
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
    use burn::module::{ModuleVisitor, Param};
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
        let replicas = Replicas::default();
        Learner { model, optimizer, criterion, clip_norm, seed: 0, device, replicas }
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

    /// What is learned of a model, or everything.
    fn numbers(learner: &Learner, all: bool) -> Vec<f32> {
        struct Numbers(bool, Vec<f32>);
        impl ModuleVisitor for Numbers {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if self.0 || param.is_require_grad() {
                    self.1.extend(param.val().into_data().iter::<f32>());
                }
            }
        }
        let mut numbers = Numbers(all, vec![]);
        // By way of `valid`, which brings running statistics up to date.
        learner.model.valid().train().visit(&mut numbers);
        numbers.1
    }

    fn weights(learner: &Learner) -> Vec<f32> {
        numbers(learner, false)
    }

    fn farthest(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn four_parts_are_one_batch() {
        let whole = joined((0..4).map(part));
        let step = |batches| {
            let (learner, stepped) = learner(0.0).step(batches, 0, 0.5, None);
            (weights(&learner), stepped.loss(), Stepped::read(&[&stepped])[0])
        };
        let (in_parts, loss, sums) = step((0..4).map(part).collect());
        let (at_once, whole_loss, whole_sums) = step(vec![whole]);
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

    fn shared(devices: usize, together: bool) -> Learner {
        let mut learner = learner(0.0);
        let further = vec![Device::flex(); devices - 1];
        learner.replicas = Replicas::new(further, learner.criterion, together);
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
                read.push(Stepped::read(&[&stepped])[0]);
            }
            (weights(&learner), read)
        };
        let (one, read) = steps(1);
        for devices in [2, 4] {
            let (several, read_there) = steps(devices);
            assert!(farthest(&one, &several) < 1e-4, "{devices}: {}", farthest(&one, &several));
            for (one, several) in read.iter().zip(&read_there) {
                assert!((one.loss() - several.loss()).abs() < 1e-5, "{one:?} {several:?}");
                assert_eq!((one.hits, one.pictures), (several.hits, several.pictures));
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
            |devices, batch| numbers(&on_devices(devices).step(vec![batch], 0, 0.0, None).0, true);
        let (dark, bright) = (part(0), brighter(part(1)));
        let own = [dark.clone(), bright.clone()].map(|batch| step(1, batch));
        let expected: Vec<f32> = own[0].iter().zip(&own[1]).map(|(a, b)| (a + b) / 2.0).collect();
        let found = step(2, joined([dark, bright]));
        let apart = [&expected, &own[0], &own[1]].map(|other| farthest(&found, other));
        assert!(apart[0] < 1e-6 && apart[1] > 0.01 && apart[2] > 0.01, "{apart:?}");
    }

    /// Different pictures, each part brighter than the last.
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
            numbers(&learner, true)
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
        assert!(moved(0.01) <= 0.01 + 1e-6, "{}", moved(0.01));
        assert!(moved(0.0) > 0.1 && (moved(1e6) - moved(0.0)).abs() < 1e-9);
    }
}
