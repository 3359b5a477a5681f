//! Clips the gradient of a whole model by its norm.
//! Not here: clipping each tensor for itself, which Burn's optimizers offer.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

/// Scales all gradients by one factor, so that their norm, taken over all of them together, is at most
/// `max_norm`; returns them with the norm they had.
///
/// A gradient with a NaN or an infinity stays as it is, and the norm returned is NaN or infinite.
///
/// # Source
/// PyTorch's `clip_grad_norm_`, without the 10⁻⁶ that it adds to the norm.
///
/// ```
/// use burn::{nn::LinearConfig, optim::GradientsParams, tensor::{Device, Tensor}};
///
/// let device = Device::flex().autodiff();
/// let layer = LinearConfig::new(3, 2).init(&device);
/// let loss = layer.forward(Tensor::<2>::ones([4, 3], &device)).sum();
/// let grads = GradientsParams::from_grads(loss.backward(), &layer);
/// let (grads, norm) = fixnorm::clip_grad_norm(&layer, grads, 1.0);
/// // Six weights and two biases, each with gradient 4.
/// assert!((norm - 128_f64.sqrt()).abs() < 1e-5);
/// assert!((fixnorm::clip_grad_norm(&layer, grads, 1.0).1 - 1.0).abs() < 1e-6);
/// ```
pub fn clip_grad_norm<M: Module>(
    model: &M,
    grads: GradientsParams,
    max_norm: f64,
) -> (GradientsParams, f64) {
    let mut squares = Squares { grads: &grads, sums: vec![] };
    model.visit(&mut squares);
    // Joined on the device: one value to wait for instead of one a parameter.
    let norm = if squares.sums.is_empty() {
        0.0
    } else {
        Tensor::cat(squares.sums, 0).sum().into_scalar::<f64>().sqrt()
    };
    if norm <= max_norm || !norm.is_finite() {
        return (grads, norm);
    }
    let mut scaled = Scaled { grads, factor: max_norm / norm };
    model.visit(&mut scaled);
    (scaled.grads, norm)
}

struct Squares<'a> {
    grads: &'a GradientsParams,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            let grad = grad.cast(DType::F32);
            self.sums.push((grad.clone() * grad).sum());
        }
    }
}

struct Scaled {
    grads: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scaled {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.grads.register(param.id, grad.mul_scalar(self.factor));
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    #[derive(Module, Debug)]
    struct Two {
        a: Linear,
        b: Linear,
    }

    fn with_gradients(scale: f32) -> (Two, GradientsParams) {
        let device = Device::flex().autodiff();
        let layer = |d_in, d_out| LinearConfig::new(d_in, d_out).with_bias(false).init(&device);
        let two = Two { a: layer(2, 1), b: layer(1, 2) };
        let inner = device.inner();
        let mut grads = GradientsParams::new();
        grads.register(two.a.weight.id, Tensor::<2>::from_floats([[3.0 * scale], [0.0]], &inner));
        grads.register(two.b.weight.id, Tensor::<2>::from_floats([[0.0, 4.0 * scale]], &inner));
        (two, grads)
    }

    fn values(two: &Two, grads: &GradientsParams) -> Vec<f32> {
        let both = [two.a.weight.id, two.b.weight.id].map(|id| grads.get::<2>(id).unwrap());
        both.into_iter().flat_map(|grad| grad.into_data().iter().collect::<Vec<f32>>()).collect()
    }

    #[test]
    fn one_norm_over_all_parameters() {
        let (two, grads) = with_gradients(1.0);
        let (grads, norm) = clip_grad_norm(&two, grads, 2.5);
        assert_eq!(norm, 5.0);
        assert_eq!(values(&two, &grads), [1.5, 0.0, 0.0, 2.0]);
    }

    #[test]
    fn what_is_short_enough_stays() {
        let (two, grads) = with_gradients(1.0);
        let (grads, norm) = clip_grad_norm(&two, grads, 5.0);
        assert_eq!((norm, values(&two, &grads)), (5.0, vec![3.0, 0.0, 0.0, 4.0]));
        let (none, norm) = clip_grad_norm(&two, GradientsParams::new(), 5.0);
        assert_eq!((none.len(), norm), (0, 0.0));
    }

    #[test]
    fn what_has_no_norm_stays_and_tells() {
        let (two, grads) = with_gradients(f32::NAN);
        let (grads, norm) = clip_grad_norm(&two, grads, 1.0);
        assert!(norm.is_nan() && values(&two, &grads)[0].is_nan());
        assert_eq!(values(&two, &grads).len(), 4);
        let (two, grads) = with_gradients(f32::INFINITY);
        assert!(!clip_grad_norm(&two, grads, 1.0).1.is_finite());
    }
}
