//! Stem, stages, pooling and head: the shape that every model of the registry has.
//! Not here: which blocks a model is made of (its own file).

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::block::{Activation, ConvBnAct, apply, layer};
use crate::blocks::Block;
use crate::config::ModelConfig;
use crate::onnx::{Graph, Value};
use crate::pool::{global_average, max_pool};
use crate::random::{Layer, StepRng};

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
    /// A 1×1 convolution, as the reference has it, of what is a single pixel by then.
    hidden: Option<Conv2d>,
    fc: Linear,
    #[module(skip)]
    hidden_activation: Activation,
    dropout: f64,
    drop_path: f64,
    drop_path_depth: usize,
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
    /// A layer between pooling and the final one, and its activation.
    pub(crate) hidden: Option<(Conv2d, Activation)>,
    /// Channels that the final layer sees.
    pub(crate) features: usize,
    /// The path of block i is dropped with probability `drop_path`·i/`drop_path_depth`.
    pub(crate) drop_path_depth: usize,
}

/// How activations are stored between operations and what products are made of. Weights, statistics and
/// sums are `f32` in both.
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
    /// Puts a classifier together.
    pub(crate) fn new(parts: Parts, config: &ModelConfig, device: &Device) -> Self {
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
            fc: LinearConfig::new(parts.features, config.input.classes).init(device),
            hidden_activation,
            dropout: config.dropout,
            drop_path: config.drop_path,
            drop_path_depth: parts.drop_path_depth.max(1),
            precision: Precision::F32,
        }
    }

    /// The same model with its activations in `precision`.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Logits of a batch, with nothing dropped.
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c]` to `[n, classes]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.features(x))
    }

    /// Logits of a batch in training, with dropout and drop path as `rng` draws them.
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c]` to `[n, classes]`.
    pub fn forward_train(&self, x: Tensor<4>, rng: StepRng) -> Tensor<2> {
        let mut features = self.features_with(x, Some(rng));
        let [n, c] = features.dims();
        if let Some(factors) = rng.survival(Layer::Head, n * c, self.dropout) {
            let factors = Tensor::<1>::from_floats(&factors[..], &features.device());
            features = features * factors.reshape([n, c]);
        }
        self.fc.forward(features)
    }

    /// What the final layer sees, with nothing dropped.
    ///
    /// # Shapes
    /// `x`: `[n, h, w, c]` to `[n, features]`.
    pub fn features(&self, x: Tensor<4>) -> Tensor<2> {
        self.features_with(x, None)
    }

    /// The layer that turns features into logits.
    pub fn final_layer(&self) -> &Linear {
        &self.fc
    }

    fn features_with(&self, x: Tensor<4>, rng: Option<StepRng>) -> Tensor<2> {
        let n = x.dims()[0];
        let x = match self.precision {
            Precision::F32 => x,
            Precision::Bf16 => x.cast(DType::BF16),
        };
        let mut x = self.stem.forward(x);
        if self.max_pool {
            x = max_pool(x);
        }
        for (index, block) in self.stages.iter().flatten().enumerate() {
            let rate = match block.has_shortcut() {
                true => self.drop_path * index as f64 / self.drop_path_depth as f64,
                false => 0.0,
            };
            let survival = rng.and_then(|rng| rng.survival(Layer::Block(index), n, rate));
            x = block.forward(x, survival);
        }
        if let Some(head) = &self.head {
            x = head.forward(x);
        }
        let x = global_average(x);
        match &self.hidden {
            Some(hidden) => apply(self.hidden_activation, layer(hidden, x)),
            None => x,
        }
    }

    /// Whether a path of this model can be dropped at all.
    pub fn has_shortcuts(&self) -> bool {
        self.stages.iter().flatten().any(Block::has_shortcut)
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
        let mut features = graph.global_average(&x);
        if let Some(hidden) = &self.hidden {
            let bias = hidden.bias.as_ref().expect("made with a bias");
            features = graph.pointwise(&features, hidden.weight.val(), bias.val());
            features = graph.activation(self.hidden_activation, features);
        }
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
