//! Blocks and classifiers as operations of a graph.
//! Not here: the operations (`graph.rs`).

use burn::backend::DispatchTensor;
use burn::tensor::{Device, Tensor};

use super::graph::{Graph, Value};
use crate::Classifier;
use crate::blocks::{Block, Chain, ConvBnAct, Shortcut, ShuffleUnit, SqueezeExcite};

/// Adds a trained model to a graph and returns its logits.
pub(super) fn classifier(model: &Classifier, graph: &mut Graph, x: Value) -> Value {
    let mut x = model.stem.with_chain(|stem| chain(&stem, graph, &x));
    if model.max_pool {
        x = graph.max_pool(&x);
    }
    for own in model.stages.iter().flatten() {
        x = block(own, graph, &x);
    }
    if let Some(head) = &model.head {
        x = head.with_chain(|head| chain(&head, graph, &x));
    }
    let mut features = graph.global_average(&x);
    if let Some(hidden) = &model.hidden {
        let bias = hidden.bias.as_ref().expect("made with a bias");
        features = graph.pointwise(&features, hidden.weight.val(), bias.val());
        features = graph.activation(model.hidden_activation, features);
    }
    let bias = model.fc.bias.as_ref().expect("made with a bias");
    graph.linear(&features, model.fc.weight.val(), bias.val())
}

fn block(own: &Block, graph: &mut Graph, x: &Value) -> Value {
    let emit = |own: Chain<'_>| chain(&own, graph, x);
    match own {
        Block::Basic(block) => block.with_chain(emit),
        Block::Bottleneck(block) => block.with_chain(emit),
        Block::Inverted(block) => block.with_chain(emit),
        Block::Shuffle(block) => shuffle(block, graph, x),
    }
}

fn shuffle(unit: &ShuffleUnit, graph: &mut Graph, x: &Value) -> Value {
    let (left, right) = unit.branches();
    let (left, right) = match left {
        Some(left) => (
            left.with_chain(|left| chain(&left, graph, x)),
            right.with_chain(|right| chain(&right, graph, x)),
        ),
        None => {
            let half = x.shape[3] / 2;
            let convolved = graph.channels(x, half..2 * half);
            (graph.channels(x, 0..half), right.with_chain(|right| chain(&right, graph, &convolved)))
        }
    };
    graph.interleave(&left, &right)
}

fn chain(own: &Chain<'_>, graph: &mut Graph, x: &Value) -> Value {
    let (last, before) = own.stages.split_last().expect("a block has a stage");
    let mut y = x.clone();
    for stage in before {
        y = convolution(stage, graph, &y);
        y = graph.activation(stage.activation(), y);
    }
    if let Some(squeeze) = own.squeeze {
        y = gated(squeeze, graph, &y);
    }
    y = convolution(last, graph, &y);
    match own.shortcut {
        Shortcut::None => {}
        Shortcut::Identity { stride } => {
            let passed = graph.subsample(x, stride, y.shape[3]);
            y = graph.add(&y, &passed);
        }
        Shortcut::Projection(stage) => {
            let projected = convolution(stage, graph, x);
            y = graph.add(&y, &projected);
        }
    }
    graph.activation(last.activation(), y)
}

/// The stage without its activation: a convolution with the batch norm folded into it.
fn convolution(stage: &ConvBnAct, graph: &mut Graph, x: &Value) -> Value {
    let spec = stage.spec(x.shape, &Device::flex());
    let (means, variances) =
        spec.running.expect("a device without autodiff uses running statistics");
    let tensors = stage.tensors();
    let mut weight = floats::<4>(tensors.weight);
    let (gains, offsets) = (floats::<1>(tensors.gamma), floats::<1>(tensors.beta));
    let mut bias = Vec::with_capacity(gains.len());
    let filter = weight.len() / gains.len();
    for (channel, weights) in weight.chunks_exact_mut(filter).enumerate() {
        let deviation = (f64::from(variances[channel]) + f64::from(spec.epsilon)).sqrt();
        let scale = f64::from(gains[channel]) / deviation;
        weights.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);
        bias.push((f64::from(offsets[channel]) - f64::from(means[channel]) * scale) as f32);
    }
    graph.conv(x, &spec.shape, weight, bias)
}

/// `x` with its channels multiplied by the gates.
fn gated(squeeze: &SqueezeExcite, graph: &mut Graph, x: &Value) -> Value {
    let [reduce, reduce_bias, expand, expand_bias] = squeeze.tensors();
    let (reduce, expand) = (Tensor::from_dispatch(reduce), Tensor::from_dispatch(expand));
    let [reduce_bias, expand_bias] = [reduce_bias, expand_bias].map(Tensor::from_dispatch);
    let (hidden_activation, gate_activation) = squeeze.activations();
    let pooled = graph.global_average(x);
    let hidden = graph.pointwise(&pooled, reduce, reduce_bias);
    let hidden = graph.activation(hidden_activation, hidden);
    let gate = graph.pointwise(&hidden, expand, expand_bias);
    let gate = graph.activation(gate_activation, gate);
    graph.mul(x, &gate)
}

fn floats<const D: usize>(tensor: DispatchTensor) -> Vec<f32> {
    Tensor::<D>::from_dispatch(tensor).into_data().iter().collect()
}
