//! The block kinds that a stage can be made of.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::chain::Chain;
use crate::inverted::InvertedResidual;
use crate::onnx::{Graph, Value};
use crate::residual::{BasicBlock, Bottleneck};

/// A block of any kind.
#[derive(Module, Debug)]
pub enum Block {
    /// Two 3×3 convolutions.
    Basic(BasicBlock),
    /// A 3×3 convolution between two 1×1 ones.
    Bottleneck(Bottleneck),
    /// A depthwise convolution between two 1×1 ones.
    Inverted(InvertedResidual),
}

impl Block {
    /// # Shapes
    /// `x`: `[n, h, w, c]`, as the block's own `forward`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Block::Basic(block) => block.forward(x),
            Block::Bottleneck(block) => block.forward(x),
            Block::Inverted(block) => block.forward(x),
        }
    }

    /// Adds the block to a graph.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Value) -> Value {
        let emit = |chain: Chain<'_>| chain.emit(graph, x);
        match self {
            Block::Basic(block) => block.with_chain(emit),
            Block::Bottleneck(block) => block.with_chain(emit),
            Block::Inverted(block) => block.with_chain(emit),
        }
    }

    pub(crate) fn macs(&self, h: usize, w: usize) -> (u64, usize, usize) {
        match self {
            Block::Basic(block) => block.macs(h, w),
            Block::Bottleneck(block) => block.macs(h, w),
            Block::Inverted(block) => block.macs(h, w),
        }
    }
}
