//! Runs exported graphs with a small interpreter of ONNX's operators and compares their logits with the model's.

use std::collections::HashMap;

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::pool::MaxPool2dConfig;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Distribution, Tensor, TensorData, activation, module, s};
use prost::Message;

use super::proto::{Extent, GraphProto, Model, Node, TensorProto, ValueInfo};
use super::to_onnx;
use crate::weights::Metadata;
use crate::{Classifier, Input, models};

/// All values have the shape `[n, c, h, w]`, with trailing ones where there are fewer dimensions.
struct Run<'a> {
    values: HashMap<&'a str, Tensor<4>>,
    constants: HashMap<&'a str, &'a TensorProto>,
}

/// The output of the graph for `x`.
fn run(graph: &GraphProto, x: Tensor<4>) -> Tensor<4> {
    let constants = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor));
    let mut run = Run {
        values: HashMap::from([(graph.input[0].name.as_str(), x)]),
        constants: constants.collect(),
    };
    for node in &graph.node {
        let y = run.node(node);
        assert!(run.values.insert(&node.output[0], y).is_none(), "{} twice", node.output[0]);
    }
    run.values.remove(graph.output[0].name.as_str()).expect("a node with the output")
}

impl Run<'_> {
    fn value(&self, node: &Node, index: usize) -> Tensor<4> {
        self.values[node.input[index].as_str()].clone()
    }

    fn floats(&self, node: &Node, index: usize) -> (Vec<usize>, Vec<f32>) {
        let tensor = self.constants[node.input[index].as_str()];
        assert_eq!(tensor.data_type, 1);
        let values: Vec<f32> =
            tensor.raw_data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let dims: Vec<usize> = tensor.dims.iter().map(|&dim| dim as usize).collect();
        assert_eq!(dims.iter().product::<usize>(), values.len());
        (dims, values)
    }

    fn constant<const D: usize>(&self, node: &Node, index: usize) -> Tensor<D> {
        let (dims, values) = self.floats(node, index);
        Tensor::from_data(TensorData::new(values, dims), &Device::flex())
    }

    fn integers(&self, node: &Node, index: usize) -> Vec<i64> {
        let tensor = self.constants[node.input[index].as_str()];
        assert_eq!(tensor.data_type, 7);
        let values = tensor.raw_data.as_chunks().0.iter();
        values.map(|&bytes| i64::from_le_bytes(bytes)).collect()
    }

    fn node(&self, node: &Node) -> Tensor<4> {
        let x = || self.value(node, 0);
        match node.op_type.as_str() {
            "Conv" => self.conv(node),
            "Relu" => activation::relu(x()),
            "Clip" => x().clamp(self.floats(node, 1).1[0], self.floats(node, 2).1[0]),
            "Sigmoid" => activation::sigmoid(x()),
            "HardSigmoid" => {
                let [alpha, beta] = ["alpha", "beta"].map(|name| attribute(node, name).f.unwrap());
                x().mul_scalar(alpha).add_scalar(beta).clamp(0.0, 1.0)
            }
            "HardSwish" => x() * x().div_scalar(6.0).add_scalar(0.5).clamp(0.0, 1.0),
            "Add" => x() + self.value(node, 1),
            "Mul" => x() * self.value(node, 1),
            "GlobalAveragePool" => x().mean_dims(&[2, 3]),
            "MaxPool" => {
                let pads = PaddingConfig2d::Explicit(1, 1, 1, 1);
                assert_eq!(ints(node, "pads"), [1; 4]);
                let pool = MaxPool2dConfig::new(pair(node, "kernel_shape"));
                pool.with_strides(pair(node, "strides")).with_padding(pads).init().forward(x())
            }
            "Slice" if self.integers(node, 3) == [1] => {
                let [from, to] = [1, 2].map(|input| self.integers(node, input)[0] as usize);
                x().slice(s![.., from..to])
            }
            "Concat" => {
                assert_eq!(attribute(node, "axis").i, Some(1));
                Tensor::cat(vec![x(), self.value(node, 1)], 1)
            }
            // Five dimensions are four here: the last two are one.
            "Reshape" => {
                let n = x().dims()[0];
                match self.integers(node, 1)[..] {
                    [0, pair, c, h, w] => x().reshape([n as i64, pair, c, h * w]),
                    [0, c, h, w] => x().reshape([n as i64, c, h, w]),
                    ref other => panic!("{other:?}"),
                }
            }
            "Transpose" => {
                assert_eq!(ints(node, "perm"), [0, 2, 1, 3, 4]);
                x().swap_dims(1, 2)
            }
            "Slice" => {
                assert_eq!(self.integers(node, 3), [2, 3]);
                let steps = self.integers(node, 4);
                let (rows, columns) = (steps[0] as isize, steps[1] as isize);
                x().slice(s![.., .., 0..;rows, 0..;columns])
            }
            "Pad" => {
                let pads = self.integers(node, 1);
                let added = pads[5] as usize;
                assert_eq!(pads.iter().sum::<i64>(), pads[5]);
                let [n, _, h, w] = x().dims();
                Tensor::cat(vec![x(), Tensor::zeros([n, added, h, w], &Device::flex())], 1)
            }
            "Flatten" => x(),
            "Gemm" => {
                let [n, c, _, _] = x().dims();
                let y = x().reshape([n, c]).matmul(self.constant::<2>(node, 1));
                let y = y + self.constant::<1>(node, 2).unsqueeze::<2>();
                let [n, c] = y.dims();
                y.reshape([n, c, 1, 1])
            }
            other => panic!("unknown operator {other}"),
        }
    }

    fn conv(&self, node: &Node) -> Tensor<4> {
        let &[top, left, bottom, right] = &ints(node, "pads")[..] else { panic!("{node:?}") };
        let x = self.value(node, 0).pad(
            (left as usize, right as usize, top as usize, bottom as usize),
            burn::tensor::ops::PadMode::Constant(0.0),
        );
        let group = attribute(node, "group").i.unwrap() as usize;
        let options = ConvOptions::new(pair(node, "strides"), [0, 0], [1, 1], group);
        let weight = self.constant::<4>(node, 1);
        assert_eq!(pair(node, "kernel_shape"), [weight.dims()[2], weight.dims()[3]]);
        module::conv2d(x, weight, Some(self.constant::<1>(node, 2)), options)
    }
}

fn attribute<'a>(node: &'a Node, name: &str) -> &'a super::proto::Attribute {
    node.attribute.iter().find(|attribute| attribute.name == name).expect(name)
}

fn ints(node: &Node, name: &str) -> Vec<i64> {
    attribute(node, name).ints.clone()
}

fn pair(node: &Node, name: &str) -> [usize; 2] {
    let values = ints(node, name);
    [values[0] as usize, values[1] as usize]
}

fn sizes(info: &ValueInfo) -> Vec<Option<i64>> {
    let tensor = info.kind.as_ref().unwrap().tensor_type.as_ref().unwrap();
    let dims = tensor.shape.as_ref().unwrap().dim.iter();
    dims.map(|dim| match dim.extent.as_ref().unwrap() {
        Extent::Value(value) => Some(*value),
        Extent::Name(_) => None,
    })
    .collect()
}

/// A model with running statistics of some batches.
fn trained(spec: &'static crate::ModelSpec, input: Input) -> Classifier {
    let device = Device::flex().autodiff();
    let model = spec.init(input, 5, &device);
    for _ in 0..2 {
        let shape = [4, 32, 32, input.channels];
        model.forward(Tensor::random(shape, Distribution::Normal(0.2, 1.0), &device));
    }
    model
}

#[test]
fn the_graph_of_every_model_gives_the_models_logits() {
    let input = Input { channels: 3, classes: 7 };
    // Odd, and not square: sizes at which a wrong padding shows.
    let [h, w] = [45, 38];
    for spec in models() {
        let model = trained(spec, input);
        let metadata = Metadata::from([("classes".to_owned(), "[]".to_owned())]);
        let bytes = to_onnx(&model, [h, w, 3], &metadata);
        let onnx = Model::decode(&bytes[..]).unwrap();
        assert_eq!((onnx.ir_version, onnx.opset_import[0].version), (8, 17));
        assert_eq!(onnx.metadata_props[0].key, "classes");
        let graph = onnx.graph.as_ref().unwrap();
        assert_eq!(sizes(&graph.input[0]), [None, Some(3), Some(h as i64), Some(w as i64)]);
        assert_eq!(sizes(&graph.output[0]), [None, Some(7)]);

        let x = Tensor::<4>::random([2, h, w, 3], Distribution::Normal(0.0, 1.0), &Device::flex());
        let expected: Vec<f32> = model.valid().forward(x.clone()).into_data().iter().collect();
        let found: Vec<f32> = run(graph, x.permute([0, 3, 1, 2])).into_data().iter().collect();
        let scale = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
        assert!(scale > 1e-3, "{}: all logits are 0", spec.name);
        for (found, expected) in found.iter().zip(&expected) {
            let off = (found - expected).abs() / scale;
            assert!(off < 1e-4, "{}: {found}, {expected}", spec.name);
        }
    }
}
