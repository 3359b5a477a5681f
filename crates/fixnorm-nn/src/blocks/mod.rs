//! The blocks that models are made of. Activations are NHWC, `[n, h, w, c]`.
//!
//! | file | contents |
//! |---|---|
//! | `conv_bn_act.rs` | convolution, batch norm and activation |
//! | `squeeze.rs` | squeeze-and-excitation |
//! | `chain.rs` | the structure of a block, and its two executions |
//! | `residual.rs`, `inverted.rs`, `shuffle.rs` | the block kinds |
//!
//! Not here: which blocks a model has (`models`), the operations (`ops`).

mod chain;
mod conv_bn_act;
mod inverted;
mod residual;
mod shuffle;
mod squeeze;
#[cfg(test)]
mod tests;

use burn::module::Module;
use burn::tensor::Tensor;

pub(crate) use chain::{Chain, Shortcut};
pub use conv_bn_act::{Activation, ConvBnAct, ConvBnActConfig, ConvStyle, Padding};
pub use inverted::{InvertedResidual, InvertedResidualConfig};
pub use residual::{BasicBlock, BasicBlockConfig, Bottleneck, BottleneckConfig, Narrowing};
pub use shuffle::{ShuffleUnit, ShuffleUnitConfig};
pub use squeeze::{SqueezeExcite, SqueezeExciteConfig};

use crate::ops::pass::Pass;

/// A block of any kind.
#[expect(clippy::large_enum_variant, reason = "a few dozen a model, beside megabytes of weights")]
#[derive(Module, Debug)]
pub enum Block {
    /// Two 3×3 convolutions.
    Basic(BasicBlock),
    /// A 3×3 convolution between two 1×1 ones.
    Bottleneck(Bottleneck),
    /// A depthwise convolution between two 1×1 ones.
    Inverted(InvertedResidual),
    /// Convolved channels, interleaved with others.
    Shuffle(ShuffleUnit),
}

impl Block {
    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, ⌈h/stride⌉, ⌈w/stride⌉, c_out]`; `survival`: `[n]`, the factor of
    /// each sample's result before the shortcut is added.
    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        survival: Option<Vec<f32>>,
        pass: Pass<'_>,
    ) -> Tensor<4> {
        let run = |chain: Chain<'_>| chain.forward(x.clone(), survival, pass);
        match self {
            Block::Basic(block) => block.with_chain(run),
            Block::Bottleneck(block) => block.with_chain(run),
            Block::Inverted(block) => block.with_chain(run),
            Block::Shuffle(block) => block.forward(x, pass),
        }
    }

    /// Returns whether a sample has a shortcut besides the path that drop path leaves out.
    pub(crate) fn has_shortcut(&self) -> bool {
        match self {
            Block::Basic(_) | Block::Bottleneck(_) => true,
            Block::Inverted(block) => block.has_shortcut(),
            Block::Shuffle(_) => false,
        }
    }

    pub(crate) fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        match self {
            Block::Basic(block) => block.macs(h, w),
            Block::Bottleneck(block) => block.macs(h, w),
            Block::Inverted(block) => block.macs(h, w),
            Block::Shuffle(block) => block.macs(h, w),
        }
    }
}
