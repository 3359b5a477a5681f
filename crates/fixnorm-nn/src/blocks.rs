//! The block kinds that a stage can be made of.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::chain::Chain;
use crate::inverted::InvertedResidual;
use crate::onnx::{Graph, Value};
use crate::residual::{BasicBlock, Bottleneck};
use crate::shuffle::ShuffleUnit;

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
    /// Channels that pass by, interleaved with convolved ones.
    Shuffle(ShuffleUnit),
}

impl Block {
    /// # Shapes
    /// `x`: `[n, h, w, c_in]` to `[n, ⌈h/stride⌉, ⌈w/stride⌉, c_out]`; `survival`: `[n]`, the factor of
    /// each sample's result before the shortcut is added.
    pub(crate) fn forward(&self, x: Tensor<4>, survival: Option<Vec<f32>>) -> Tensor<4> {
        let run = |chain: Chain<'_>| chain.forward(x.clone(), survival);
        match self {
            Block::Basic(block) => block.with_chain(run),
            Block::Bottleneck(block) => block.with_chain(run),
            Block::Inverted(block) => block.with_chain(run),
            Block::Shuffle(block) => block.forward(x),
        }
    }

    /// Whether something is left of a sample whose path is dropped.
    pub(crate) fn has_shortcut(&self) -> bool {
        match self {
            Block::Basic(_) | Block::Bottleneck(_) => true,
            Block::Inverted(block) => block.has_shortcut(),
            Block::Shuffle(_) => false,
        }
    }

    /// Adds the block to a graph.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Value) -> Value {
        let emit = |chain: Chain<'_>| chain.emit(graph, x);
        match self {
            Block::Basic(block) => block.with_chain(emit),
            Block::Bottleneck(block) => block.with_chain(emit),
            Block::Inverted(block) => block.with_chain(emit),
            Block::Shuffle(block) => block.emit(graph, x),
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
