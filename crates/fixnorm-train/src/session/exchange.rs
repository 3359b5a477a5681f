//! Gradients, running statistics and metrics of a step over all ranks: one sum of one buffer.
//!
//! The backward pass returns all gradients at once, so there is nothing to sum while it runs.
//! Not here: the gradient of a rank's own share (`gradient.rs`), what ranks tell each other besides (`further.rs`).

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use fixnorm_nn::Classifier;

use crate::ranks::Ranks;
use crate::session::gradient::Gradient;
use crate::session::metrics::{BatchMetrics, StepMetrics};

/// Adds the gradients of all ranks, each the gradient of its own share, and joins their metrics; `with_statistics` also sets
/// the running statistics of `model` to their mean over the ranks. Every rank gets the same. If a loss is not finite on one
/// rank, the gradient is none on all.
pub(crate) fn over_ranks(
    ranks: &Ranks,
    model: Classifier,
    gradient: Gradient,
    with_statistics: bool,
) -> (Classifier, Gradient) {
    // Through `valid`, which brings running statistics up to date.
    let model = model.valid().train();
    let metrics = StepMetrics { batches: gradient.batches, gradient_norms: vec![] };
    let totals = StepMetrics::read(&[&metrics])[0];
    let is_whole = f32::from(u8::from(gradient.grads.is_some()));
    let mut buffer = Buffer {
        values: vec![totals.loss() as f32, totals.correct as f32, is_whole],
        grads: gradient.grads.unwrap_or_default(),
        with_statistics,
    };
    model.visit(&mut buffer);
    let mut values = buffer.values;
    ranks.sum(&mut values);
    let count = ranks.count();
    let &[loss, correct, whole] = values.first_chunk().expect("these come first");
    let of = |value: f32| Tensor::from_floats([value], &Device::flex());
    // Ranks have equal shares, so the mean of their means is that of the images.
    let loss = of(loss / count as f32);
    let joined = BatchMetrics { loss, correct: of(correct), images: count * totals.images };
    if whole < count as f32 {
        return (model, Gradient { batches: vec![joined], grads: None });
    }
    let grads = GradientsParams::new();
    let mut sums = Sums { values: &values[3..], grads, with_statistics, ranks: count };
    let model = model.map(&mut sums);
    debug_assert!(sums.values.is_empty());
    (model, Gradient { batches: vec![joined], grads: Some(sums.grads) })
}

/// What a rank gives: for each learned parameter whether it has a gradient, and this or zeros; running statistics.
struct Buffer {
    values: Vec<f32>,
    grads: GradientsParams,
    with_statistics: bool,
}

impl ModuleVisitor for Buffer {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            if self.with_statistics {
                self.values.extend(param.val().into_data().iter::<f32>());
            }
            return;
        }
        match self.grads.remove::<D>(param.id) {
            Some(grad) => {
                self.values.push(1.0);
                self.values.extend(grad.into_data().iter::<f32>());
            }
            None => {
                let size = param.val().shape().num_elements();
                self.values.resize(self.values.len() + 1 + size, 0.0);
            }
        }
    }
}

/// The sums of what the ranks gave, in the same order.
struct Sums<'a> {
    values: &'a [f32],
    grads: GradientsParams,
    with_statistics: bool,
    ranks: usize,
}

impl Sums<'_> {
    fn take(&mut self, count: usize) -> &[f32] {
        let (taken, left) = self.values.split_at(count);
        self.values = left;
        taken
    }
}

impl ModuleMapper for Sums<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (shape, device) = (param.val().shape(), param.val().device().inner());
        let size = shape.num_elements();
        if param.is_require_grad() {
            let is_there = self.take(1)[0] > 0.0;
            let sum = TensorData::new(self.take(size).to_vec(), shape);
            if is_there {
                self.grads.register::<D>(param.id, Tensor::from_data(sum, &device));
            }
            return param;
        }
        if !self.with_statistics {
            return param;
        }
        let ranks = self.ranks as f32;
        let mean: Vec<f32> = self.take(size).iter().map(|sum| sum / ranks).collect();
        let mean = Tensor::from_data(TensorData::new(mean, shape), &device);
        param.map(|own| if own.device().is_autodiff() { Tensor::from_inner(mean) } else { mean })
    }
}
