//! An exponential moving average of a model: weights, and the running statistics that belong to them.
//! Not here: when it is evaluated and saved (`train.rs`, `checkpoint.rs`).

use burn::module::Module;
use fixnorm_nn::Classifier;

use crate::session::average::{Of, toward};

/// The average `ema ← ema + (1 − d)·(model − ema)` over the models after each step, running statistics
/// included, as timm's `ModelEmaV2` and `ModelEmaV3` and TensorFlow's training scripts of EfficientNet have it.
/// It starts as the model before the first step.
///
/// Weights whose norm is held move on a sphere, and their average lies within it: a scale-invariant weight does
/// not care, the head's norm comes out a little below α·√C.
#[derive(Debug)]
pub(crate) struct Ema {
    /// Without autodiff.
    model: Classifier,
    decay: f64,
    warmup: bool,
}

impl Ema {
    /// Starts at `model`.
    pub(crate) fn new(model: &Classifier, decay: f64, warmup: bool) -> Self {
        Self { model: model.valid(), decay, warmup }
    }

    /// The averaged model.
    pub(crate) fn model(&self) -> &Classifier {
        &self.model
    }

    /// Goes on from a saved average.
    pub(crate) fn set_model(&mut self, model: Classifier) {
        self.model = model;
    }

    /// The decay of an update that `updates` others precede.
    fn decay_after(&self, updates: usize) -> f64 {
        let t = updates as f64;
        match self.warmup {
            true => self.decay.min((1.0 + t) / (10.0 + t)),
            false => self.decay,
        }
    }

    /// With the model after step number `step`, counted from 0, taken in.
    pub(crate) fn updated(mut self, model: &Classifier, step: usize) -> Self {
        let share = 1.0 - self.decay_after(step);
        self.model = toward(self.model, model, share, Of::All);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::{ModuleVisitor, Param};
    use burn::tensor::{Device, Distribution, Tensor};
    use fixnorm_nn::{Input, ModelSpec};

    fn numbers(model: &Classifier) -> Vec<f64> {
        struct Numbers(Vec<f64>);
        impl ModuleVisitor for Numbers {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.0.extend(param.val().into_data().iter::<f64>());
            }
        }
        let mut numbers = Numbers(vec![]);
        model.valid().visit(&mut numbers);
        numbers.0
    }

    #[test]
    fn weights_and_running_statistics_follow_the_recurrence() {
        let device = Device::flex().autodiff();
        let spec = ModelSpec::find("resnet8").unwrap();
        let input = Input { channels: 1, classes: 3 };
        let x = |seed: u64| {
            device.seed(seed);
            Tensor::<4>::random([4, 9, 9, 1], Distribution::Normal(0.5, 2.0), &device)
        };
        let model = |seed: u64| {
            let model = spec.init(input, seed, &device);
            model.forward(x(seed));
            model
        };
        for warmup in [false, true] {
            let mut ema = Ema::new(&model(0), 0.3, warmup);
            let mut expected = numbers(&model(0));
            for step in 0..6 {
                let next = model(1 + step as u64);
                // (1 + t)/(10 + t) reaches 0.3 between t = 2 and t = 3.
                let decay = if warmup { [0.1, 2.0 / 11.0, 0.25, 0.3, 0.3, 0.3][step] } else { 0.3 };
                for (ema, own) in expected.iter_mut().zip(numbers(&next)) {
                    *ema = decay * *ema + (1.0 - decay) * own;
                }
                ema = ema.updated(&next, step);
            }
            let found = numbers(ema.model());
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
            assert_eq!(ema.model().forward(x(9).inner()).dims(), [4, 3]);
        }
    }

    #[test]
    fn a_model_that_stands_still_is_its_own_average() {
        let device = Device::flex().autodiff();
        let spec = ModelSpec::find("resnet8").unwrap();
        let model = spec.init(Input { channels: 1, classes: 3 }, 0, &device);
        let ema = Ema::new(&model, 0.9, false);
        let ema = (0..3).fold(ema, |ema, step| ema.updated(&model, step));
        assert_eq!(numbers(ema.model()), numbers(&model));
    }
}
