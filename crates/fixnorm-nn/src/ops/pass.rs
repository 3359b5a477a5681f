//! The execution of a forward pass: its operations, and the other devices that share its batch.
//! Not here: the operations.

use std::str::FromStr;
use std::sync::OnceLock;

#[cfg(feature = "gpu")]
use burn::backend::DispatchDevice;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::peer::Peer;

/// The operations that a model's blocks run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockExecution {
    /// Operations of fixnorm where the device has them: whole blocks on a CPU, convolutions, normalizations and linear
    /// layers on a GPU.
    Fused,
    /// Burn's operations alone. Slower; it is what the others are compared with.
    Composed,
}

/// The execution that models of this process get.
static DEFAULT: OnceLock<BlockExecution> = OnceLock::new();

impl BlockExecution {
    /// Makes this the execution of all models that are built from now on. A program calls it once, at its start;
    /// otherwise it is [`Fused`](Self::Fused). [`Classifier::with_execution`](crate::Classifier::with_execution) chooses
    /// for one model.
    ///
    /// # Errors
    /// The execution in use, if another one was set or a model was already built.
    pub fn set_default(self) -> Result<(), Self> {
        match *DEFAULT.get_or_init(|| self) {
            current if current == self => Ok(()),
            current => Err(current),
        }
    }

    pub(crate) fn of_process() -> Self {
        *DEFAULT.get_or_init(|| Self::Fused)
    }
}

/// A name that is no [`BlockExecution`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a way to execute blocks; expected `fused` or `composed`")]
pub struct UnknownExecution(pub String);

impl FromStr for BlockExecution {
    type Err = UnknownExecution;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "fused" => Ok(Self::Fused),
            "composed" => Ok(Self::Composed),
            _ => Err(UnknownExecution(name.to_owned())),
        }
    }
}

/// What the backward pass computes again instead of keeping it in memory: the same values, for another forward pass's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// Nothing.
    #[default]
    None,
    /// Everything between a block's input and its result. On a CPU, where a block is one operation.
    Blocks,
}

/// The execution of one forward pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) execution: BlockExecution,
    pub(crate) recompute: Recompute,
    /// In training, this device's place among those that normalize together.
    pub(crate) peer: Option<&'a Peer>,
}

impl Pass<'_> {
    /// A pass on one device.
    pub(crate) const fn alone(execution: BlockExecution) -> Self {
        Self { execution, recompute: Recompute::None, peer: None }
    }

    /// Returns whether a whole block of `x` is one operation: on a CPU that does not wait for other devices.
    pub(crate) fn is_fused<const D: usize>(&self, x: &Tensor<D>) -> bool {
        self.execution == BlockExecution::Fused && on_cpu(x) && self.peer.is_none()
    }

    /// Returns whether convolutions, normalizations and linear layers of `x` run on our kernels for GPUs.
    #[cfg(feature = "gpu")]
    pub(crate) fn uses_gpu_kernels<const D: usize>(&self, x: &Tensor<D>) -> bool {
        self.execution == BlockExecution::Fused && on_gpu(x)
    }
}

/// Returns whether `x` is on Burn's CPU backend.
pub(crate) fn on_cpu<const D: usize>(x: &Tensor<D>) -> bool {
    x.device().inner() == Device::flex()
}

/// Returns whether `x` is on a device of CubeCL.
#[cfg(feature = "gpu")]
pub(crate) fn on_gpu<const D: usize>(x: &Tensor<D>) -> bool {
    matches!(x.device().inner().as_dispatch(), DispatchDevice::Cube(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_have_names() {
        assert_eq!("fused".parse(), Ok(BlockExecution::Fused));
        assert_eq!("composed".parse(), Ok(BlockExecution::Composed));
        let error = "Fused ".parse::<BlockExecution>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`Fused ` is not a way to execute blocks; expected `fused` or `composed`"
        );
    }

    #[test]
    fn the_default_is_set_before_the_first_model() {
        assert_eq!(BlockExecution::of_process(), BlockExecution::Fused);
        assert_eq!(BlockExecution::Fused.set_default(), Ok(()));
        assert_eq!(BlockExecution::Composed.set_default(), Err(BlockExecution::Fused));
    }
}
