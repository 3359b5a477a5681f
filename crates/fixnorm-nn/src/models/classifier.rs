//! Stem, stages, pooling and head: the structure of every model of the registry.
//! Not here: which blocks a model has (its family's file), a model as an ONNX graph (`onnx`).

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::init::replace;
use super::step_rng::{Layer, StepRng};
use crate::blocks::{Activation, Block, ConvBnAct};
use crate::ops::composed::apply;
use crate::ops::linear::{linear, pointwise};
use crate::ops::pass::{BlockExecution, Pass, Recompute};
use crate::ops::peer::Peer;
use crate::ops::pool::{global_average, max_pool};

/// Channels of a classifier's images and number of its classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Channels of an image.
    pub channels: usize,
    /// Number of classes.
    pub classes: usize,
}

/// An image classifier.
#[derive(Module, Debug)]
pub struct Classifier {
    pub(crate) stem: ConvBnAct,
    pub(crate) max_pool: bool,
    pub(crate) stages: Vec<Vec<Block>>,
    pub(crate) head: Option<ConvBnAct>,
    /// A 1×1 convolution of a single pixel, as in the reference.
    pub(crate) hidden: Option<Conv2d>,
    pub(crate) fc: Linear,
    #[module(skip)]
    pub(crate) hidden_activation: Activation,
    dropout: f64,
    drop_path: f64,
    drop_path_depth: usize,
    #[module(skip)]
    precision: Precision,
    #[module(skip)]
    execution: BlockExecution,
    #[module(skip)]
    recompute: Recompute,
}

/// The layers of a classifier but for the final one.
pub(crate) struct ClassifierParts {
    pub(crate) stem: ConvBnAct,
    /// Whether a 3×3 maximum of stride 2 follows the stem.
    pub(crate) max_pool: bool,
    pub(crate) stages: Vec<Vec<Block>>,
    /// Widens the last stage's channels.
    pub(crate) head: Option<ConvBnAct>,
    /// A layer between pooling and the final one, and its activation.
    pub(crate) hidden: Option<(Conv2d, Activation)>,
    /// Input channels of the final layer.
    pub(crate) features: usize,
    /// The path of block i is dropped with probability `drop_path`·i/`drop_path_depth`.
    pub(crate) drop_path_depth: usize,
}

/// Options of a classifier that do not depend on its architecture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClassifierOptions {
    pub(crate) classes: usize,
    pub(crate) dropout: f64,
    pub(crate) drop_path: f64,
}

/// Precision of activations between operations, and of the factors of products. Weights, statistics and sums are `f32`
/// in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the exponent of 32.
    Bf16,
}

impl Classifier {
    /// Builds a classifier on `device`.
    pub(crate) fn new(parts: ClassifierParts, options: ClassifierOptions, device: &Device) -> Self {
        let (hidden, hidden_activation) = match parts.hidden {
            Some((layer, activation)) => (Some(layer), activation),
            None => (None, Activation::Identity),
        };
        Self {
            stem: parts.stem,
            max_pool: parts.max_pool,
            stages: parts.stages,
            head: parts.head,
            hidden,
            fc: LinearConfig::new(parts.features, options.classes).init(device),
            hidden_activation,
            dropout: options.dropout,
            drop_path: options.drop_path,
            drop_path_depth: parts.drop_path_depth.max(1),
            precision: Precision::F32,
            execution: BlockExecution::of_process(),
            recompute: Recompute::None,
        }
    }

    /// The same model with its activations in `precision`.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The same model with its blocks executed in this way.
    pub fn with_execution(mut self, execution: BlockExecution) -> Self {
        self.execution = execution;
        self
    }

    /// The same model whose training computes this again in the backward pass. The gradients are the same to the bit.
    pub fn with_recompute(mut self, recompute: Recompute) -> Self {
        self.recompute = recompute;
        self
    }

    /// Logits of a batch, without dropout and drop path.
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c]` to `[n, classes]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        linear(&self.fc, self.features(x), Pass::alone(self.execution))
    }

    /// Logits of a batch in training, with dropout and drop path as `rng` draws them. With a `peer`, batch norms use the
    /// statistics of all peers' batches together: every peer calls this on as many images, on a thread of its own within
    /// [`Peer::run`].
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c]` to `[n, classes]`.
    pub fn forward_train(&self, x: Tensor<4>, rng: StepRng, peer: Option<&Peer>) -> Tensor<2> {
        let pass = Pass { execution: self.execution, recompute: self.recompute, peer };
        let mut features = self.features_in(x, Some(rng), pass);
        let [n, c] = features.dims();
        if let Some(factors) = rng.survival(Layer::Head, n * c, self.dropout) {
            let factors = Tensor::<1>::from_floats(&factors[..], &features.device());
            features = features * factors.reshape([n, c]);
        }
        linear(&self.fc, features, pass)
    }

    /// Input of the final layer, without dropout and drop path.
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c]` to `[n, features]`.
    pub fn features(&self, x: Tensor<4>) -> Tensor<2> {
        self.features_in(x, None, Pass::alone(self.execution))
    }

    /// The linear layer from features to logits.
    pub fn final_layer(&self) -> &Linear {
        &self.fc
    }

    /// Replaces the final layer by that of `other`, whose class `rows[i]` becomes class i.
    ///
    /// # Panics
    /// If the final layers differ in shape, or `rows` does not have one entry, below the number of classes, a class.
    pub fn with_final_layer_of(mut self, other: &Self, rows: &[usize]) -> Self {
        let device = other.fc.weight.val().device();
        let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let rows =
            Tensor::<1, Int>::from_data(TensorData::new(rows.clone(), [rows.len()]), &device);
        // Through memory, so that the values are parameters of their own and none of `other`'s graph.
        let weight = other.fc.weight.val().select(1, rows.clone()).into_data();
        let bias = other.fc.bias.as_ref().map(|bias| bias.val().select(0, rows).into_data());
        self.fc.weight = replace(self.fc.weight, Tensor::from_data(weight, &device));
        self.fc.bias = self
            .fc
            .bias
            .zip(bias)
            .map(|(own, bias)| replace(own, Tensor::from_data(bias, &device)));
        self
    }

    fn features_in(&self, x: Tensor<4>, rng: Option<StepRng>, pass: Pass<'_>) -> Tensor<2> {
        let n = x.dims()[0];
        let x = match self.precision {
            Precision::F32 => x,
            Precision::Bf16 => x.cast(DType::BF16),
        };
        let mut x = self.stem.forward_in(x, pass);
        if self.max_pool {
            x = max_pool(x, pass);
        }
        for (index, block) in self.stages.iter().flatten().enumerate() {
            let rate = if block.has_shortcut() {
                self.drop_path * index as f64 / self.drop_path_depth as f64
            } else {
                0.0
            };
            let survival = rng.and_then(|rng| rng.survival(Layer::Block(index), n, rate));
            x = block.forward(x, survival, pass);
        }
        if let Some(head) = &self.head {
            x = head.forward_in(x, pass);
        }
        let x = global_average(x, pass);
        match &self.hidden {
            Some(hidden) => apply(self.hidden_activation, pointwise(hidden, x, pass)),
            None => x,
        }
    }

    /// Returns whether drop path applies to any block of this model.
    pub fn has_shortcuts(&self) -> bool {
        self.stages.iter().flatten().any(Block::has_shortcut)
    }

    /// Multiply-accumulates of one image in convolutions and linear layers.
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
        let hidden =
            self.hidden.as_ref().map_or(0, |hidden| hidden.weight.lazy_shape().num_elements());
        total + (hidden + self.fc.weight.lazy_shape().num_elements()) as u64
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
