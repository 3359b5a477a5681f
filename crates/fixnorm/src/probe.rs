//! Finds each weight's role by scaling it and watching the loss.
//! Not here: the use of the roles (`config.rs`).
//!
//! # How
//!
//! 1. The model is copied, so that running statistics stay as they are, and moved to a *generic
//!    point*: gains and biases that hardly differ within their vector get random offsets, an
//!    all-zero weight random values. At initialization biases are zero, and a convolution that
//!    merely feeds a ReLU would pass for scale-invariant until its bias starts to move. The offsets
//!    are bounded: a channel that they all but killed would hold little more than epsilon.
//! 2. Each weight is scaled by ½ and 2. It is scale-invariant when the losses agree within the
//!    tolerance *and* a random change of its direction moves the loss at least ten times more, so
//!    that a weight nothing depends on is not called scale-invariant.
//! 3. A normalization's epsilon breaks exactness. So a weight that fails step 2 is scaled again around
//!    8 and 64 times its size. From one size to the next, what epsilon causes shrinks with the square
//!    of the size, to a 64th; what a bias causes shrinks to an 8th at best. The weight is
//!    scale-invariant when the change shrank to less than a 22nd both times, the geometric mean of the
//!    two, or to rounding.
//! 4. Where the layer's layout is known, the same is done with output channels scaled by
//!    independent factors.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

use crate::params::{Path, follow_path, trainable};
use crate::role::{ParamRole, Role, Roles, matches};
use crate::{ParamInfo, SetupError};

/// The sizes around which a weight is scaled after its own.
const ENLARGED: [f64; 2] = [8.0, 64.0];
/// From one size to the next a change must shrink this much to be put down to epsilon: √(8·64).
const SHRINKAGE: f64 = 22.0;
/// The largest offset that gains and biases get: a gain of 1 stays well away from 0.
const OFFSET: f64 = 0.5;
/// Gains and biases that differ by more than this within their vector are generic as they are.
const SPREAD: f64 = 0.1;
/// A change of direction must move the loss at least this many times more than the scaling did.
const CONTRAST: f64 = 10.0;

/// Finds roles; see the [module](self) for how.
#[derive(Clone, Debug)]
pub struct Probe {
    tolerance: f64,
    seed: u64,
    head: Option<String>,
    overrides: Vec<(String, Role)>,
}

impl Default for Probe {
    fn default() -> Self {
        Self::new()
    }
}

impl Probe {
    /// A probe with a tolerance of 2e-5 that takes the last linear layer for the head.
    pub fn new() -> Self {
        Self { tolerance: 2e-5, seed: 0, head: None, overrides: vec![] }
    }

    /// Largest relative change of the loss that still counts as rounding; arithmetic less exact than
    /// `f32` needs more.
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Names the head's weight by its path instead of taking the last linear layer.
    pub fn with_head(mut self, path: impl Into<String>) -> Self {
        self.head = Some(path.into());
        self
    }

    /// Sets the role of all parameters whose path matches `pattern`, in which `*` stands for any
    /// text, and spares their probing. Later overrides win.
    pub fn with_role(mut self, pattern: impl Into<String>, role: Role) -> Self {
        self.overrides.push((pattern.into(), role));
        self
    }

    /// Probes `model`, which must be on an autodiff device so that its normalizations use batch
    /// statistics. `loss` computes the training loss on one fixed batch: any number of values;
    /// one a sample is sharper than their mean.
    ///
    /// Costs eight forward passes a weight, more where epsilon matters. The model, its running statistics included, is
    /// left as it was. Only trainable leaves have roles: a parameter computed from others is not one.
    ///
    /// # Errors
    /// A loss that is not finite or not repeatable, a head or an override that matches nothing,
    /// one parameter at two places of the module.
    pub fn run<M: Module>(
        &self,
        model: &M,
        loss: impl Fn(&M) -> Tensor<1>,
    ) -> Result<Roles, SetupError> {
        let params = trainable(model)?;
        // `valid` copies the running statistics, `train` puts the copy back onto the tape.
        let generic = model.valid().train().map(&mut Edit {
            path: Path::default(),
            change: Change::ToGenericPoint,
            rng: ChaCha8Rng::seed_from_u64(self.seed),
        });
        let run = Run { generic, loss, seed: self.seed };
        run.check_repeatable()?;
        let mut rows = Vec::with_capacity(params.len());
        for param in &params {
            rows.push(self.row(param, &run));
        }
        let mut roles = Roles { params: rows };
        // A head set by the user is not searched for.
        if self.head.is_some() || self.overrides.iter().all(|(_, role)| *role != Role::Head) {
            self.assign_head(&params, &mut roles)?;
        }
        for (pattern, role) in &self.overrides {
            roles.set(pattern, *role)?;
        }
        let heads = roles.params.iter().filter(|param| param.role == Role::Head);
        let heads: Vec<_> = heads.map(|param| param.path.as_str()).collect();
        match heads.len() {
            0 | 1 => Ok(roles),
            _ => Err(SetupError::HeadNotFound {
                reason: "more than one weight has the role `head`".to_owned(),
                candidates: heads.join(", "),
            }),
        }
    }

    fn row<M: Module, L: Fn(&M) -> Tensor<1>>(
        &self,
        param: &ParamInfo,
        run: &Run<M, L>,
    ) -> ParamRole {
        let channel_axis = param.channel_axis();
        let (mut role, mut channel_invariant, mut deviation) = (Role::Free, false, None);
        let by_hand = self.overrides.iter().any(|(pattern, _)| matches(pattern, &param.path));
        if param.is_weight() && !by_hand {
            let scaling = |factor: f64| Change::Scale { factor };
            let scaled = |size: f64| run.deviation(param.id, size, &[scaling(0.5), scaling(2.0)]);
            let turned = run.deviation(param.id, 1.0, &[Change::Turn]);
            deviation = Some(scaled(1.0));
            if self.is_invariant(turned, scaled) {
                role = Role::ScaleInvariant;
                channel_invariant = channel_axis.is_some_and(|axis| {
                    let patterns = [0, 1].map(|parity| Change::ScaleChannels { axis, parity });
                    self.is_invariant(turned, |size| run.deviation(param.id, size, &patterns))
                });
            }
        }
        ParamRole {
            path: param.path.clone(),
            shape: param.shape.clone(),
            role,
            channel_axis,
            channel_invariant,
            deviation,
            overridden: false,
        }
    }

    /// Steps 2 and 3 of the [module](self)'s list, from the deviation that a change of direction
    /// caused, and the one that scaling causes around a size.
    fn is_invariant(&self, turned: f64, scaled: impl Fn(f64) -> f64) -> bool {
        let mut found = scaled(1.0);
        if found > self.tolerance {
            for size in ENLARGED {
                let enlarged = scaled(size);
                let is_rounding = enlarged <= self.tolerance;
                if !is_rounding && enlarged > found / SHRINKAGE {
                    return false;
                }
                found = enlarged;
                if is_rounding {
                    break;
                }
            }
        }
        found * CONTRAST < turned
    }

    fn assign_head(&self, params: &[ParamInfo], roles: &mut Roles) -> Result<(), SetupError> {
        let linear: Vec<_> =
            params.iter().filter(|p| p.layer == "Linear" && p.is_weight()).collect();
        let not_found = |reason: String| SetupError::HeadNotFound {
            reason,
            candidates: match &linear[..] {
                [] => "none".to_owned(),
                some => some.iter().map(|p| p.path.as_str()).collect::<Vec<_>>().join(", "),
            },
        };
        let head = match &self.head {
            Some(named) => params
                .iter()
                .find(|p| p.path == *named && p.is_weight())
                .ok_or_else(|| not_found(format!("no weight has the path `{named}`")))?,
            // A model without linear layers has no head; that is an error only for those who
            // want one controlled.
            None => match linear.last() {
                Some(last) => last,
                None => return Ok(()),
            },
        };
        let Some(row) = roles.params.iter_mut().find(|row| row.path == head.path) else {
            unreachable!("every parameter has a row");
        };
        if row.role == Role::ScaleInvariant {
            return Err(not_found(format!(
                "`{}` is scale-invariant, a normalization follows it",
                head.path
            )));
        }
        row.role = Role::Head;
        Ok(())
    }
}

/// The model at its generic point and the loss on the fixed batch.
struct Run<M, L> {
    generic: M,
    loss: L,
    seed: u64,
}

impl<M: Module, L: Fn(&M) -> Tensor<1>> Run<M, L> {
    fn losses(&self, target: ParamId, size: f64, change: &Change) -> Vec<f64> {
        let model = self.generic.clone().map(&mut Edit {
            path: Path::default(),
            change: Change::Of(target, size, Box::new(change.clone())),
            rng: ChaCha8Rng::seed_from_u64(self.seed + 1),
        });
        (self.loss)(&model).into_data().iter::<f64>().collect()
    }

    /// Largest difference that the changes make to any value of the loss, with the weight at `size`
    /// times its own, relative to the mean of the values.
    fn deviation(&self, target: ParamId, size: f64, changes: &[Change]) -> f64 {
        let unchanged = self.losses(target, size, &Change::Scale { factor: 1.0 });
        let mean = unchanged.iter().map(|loss| loss.abs()).sum::<f64>() / unchanged.len() as f64;
        let mut worst = 0.0f64;
        for change in changes {
            for (changed, unchanged) in self.losses(target, size, change).iter().zip(&unchanged) {
                let deviation = (changed - unchanged).abs() / mean.max(f64::MIN_POSITIVE);
                // A loss that overflowed has changed.
                worst = worst.max(if deviation.is_nan() { f64::INFINITY } else { deviation });
            }
        }
        worst
    }

    fn check_repeatable(&self) -> Result<(), SetupError> {
        let mean = || {
            let losses: Vec<f64> = (self.loss)(&self.generic).into_data().iter().collect();
            losses.iter().sum::<f64>() / losses.len() as f64
        };
        let (first, second) = (mean(), mean());
        if !first.is_finite() {
            return Err(SetupError::NotFinite(first));
        }
        if (first - second).abs() > 1e-6 * first.abs() {
            return Err(SetupError::NotRepeatable { first, second });
        }
        Ok(())
    }
}

/// A change of the model's parameters.
#[derive(Clone, Debug)]
enum Change {
    /// Offsets gains and biases that are still as initialized, fills all-zero weights.
    ToGenericPoint,
    /// Only the parameter with this identity, enlarged by this factor first.
    Of(ParamId, f64, Box<Change>),
    /// The whole tensor.
    Scale { factor: f64 },
    /// Channels by ½ or 2, in a fixed irregular pattern and its opposite.
    ScaleChannels { axis: usize, parity: usize },
    /// Half of the weight's length in a random direction.
    Turn,
}

impl Change {
    fn apply<const D: usize>(&self, tensor: Tensor<D>, rng: &mut ChaCha8Rng) -> Tensor<D> {
        match self {
            Change::Of(_, size, change) => change.apply(tensor.mul_scalar(*size), rng),
            Change::ToGenericPoint if D < 2 => {
                let spread = tensor.clone().max() - tensor.clone().min();
                if spread.into_scalar::<f64>() > SPREAD {
                    return tensor;
                }
                let offsets = normal_like(&tensor, rng).clamp(-1.0, 1.0).mul_scalar(OFFSET);
                tensor + offsets
            }
            Change::ToGenericPoint => {
                let random = normal_like(&tensor, rng);
                if tensor.clone().abs().max().into_scalar::<f64>() == 0.0 {
                    return random.mul_scalar(OFFSET);
                }
                tensor
            }
            Change::Scale { factor } => tensor.mul_scalar(*factor),
            Change::ScaleChannels { axis, parity } => {
                let mut shape = [1; D];
                shape[*axis] = tensor.dims()[*axis];
                // i·i/3 has no period that a group of channels could share.
                let factors =
                    (0..shape[*axis]).map(|i| [0.5f32, 2.0][(i * i / 3 + i + parity) % 2]);
                let factors = TensorData::new(factors.collect::<Vec<_>>(), shape);
                let factors = Tensor::<D>::from_data(factors, &tensor.device());
                tensor * factors
            }
            Change::Turn => {
                let norm =
                    |t: &Tensor<D>| t.clone().powi_scalar(2).sum().sqrt().into_scalar::<f64>();
                let direction = normal_like(&tensor, rng);
                let length = 0.5 * norm(&tensor) / norm(&direction).max(f64::MIN_POSITIVE);
                tensor + direction.mul_scalar(length)
            }
        }
    }
}

fn normal_like<const D: usize>(tensor: &Tensor<D>, rng: &mut ChaCha8Rng) -> Tensor<D> {
    let values: Vec<f32> =
        (0..tensor.shape().num_elements()).map(|_| StandardNormal.sample(rng)).collect();
    Tensor::from_data(TensorData::new(values, tensor.dims()), &tensor.device())
}

/// Applies a change to a module's trainable parameters.
struct Edit {
    path: Path,
    change: Change,
    rng: ChaCha8Rng,
}

impl ModuleMapper for Edit {
    follow_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let concerned = match &self.change {
            Change::Of(target, ..) => param.id == *target,
            _ => param.is_require_grad(),
        };
        if !concerned {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        // On the tape, so that normalizations use batch statistics, but without a gradient: graphs that
        // no backward pass consumes would be kept, with all their activations.
        let changed = Tensor::from_inner(self.change.apply(tensor.inner(), &mut self.rng));
        Param::from_mapped_value(id, changed.set_require_grad(false), mapper)
    }
}
