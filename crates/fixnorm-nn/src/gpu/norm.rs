//! Batch norm by the batch's own statistics, followed by an activation, as one operation of a GPU. For the backward pass it
//! keeps the input and its moments, and not the output.
//! Not here: its launches (`norm_launch.rs`), the same composed of Burn's operations (`blocks/conv_bn_act.rs`).

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Tensor};
use fixnorm_kernels::Activation;

/// Configuration of a normalization.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormSpec {
    /// Added to the variance.
    pub(crate) epsilon: f32,
    /// Activation after the normalization.
    pub(crate) activation: Activation,
    /// Weight of the batch's statistics in the running ones.
    pub(crate) momentum: f32,
}

/// Normalizes `x` and applies the activation, in the precision of `x`; returns also the next running mean and variance, of
/// which the second is unbiased.
///
/// # Shapes
/// `x`: `[n, h, w, c]`, same on return; `gamma`, `beta` and statistics: `[c]`, in `f32`.
pub(crate) fn norm_act(
    x: Tensor<4>,
    [gamma, beta]: [Tensor<1>; 2],
    [mean, var]: [Tensor<1>; 2],
    spec: NormSpec,
) -> (Tensor<4>, [Tensor<1>; 2]) {
    let (out, _, mean, var) = Dispatch::norm_act(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        mean.into_dispatch(),
        var.into_dispatch(),
        spec,
    );
    (Tensor::from_dispatch(out), [mean, var].map(Tensor::from_dispatch))
}

/// Backends with a normalization of NHWC images.
#[backend_extension(Cube, Fusion, Autodiff)]
pub(crate) trait NormBackend: Backend {
    /// As [`norm_act`](self::norm_act). The second result is the batch's mean and biased variance, `[2, c]`.
    #[fusion(meta = |x, gamma, _beta, mean, var, _spec| (x.clone(), pair(gamma), mean.clone(), var.clone()))]
    fn norm_act(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        var: FloatTensor<Self>,
        spec: NormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// Backends with its backward pass.
#[backend_extension(Cube, Fusion)]
pub(crate) trait NormGradBackend: Backend {
    /// Gradients of the images, of `gamma` and of `beta`.
    #[fusion(meta = |x, gamma, beta, _moments, _dout, _spec| (x.clone(), gamma.clone(), beta.clone()))]
    fn norm_act_grad(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        spec: NormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// Two values a channel.
fn pair(gamma: &TensorSpec) -> TensorSpec {
    TensorSpec::new([2, gamma.shape[0]].into(), DType::F32)
}

impl<B: NormBackend + NormGradBackend, C: CheckpointStrategy> NormBackend for Autodiff<B, C> {
    fn norm_act(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        var: FloatTensor<Self>,
        spec: NormSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [(x, x_node), (gamma, gamma_node), (beta, beta_node)] =
            [x, gamma, beta].map(|tensor| tensor.into_parts());
        let [mean, var] = [mean, var].map(|tensor| tensor.into_parts().0);
        let (out, moments, mean, var) =
            B::norm_act(x.clone(), gamma.clone(), beta.clone(), mean, var, spec);
        let nodes = [x_node, gamma_node, beta_node];
        let out = match NormActBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, gamma, beta, moments.clone(), spec), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        };
        let [moments, mean, var] = [moments, mean, var].map(FloatTensor::<Self>::new);
        (out, moments, mean, var)
    }
}

#[derive(Debug)]
struct NormActBackward;

impl<B: NormGradBackend> Backward<B, 3> for NormActBackward {
    /// Images, gain, bias, moments.
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, NormSpec);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let (x, gamma, beta, moments, spec) = ops.state;
        let (dx, dgamma, dbeta) = B::norm_act_grad(x, gamma, beta, moments, dout, spec);
        for (node, grad) in ops.parents.into_iter().zip([dx, dgamma, dbeta]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::composed::{apply, to_nchw, to_nhwc};
    use burn::tensor::{Device, Distribution, module};

    /// Result, gradients of images, gain and bias, and running statistics.
    type Found = [Vec<f32>; 6];

    fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.cast(DType::F32).into_data().iter().collect()
    }

    fn run(x: &Tensor<4>, params: &[Tensor<1>; 2], spec: NormSpec, own: bool) -> Found {
        let x = x.clone().require_grad();
        let [gamma, beta] = params.clone().map(Tensor::require_grad);
        let [n, h, w, c] = x.dims();
        let running = [0.5, 2.0].map(|value| Tensor::<1>::full([c], value, &gamma.device()));
        let (y, [mean, var]) = if own {
            norm_act(x.clone(), [gamma.clone(), beta.clone()], running, spec)
        } else {
            let wide = to_nchw(x.clone().cast(DType::F32));
            let epsilon = f64::from(spec.epsilon);
            let found = module::batch_norm_train(wide, gamma.clone(), beta.clone(), epsilon);
            let y = to_nhwc(apply(spec.activation, found.output)).cast(x.dtype());
            let (momentum, count) = (f64::from(spec.momentum), (n * h * w) as f64);
            let unbiased = found.variance * (count / (count.max(2.0) - 1.0));
            let [mean, var] = running.map(|running| running * (1.0 - momentum));
            (y, [mean + found.mean * momentum, var + unbiased * momentum])
        };
        // Not the sum: through a normalization its gradient is zero.
        let len = y.dims().iter().product::<usize>();
        let weights: Vec<f32> = (0..len).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let weights = Tensor::<1>::from_floats(&weights[..], &y.device()).reshape(y.dims());
        let grads = (y.clone().cast(DType::F32) * weights).sum().backward();
        let grad = |tensor: &Tensor<1>| floats(tensor.grad(&grads).expect("wanted"));
        let dx = floats(x.grad(&grads).expect("wanted"));
        [floats(y), dx, grad(&gamma), grad(&beta), floats(mean), floats(var)]
    }

    fn compare(what: &str, x: &Tensor<4>, spec: NormSpec, tolerance: f32) {
        let c = x.dims()[3];
        let params = [1.0, 0.3].map(|center| {
            let noise = Distribution::Normal(center, 0.2);
            Tensor::<1>::random([c], noise, (&x.device(), DType::F32))
        });
        let (own, burns) = (run(x, &params, spec, true), run(x, &params, spec, false));
        for (i, (own, burns)) in own.iter().zip(&burns).enumerate() {
            assert_eq!(own.len(), burns.len(), "{what} {spec:?} {i}");
            let scale = burns.iter().fold(1e-2f32, |most, v| most.max(v.abs()));
            for (at, (own, burns)) in own.iter().zip(burns).enumerate() {
                let off = (own - burns).abs();
                // Written so that a NaN fails.
                assert!(
                    off <= tolerance * scale,
                    "{what} {spec:?} {i} [{at}]: {own}, Burn has {burns}"
                );
            }
        }
    }

    fn images(shape: [usize; 4], center: f64) -> Tensor<4> {
        let device = Device::default().autodiff();
        Tensor::random(shape, Distribution::Normal(center, 1.0), &device)
    }

    fn spec(activation: Activation) -> NormSpec {
        NormSpec { epsilon: 1e-5, activation, momentum: 0.25 }
    }

    #[test]
    fn kernels_and_burns_operations_agree() {
        for (i, activation) in Activation::ALL.into_iter().enumerate() {
            for (j, c) in [1, 3, 4, 17, 24, 40, 264].into_iter().enumerate() {
                // One pixel, one row of units, many.
                let [n, h, w] = [[2, 1, 1], [3, 5, 7], [4, 23, 29]][(i + j) % 3];
                let x = images([n, h, w, c], 0.3);
                compare(&format!("{n}x{h}x{w}x{c}"), &x, spec(activation), 2e-4);
            }
        }
    }

    #[test]
    fn many_rows_are_summed_by_a_launch_in_between() {
        let x = images([1, 150, 150, 128], 0.3);
        compare("many rows", &x, spec(Activation::HardSwish), 2e-4);
    }

    #[test]
    fn images_of_another_layout_are_normalized() {
        let x = images([3, 12, 5, 7], 0.3);
        compare("channels first", &x.permute([0, 2, 3, 1]), spec(Activation::Relu), 2e-4);
    }

    #[test]
    fn a_large_mean_loses_no_precision() {
        let x = images([4, 9, 9, 8], 1000.0);
        compare("large mean", &x, spec(Activation::Silu), 2e-3);
    }

    #[test]
    fn bf16_is_summed_in_f32() {
        let device = Device::default();
        if !device.supports_dtype(burn::tensor::FloatDType::BF16) {
            return;
        }
        for (c, activation) in [(24, Activation::Relu6), (5, Activation::Silu)] {
            let x = images([4, 15, 11, c], 0.5).cast(DType::BF16);
            compare("bf16", &x, spec(activation), 1e-2);
        }
    }

    #[test]
    fn a_nan_stays_a_nan() {
        let device = Device::default().autodiff();
        let x = Tensor::<4>::from_floats([[[[f32::NAN, 1.0]], [[2.0, 3.0]]]], &device);
        let params = [1.0, 0.0].map(|v| Tensor::<1>::full([2], v, &device));
        // Without a ReLU: Vulkan's compilers may assume that there is no NaN and return zero.
        let found = run(&x, &params, spec(Activation::Identity), true);
        assert!(found[0][0].is_nan() && found[0][2].is_nan(), "{:?}", found[0]);
        assert!(found[0][1].is_finite() && found[0][3].is_finite(), "{:?}", found[0]);
    }
}
