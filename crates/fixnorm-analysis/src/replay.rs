//! A run's learning rate and norms at every step, and what another run needs to follow them.
//! Not here: how a record is kept on a disk.
//!
//! A run that holds its norms follows the *effective learning rates* lr_t/‖w_t‖² of another one by a learning
//! rate for each layer, [`Trajectory::learning_rate`]. A run that holds none follows the *norms* by rescaling to them
//! before each step, [`with_norms`].

use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::tensor::Tensor;

use fixnorm::follow_path;
use fixnorm::params::Path;

/// Learning rate and norms of every weight at every step of a run, as they were before the step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trajectory {
    weights: Vec<String>,
    /// A row for each step: learning rate, then the norms in the order of the weights.
    values: Vec<f64>,
}

/// A trajectory that cannot be followed.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum ReplayError {
    /// A weight that was not recorded.
    #[error("the record has no weight {path}; it has {weights}")]
    NoWeight {
        /// The weight asked for.
        path: String,
        /// The weights that were recorded.
        weights: String,
    },
    /// A step beyond the end.
    #[error("the record ends after {steps} steps, and step {step} was asked for")]
    NoStep {
        /// Steps recorded.
        steps: usize,
        /// The step asked for, counted from 0.
        step: usize,
    },
    /// Values that do not fill their rows.
    #[error("the record holds {values} values, and a step has {row}")]
    Torn {
        /// Values there are.
        values: usize,
        /// Values of a step.
        row: usize,
    },
}

impl Trajectory {
    /// A record of these weights, by their paths: a row for each step, of its learning rate and the weights'
    /// norms before it.
    ///
    /// # Errors
    /// [`ReplayError::Torn`] when the last row is not whole.
    pub fn new(weights: Vec<String>, values: Vec<f64>) -> Result<Self, ReplayError> {
        let row = weights.len() + 1;
        match values.len() % row {
            0 => Ok(Self { weights, values }),
            _ => Err(ReplayError::Torn { values: values.len(), row }),
        }
    }

    /// Paths of the weights.
    pub fn weights(&self) -> &[String] {
        &self.weights
    }

    /// Steps recorded.
    pub fn steps(&self) -> usize {
        self.values.len() / (self.weights.len() + 1)
    }

    fn row(&self, step: usize) -> Result<&[f64], ReplayError> {
        let row = self.weights.len() + 1;
        let found = self.values.get(step * row..(step + 1) * row);
        found.ok_or(ReplayError::NoStep { steps: self.steps(), step })
    }

    /// The learning rate of a step.
    ///
    /// # Errors
    /// [`ReplayError::NoStep`].
    pub fn lr(&self, step: usize) -> Result<f64, ReplayError> {
        Ok(self.row(step)?[0])
    }

    /// A weight's norm before a step.
    ///
    /// # Errors
    /// [`ReplayError::NoStep`], [`ReplayError::NoWeight`].
    pub fn norm(&self, step: usize, path: &str) -> Result<f64, ReplayError> {
        let index = self.weights.iter().position(|weight| weight == path);
        let index = index.ok_or_else(|| ReplayError::NoWeight {
            path: path.to_owned(),
            weights: self.weights.join(", "),
        })?;
        Ok(self.row(step)?[1 + index])
    }

    /// A weight's effective learning rate at a step.
    ///
    /// # Errors
    /// As [`norm`](Self::norm).
    pub fn effective_lr(&self, step: usize, path: &str) -> Result<f64, ReplayError> {
        let norm = self.norm(step, path)?;
        Ok(self.lr(step)? / (norm * norm))
    }

    /// The learning rate with which a weight of norm `norm` has the recorded effective one.
    ///
    /// # Errors
    /// As [`norm`](Self::norm).
    pub fn learning_rate(&self, step: usize, path: &str, norm: f64) -> Result<f64, ReplayError> {
        Ok(self.effective_lr(step, path)? * norm * norm)
    }
}

/// A learning rate for some parameters by their paths, and `base` for all others, as Burn's optimizer takes it.
pub fn learning_rates<'a>(
    base: f64,
    layers: impl IntoIterator<Item = (&'a str, f64)>,
) -> ModuleLearningRate {
    let scheduler = ModuleLrScheduler::new(base);
    let with_layer = |scheduler: ModuleLrScheduler, (path, lr): (&str, f64)| {
        scheduler.with_group(ParamGroup::from_path(path.to_owned()), lr)
    };
    layers.into_iter().fold(scheduler, with_layer).step()
}

/// `model` with the weights at these paths brought to these norms. A weight of norm zero stays as it is.
pub fn with_norms<M: Module>(model: M, norms: &[(&str, f64)]) -> M {
    model.map(&mut Rescale { path: Path::default(), norms })
}

struct Rescale<'a> {
    path: Path,
    norms: &'a [(&'a str, f64)],
}

impl ModuleMapper for Rescale<'_> {
    follow_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.dotted();
        let Some(&(_, wanted)) = self.norms.iter().find(|(known, _)| *known == path) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let tracked = tensor.is_require_grad();
        let inner = tensor.inner();
        let values: Vec<f32> = inner.to_data().convert::<f32>().iter().collect();
        let norm = fixnorm_kernels::update::dot(&values, &values).sqrt();
        let inner = if norm > 0.0 { inner.mul_scalar(wanted / norm) } else { inner };
        let tensor = Tensor::from_inner(inner).set_require_grad(tracked);
        Param::from_mapped_value(id, tensor, mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::GradientsParams;
    use burn::tensor::Device;

    fn record() -> Trajectory {
        let weights = vec!["a.weight".to_owned(), "b.weight".to_owned()];
        Trajectory::new(weights, vec![0.1, 2.0, 4.0, 0.3, 1.0, 0.5]).unwrap()
    }

    #[test]
    fn effective_rates_come_back_at_any_norm() {
        let record = record();
        assert_eq!(record.steps(), 2);
        assert_eq!(record.effective_lr(0, "a.weight").unwrap(), 0.1 / 4.0);
        assert_eq!(record.effective_lr(1, "b.weight").unwrap(), 0.3 / 0.25);
        let lr = record.learning_rate(1, "b.weight", 3.0).unwrap();
        assert!((lr / 9.0 - 1.2).abs() < 1e-12);
        assert_eq!(record.lr(2), Err(ReplayError::NoStep { steps: 2, step: 2 }));
        let error = record.norm(0, "c").unwrap_err().to_string();
        assert_eq!(error, "the record has no weight c; it has a.weight, b.weight");
        let torn = Trajectory::new(vec!["a".to_owned()], vec![1.0, 2.0, 3.0]);
        assert_eq!(torn, Err(ReplayError::Torn { values: 3, row: 2 }));
    }

    #[derive(Module, Debug)]
    struct Pair {
        a: Linear,
        b: Linear,
    }

    #[test]
    fn every_layer_moves_by_its_own_rate() {
        use fixnorm::{BaseUpdate, FixNormConfig, Probe, Role, UpdateRule};
        let device = Device::flex().autodiff();
        let linear = |i, o| LinearConfig::new(i, o).with_bias(false).init(&device);
        let pair = Pair { a: linear(3, 4), b: linear(4, 2) };
        let x = Tensor::<2>::ones([5, 3], &device);
        let loss = |pair: &Pair| pair.b.forward(pair.a.forward(x.clone())).powi_scalar(2).mean();
        let probe =
            Probe::new().with_role("a.weight", Role::Free).with_role("b.weight", Role::Free);
        let roles = probe.run(&pair, loss).unwrap();
        let config = FixNormConfig::new(BaseUpdate::sgd(0.0)).with_head(UpdateRule::free());
        let (pair, mut optimizer) = config.init(pair, &roles).unwrap();
        let grads = GradientsParams::from_grads(loss(&pair).backward(), &pair);
        let gradient: Tensor<2> = grads.get(pair.b.weight.id).unwrap();
        let rates = learning_rates(0.0, [("b.weight", 0.5)]);
        let after = optimizer.step(rates, pair.clone(), grads);
        assert_eq!(after.a.weight.val().into_data(), pair.a.weight.val().into_data());
        let expected = pair.b.weight.val().inner() - gradient.mul_scalar(0.5);
        let apart = (after.b.weight.val().inner() - expected).abs().max().into_scalar::<f64>();
        assert!(apart < 1e-6, "{apart}");

        let rescaled = with_norms(after.clone(), &[("a.weight", 7.0)]);
        let norm = |w: &Param<Tensor<2>>| w.val().powi_scalar(2).sum().sqrt().into_scalar::<f64>();
        assert!((norm(&rescaled.a.weight) / 7.0 - 1.0).abs() < 1e-6);
        assert!(rescaled.a.weight.val().is_require_grad());
        assert_eq!(rescaled.b.weight.val().into_data(), after.b.weight.val().into_data());
    }
}
