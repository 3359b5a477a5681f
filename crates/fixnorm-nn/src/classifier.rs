//! Stem, stages, pooling and head: the shape that every model of the registry has.
//! Not here: which blocks a model is made of (its own file).

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor};

use crate::block::ConvBnAct;
use crate::blocks::Block;
use crate::onnx::{Graph, Value};
use crate::pool::{global_average, max_pool};

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
    max_pool: bool,
    stages: Vec<Vec<Block>>,
    head: Option<ConvBnAct>,
    fc: Linear,
    #[module(skip)]
    precision: Precision,
}

/// What a classifier is made of.
pub(crate) struct Parts {
    pub(crate) stem: ConvBnAct,
    /// Whether the stem's result is halved again by a 3×3 maximum.
    pub(crate) max_pool: bool,
    pub(crate) stages: Vec<Vec<Block>>,
    /// Widens the last stage's channels.
    pub(crate) head: Option<ConvBnAct>,
    /// Channels that the final layer sees.
    pub(crate) features: usize,
}

/// How activations are stored between operations and what products are made of. Weights, statistics and
/// sums are `f32` in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the exponent of 32.
    Bf16,
}

impl Classifier {
    /// Puts a classifier together.
    pub(crate) fn new(parts: Parts, input: Input, device: &Device) -> Self {
        Self {
            stem: parts.stem,
            max_pool: parts.max_pool,
            stages: parts.stages,
            head: parts.head,
            fc: LinearConfig::new(parts.features, input.classes).init(device),
            precision: Precision::F32,
        }
    }

    /// The same model with its activations in `precision`.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Logits of a batch.
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c]` to `[n, classes]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.features(x))
    }

    /// What the final layer sees: the last stage's mean over the picture.
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c]` to `[n, features]`.
    pub fn features(&self, x: Tensor<4>) -> Tensor<2> {
        let x = match self.precision {
            Precision::F32 => x,
            Precision::Bf16 => x.cast(DType::BF16),
        };
        let mut x = self.stem.forward(x);
        if self.max_pool {
            x = max_pool(x);
        }
        x = self.stages.iter().flatten().fold(x, |x, block| block.forward(x));
        if let Some(head) = &self.head {
            x = head.forward(x);
        }
        global_average(x)
    }

    /// Adds the model, as it is after training, to a graph, and gives its logits.
    pub(crate) fn emit(&self, graph: &mut Graph, x: Value) -> Value {
        let mut x = self.stem.with_chain(|chain| chain.emit(graph, &x));
        if self.max_pool {
            x = graph.max_pool(&x);
        }
        for block in self.stages.iter().flatten() {
            x = block.emit(graph, &x);
        }
        if let Some(head) = &self.head {
            x = head.with_chain(|chain| chain.emit(graph, &x));
        }
        let features = graph.global_average(&x);
        let bias = self.fc.bias.as_ref().expect("made with a bias");
        graph.linear(&features, self.fc.weight.val(), bias.val())
    }

    /// Multiply-accumulates of one picture, convolutions and head.
    pub fn macs(&self, h: usize, w: usize) -> u64 {
        let (mut total, mut h, mut w) = self.stem.macs(h, w);
        if self.max_pool {
            (h, w) = (h.div_ceil(2), w.div_ceil(2));
        }
        for block in self.stages.iter().flatten() {
            let macs;
            (macs, h, w) = block.macs(h, w);
            total += macs;
        }
        total += self.head.as_ref().map_or(0, |head| head.macs(h, w).0);
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
