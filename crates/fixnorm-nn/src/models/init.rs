//! Seeded initialization: a parameter's values depend on (seed, path) alone, not on the backend, the order of
//! construction or other random numbers.
//!
//! Convolutions: normal with variance 2/fan_out (He et al., as in torchvision's ResNets and timm's
//! models of depthwise convolutions), biases 0. Linear weights and biases: uniform in ±1/√fan_in (PyTorch's default). Gains 1, offsets 0.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Normal, Uniform};

use crate::module_path::{ModulePath, follow_path};

/// Initializes the linear and convolution layers of `module`.
pub(super) fn seeded<M: Module>(module: M, seed: u64) -> M {
    module.map(&mut Init { seed, path: ModulePath::default(), linear_fan_in: 0 })
}

struct Init {
    seed: u64,
    path: ModulePath,
    /// Fan-in of the last linear weight; its bias comes next.
    linear_fan_in: usize,
}

impl Init {
    fn rng(&self) -> ChaCha8Rng {
        // FNV-1a: any fixed hash would do, and this one is two lines.
        let mix =
            |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let path = self.path.dotted().bytes().fold(0xcbf2_9ce4_8422_2325, mix);
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&path.to_le_bytes());
        ChaCha8Rng::from_seed(key)
    }

    fn values(&mut self, shape: &[usize]) -> Option<Vec<f32>> {
        let len = shape.iter().product();
        let uniform = |fan_in: usize, rng: &mut ChaCha8Rng| {
            let bound = 1.0 / (fan_in as f32).sqrt();
            let range = Uniform::new_inclusive(-bound, bound).expect("finite and not empty");
            range.sample_iter(rng).take(len).collect()
        };
        match (self.path.layer()?, self.path.leaf()?) {
            ("Conv2d", "weight") => {
                // In a depthwise convolution an input channel reaches one output channel.
                let outputs = if self.path.has("depthwise") { 1 } else { shape[0] };
                let fan_out: usize = outputs * shape[2..].iter().product::<usize>();
                let normal = Normal::new(0.0, (2.0 / fan_out as f32).sqrt()).expect("finite");
                Some(normal.sample_iter(self.rng()).take(len).collect())
            }
            ("Conv2d", "bias") => Some(vec![0.0; len]),
            ("Linear", "weight") => {
                self.linear_fan_in = shape[0];
                Some(uniform(shape[0], &mut self.rng()))
            }
            ("Linear", "bias") => Some(uniform(self.linear_fan_in, &mut self.rng())),
            _ => None,
        }
    }
}

impl ModuleMapper for Init {
    follow_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape();
        let Some(values) = self.values(shape.as_slice()) else {
            return param;
        };
        let device = param.lazy_device();
        replace(param, Tensor::from_data(TensorData::new(values, shape), &device))
    }
}

/// Replaces the value of `param`, which stays trainable or not.
pub(crate) fn replace<const D: usize>(
    param: Param<Tensor<D>>,
    value: Tensor<D>,
) -> Param<Tensor<D>> {
    let trained = param.is_require_grad();
    param.map(
        |_| {
            if value.device().is_autodiff() { value.set_require_grad(trained) } else { value }
        },
    )
}
