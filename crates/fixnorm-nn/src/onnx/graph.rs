//! A graph that grows by whole operations: each takes values and returns a new one.
//! Not here: which operations a block is (`emit.rs`), the messages (`proto.rs`).

use std::ops::Range;

use burn::tensor::Tensor;
use fixnorm_kernels::Activation;
use fixnorm_kernels::conv::ConvShape;

use super::proto::{
    Attribute, Dimension, Extent, GraphProto, Node, TensorProto, TensorShape, TensorType,
    TypeProto, ValueInfo,
};

const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// The images or an activation, `[n, c, h, w]` in the file.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    name: String,
    /// `[1, h, w, c]`, as in our own code.
    pub(crate) shape: [usize; 4],
}

impl Value {
    /// The graph's input.
    pub(super) fn input(h: usize, w: usize, c: usize) -> Self {
        Self { name: INPUT.to_owned(), shape: [1, h, w, c] }
    }
}

const INPUT: &str = "pictures";
const OUTPUT: &str = "logits";

/// Nodes and constants so far.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
    constants: Vec<TensorProto>,
}

impl Graph {
    /// A convolution with a bias.
    pub(super) fn conv(
        &mut self,
        x: &Value,
        shape: &ConvShape,
        weight: Vec<f32>,
        bias: Vec<f32>,
    ) -> Value {
        let side = shape.kernel;
        let dims = [shape.c_out, shape.c_in / shape.groups, side, side];
        let weight = self.floats(&dims, weight);
        let bias = self.floats(&[shape.c_out], bias);
        // Padding below and to the right.
        let after = |size: usize, out: usize, before: usize| {
            ((out - 1) * shape.stride + side).saturating_sub(size + before)
        };
        let bottom = after(shape.h, shape.h_out, shape.top);
        let right = after(shape.w, shape.w_out, shape.left);
        let attributes = vec![
            ints("kernel_shape", &[side, side]),
            ints("strides", &[shape.stride, shape.stride]),
            ints("pads", &[shape.top, shape.left, bottom, right]),
            int("group", shape.groups),
        ];
        let out = [1, shape.h_out, shape.w_out, shape.c_out];
        self.node("Conv", &[&x.name, &weight, &bias], attributes, out)
    }

    /// An activation, of one or two nodes.
    pub(crate) fn activation(&mut self, activation: Activation, x: Value) -> Value {
        let shape = x.shape;
        match activation {
            Activation::Identity => x,
            Activation::Relu => self.node("Relu", &[&x.name], vec![], shape),
            Activation::Relu6 => {
                let [least, most] = [0.0, 6.0].map(|bound| self.floats(&[], vec![bound]));
                self.node("Clip", &[&x.name, &least, &most], vec![], shape)
            }
            Activation::Silu => {
                let gate = self.activation(Activation::Sigmoid, x.clone());
                self.mul(&x, &gate)
            }
            Activation::HardSwish => self.node("HardSwish", &[&x.name], vec![], shape),
            Activation::HardSigmoid => {
                let attributes = vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)];
                self.node("HardSigmoid", &[&x.name], attributes, shape)
            }
            Activation::Sigmoid => self.node("Sigmoid", &[&x.name], vec![], shape),
        }
    }

    pub(super) fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Add", &[&a.name, &b.name], vec![], a.shape)
    }

    /// `a` times `b`, which may be a single pixel.
    pub(super) fn mul(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Mul", &[&a.name, &b.name], vec![], a.shape)
    }

    /// The mean over the pixels, as an image of one pixel.
    pub(crate) fn global_average(&mut self, x: &Value) -> Value {
        self.node("GlobalAveragePool", &[&x.name], vec![], [1, 1, 1, x.shape[3]])
    }

    /// The maximum of each 3×3 window, at every second pixel.
    pub(crate) fn max_pool(&mut self, x: &Value) -> Value {
        let [_, h, w, c] = x.shape;
        let attributes = vec![
            ints("kernel_shape", &[3, 3]),
            ints("strides", &[2, 2]),
            ints("pads", &[1, 1, 1, 1]),
        ];
        self.node("MaxPool", &[&x.name], attributes, [1, h.div_ceil(2), w.div_ceil(2), c])
    }

    /// Every `stride`-th pixel, with zeros for channels up to `c_out`.
    pub(super) fn subsample(&mut self, x: &Value, stride: usize, c_out: usize) -> Value {
        let [_, h, w, c] = x.shape;
        let mut y = x.clone();
        if stride > 1 {
            let [starts, ends, axes, steps] = [[0, 0], [i64::MAX; 2], [2, 3], [stride as i64; 2]]
                .map(|values| self.integers(&values));
            let inputs = [&x.name[..], &starts, &ends, &axes, &steps];
            let shape = [1, h.div_ceil(stride), w.div_ceil(stride), c];
            y = self.node("Slice", &inputs, vec![], shape);
        }
        if c_out > c {
            let pads = self.integers(&[0, 0, 0, 0, 0, (c_out - c) as i64, 0, 0]);
            let [_, h, w, _] = y.shape;
            y = self.node("Pad", &[&y.name, &pads], vec![], [1, h, w, c_out]);
        }
        y
    }

    /// The channels `range`.
    pub(crate) fn channels(&mut self, x: &Value, range: Range<usize>) -> Value {
        let [_, h, w, _] = x.shape;
        let [starts, ends, axes] =
            [range.start, range.end, 1].map(|value| self.integers(&[value as i64]));
        let shape = [1, h, w, range.len()];
        self.node("Slice", &[&x.name, &starts, &ends, &axes], vec![], shape)
    }

    /// Channels of `a` and `b`, which have equally many, in turns.
    pub(crate) fn interleave(&mut self, a: &Value, b: &Value) -> Value {
        let [_, h, w, c] = a.shape;
        let shape = [1, h, w, 2 * c];
        // The batch size is open: a zero keeps it.
        let [pairs, flat] = [&[0, 2, c, h, w][..], &[0, 2 * c, h, w][..]].map(|sizes| {
            let sizes: Vec<i64> = sizes.iter().map(|&size| size as i64).collect();
            self.integers(&sizes)
        });
        let joined = self.node("Concat", &[&a.name, &b.name], vec![int("axis", 1)], shape);
        let split = self.node("Reshape", &[&joined.name, &pairs], vec![], shape);
        let order = vec![ints("perm", &[0, 2, 1, 3, 4])];
        let turned = self.node("Transpose", &[&split.name], order, shape);
        self.node("Reshape", &[&turned.name, &flat], vec![], shape)
    }

    /// A 1×1 convolution with a bias. `weight` is `[c_out, c_in, 1, 1]`.
    pub(crate) fn pointwise(&mut self, x: &Value, weight: Tensor<4>, bias: Tensor<1>) -> Value {
        let shape = ConvShape::symmetric(x.shape, bias.dims()[0], 1, 1, 1);
        let [weight, bias] =
            [weight.into_data(), bias.into_data()].map(|data| data.iter().collect());
        self.conv(x, &shape, weight, bias)
    }

    /// A linear layer of a single pixel. `weight` is `[c_in, c_out]`.
    pub(crate) fn linear(&mut self, x: &Value, weight: Tensor<2>, bias: Tensor<1>) -> Value {
        let [c_in, c_out] = weight.dims();
        let flat = self.node("Flatten", &[&x.name], vec![int("axis", 1)], x.shape);
        let weight = self.floats(&[c_in, c_out], weight.into_data().iter().collect());
        let bias = self.floats(&[c_out], bias.into_data().iter().collect());
        self.node("Gemm", &[&flat.name, &weight, &bias], vec![], [1, 1, 1, c_out])
    }

    /// The graph from `pictures` of `[h, w, c]` to `logits`.
    pub(super) fn finish(mut self, [h, w, c]: [usize; 3], logits: &Value) -> GraphProto {
        let last = self.nodes.iter_mut().flat_map(|node| &mut node.output);
        last.filter(|name| **name == logits.name).for_each(|name| *name = OUTPUT.to_owned());
        GraphProto {
            node: self.nodes,
            name: "classifier".to_owned(),
            initializer: self.constants,
            input: vec![described(INPUT, &[c, h, w])],
            output: vec![described(OUTPUT, &logits.shape[3..])],
        }
    }

    fn node(
        &mut self,
        kind: &str,
        inputs: &[&str],
        attribute: Vec<Attribute>,
        shape: [usize; 4],
    ) -> Value {
        let name = format!("{}_{}", kind.to_lowercase(), self.nodes.len());
        self.nodes.push(Node {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: kind.to_owned(),
            attribute,
        });
        Value { name, shape }
    }

    fn floats(&mut self, dims: &[usize], values: Vec<f32>) -> String {
        let raw_data = values.into_iter().flat_map(f32::to_le_bytes).collect();
        self.constant(dims, FLOAT, raw_data)
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(&[values.len()], INT64, raw_data)
    }

    fn constant(&mut self, dims: &[usize], data_type: i32, raw_data: Vec<u8>) -> String {
        let name = format!("constant_{}", self.constants.len());
        let dims = dims.iter().map(|&dim| dim as i64).collect();
        self.constants.push(TensorProto { dims, data_type, name: name.clone(), raw_data });
        name
    }
}

fn int(name: &str, value: usize) -> Attribute {
    Attribute { name: name.to_owned(), i: Some(value as i64), kind: 2, ..Default::default() }
}

fn float(name: &str, value: f32) -> Attribute {
    Attribute { name: name.to_owned(), f: Some(value), kind: 1, ..Default::default() }
}

fn ints(name: &str, values: &[usize]) -> Attribute {
    let ints = values.iter().map(|&value| value as i64).collect();
    Attribute { name: name.to_owned(), ints, kind: 7, ..Default::default() }
}

/// A value with an open batch size and these sizes.
fn described(name: &str, sizes: &[usize]) -> ValueInfo {
    let open = Extent::Name("batch".to_owned());
    let extents = std::iter::once(open).chain(sizes.iter().map(|&size| Extent::Value(size as i64)));
    let dim = extents.map(|extent| Dimension { extent: Some(extent) }).collect();
    let tensor = TensorType { elem_type: FLOAT, shape: Some(TensorShape { dim }) };
    ValueInfo { name: name.to_owned(), kind: Some(TypeProto { tensor_type: Some(tensor) }) }
}
