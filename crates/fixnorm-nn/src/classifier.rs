//! Stem, stages, pooling and head: the shape that every model of the registry has.
//! Not here: which blocks a model is made of (its own file).

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

use crate::block::ConvBnAct;
use crate::residual::Block;

/// What pictures a classifier takes and how many classes it tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Channels of a picture.
    pub channels: usize,
    /// Number of classes.
    pub classes: usize,
}

/// An image classifier.
#[derive(Module, Debug)]
pub struct Classifier {
    stem: ConvBnAct,
    stages: Vec<Vec<Block>>,
    fc: Linear,
}

impl Classifier {
    /// Puts a classifier together; `features` is the number of channels of the last stage.
    pub(crate) fn new(
        stem: ConvBnAct,
        stages: Vec<Vec<Block>>,
        features: usize,
        input: Input,
        device: &Device,
    ) -> Self {
        Self { stem, stages, fc: LinearConfig::new(features, input.classes).init(device) }
    }

    /// Logits of a batch.
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c]` to `[n, classes]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.features(x))
    }

    /// What the head sees: the last stage's mean over the picture.
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c]` to `[n, features]`.
    pub fn features(&self, x: Tensor<4>) -> Tensor<2> {
        let blocks = self.stages.iter().flatten();
        let x = blocks.fold(self.stem.forward(x), |x, block| block.forward(x));
        let [n, _, _, c] = x.dims();
        x.mean_dims(&[1, 2]).reshape([n, c])
    }

    /// Multiply-accumulates of one picture, convolutions and head.
    pub fn macs(&self, h: usize, w: usize) -> u64 {
        let (mut total, mut h, mut w) = self.stem.macs(h, w);
        for block in self.stages.iter().flatten() {
            let macs;
            (macs, h, w) = block.macs(h, w);
            total += macs;
        }
        total + self.fc.weight.lazy_shape().num_elements() as u64
    }

    /// Number of trainable parameters: weights, gains and biases, without running statistics.
    pub fn params(&self) -> usize {
        struct Count(usize);
        impl burn::module::ModuleVisitor for Count {
            fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
                if param.is_require_grad() {
                    self.0 += param.lazy_shape().num_elements();
                }
            }
        }
        let mut count = Count(0);
        self.visit(&mut count);
        count.0
    }
}
