//! Stages, squeezes and chains as operations of a graph. Blocks and classifiers, which are made of
//! these, say in their own files how.

use burn::backend::DispatchTensor;
use burn::tensor::{Device, Tensor};

use super::{Graph, Value};
use crate::block::ConvBnAct;
use crate::chain::{Chain, Shortcut};
use crate::squeeze::SqueezeExcite;

impl Chain<'_> {
    /// Adds the block, as it is after training, and gives its result.
    pub(crate) fn emit(&self, graph: &mut Graph, x: &Value) -> Value {
        let (last, before) = self.stages.split_last().expect("a block has a stage");
        let mut y = x.clone();
        for stage in before {
            y = convolution(stage, graph, &y);
            y = graph.activation(stage.activation(), y);
        }
        if let Some(squeeze) = self.squeeze {
            y = gated(squeeze, graph, &y);
        }
        y = convolution(last, graph, &y);
        match self.shortcut {
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
}

/// The stage without its activation: a convolution, the norm folded into it.
fn convolution(stage: &ConvBnAct, graph: &mut Graph, x: &Value) -> Value {
    let spec = stage.spec(x.shape, &Device::flex());
    let (means, variances) = spec.running.expect("a device without autodiff takes running ones");
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

/// `x`, its channels weighed by the squeeze.
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
