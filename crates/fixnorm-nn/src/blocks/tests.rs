//! Compares fused blocks with the same blocks composed of Burn's operations: result, gradients, running statistics, in
//! training and evaluation.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Distribution};

use super::chain::{Chain, Shortcut};
use super::*;
use crate::ops::pass::{BlockExecution, Recompute};

const FUSED: Pass<'static> = Pass::alone(BlockExecution::Fused);
const COMPOSED: Pass<'static> = Pass::alone(BlockExecution::Composed);

/// A block under test.
#[expect(clippy::large_enum_variant, reason = "a handful of values")]
enum Subject {
    Conv(ConvBnAct),
    Block(Block),
}

impl Subject {
    fn with_chain<R>(&self, run: impl FnOnce(Chain<'_>) -> R) -> R {
        match self {
            Subject::Conv(conv) => conv.with_chain(run),
            Subject::Block(block) => match block {
                Block::Basic(block) => block.with_chain(run),
                Block::Bottleneck(block) => block.with_chain(run),
                Block::Inverted(block) => block.with_chain(run),
                Block::Shuffle(_) => unreachable!("not one chain"),
            },
        }
    }

    fn map(self, f: impl FnOnce(Block) -> Block, g: impl FnOnce(ConvBnAct) -> ConvBnAct) -> Self {
        match self {
            Subject::Conv(conv) => Subject::Conv(g(conv)),
            Subject::Block(block) => Subject::Block(f(block)),
        }
    }

    fn visit(&self, visitor: &mut impl ModuleVisitor) {
        match self {
            Subject::Conv(conv) => conv.visit(visitor),
            Subject::Block(block) => block.visit(visitor),
        }
    }
}

fn inverted(c_out: usize, stride: usize, activation: Activation) -> InvertedResidualConfig {
    InvertedResidualConfig {
        c_in: 8,
        inside: 24,
        c_out,
        kernel: 3,
        stride,
        activation,
        squeeze: Some(SqueezeExciteConfig { activation, ..SqueezeExciteConfig::new(24, 5) }),
        shortcut: true,
        style: ConvStyle::default(),
    }
}

/// A name, a block, and its input channels.
fn subjects(device: &Device) -> Vec<(&'static str, Subject, usize)> {
    let style = ConvStyle::default();
    let same = ConvStyle { padding: Padding::Same, epsilon: 1e-3, momentum: 0.3 };
    let conv = ConvBnActConfig::new(3, 10, 3).with_stride(2).with_activation(Activation::HardSwish);
    let depthwise = ConvBnActConfig::depthwise(17, 5).with_activation(Activation::Relu6);
    let basic = |c_out, stride, narrowing, style| {
        let config = BasicBlockConfig { c_in: 6, c_out, stride, narrowing, style };
        Subject::Block(Block::Basic(config.init(device)))
    };
    let bottleneck = |c_in, stride| {
        let config = BottleneckConfig { c_in, width: 4, stride, style };
        Subject::Block(Block::Bottleneck(config.init(device)))
    };
    let inverted = |c_out, stride, activation| {
        Subject::Block(Block::Inverted(inverted(c_out, stride, activation).init(device)))
    };
    vec![
        ("stem", Subject::Conv(conv.init(device)), 3),
        ("stem, same", Subject::Conv(conv.with_style(same).init(device)), 3),
        ("depthwise", Subject::Conv(depthwise.init(device)), 17),
        (
            "depthwise, same",
            Subject::Conv(depthwise.with_stride(2).with_style(same).init(device)),
            17,
        ),
        ("basic", basic(6, 1, Narrowing::Subsample, style), 6),
        ("basic, narrowing", basic(9, 2, Narrowing::Subsample, style), 6),
        ("basic, projecting", basic(9, 2, Narrowing::Project, same), 6),
        ("bottleneck", bottleneck(16, 1), 16),
        ("bottleneck with projection", bottleneck(6, 2), 6),
        ("inverted", inverted(8, 1, Activation::Silu), 8),
        ("inverted, narrowing", inverted(11, 2, Activation::Relu6), 8),
    ]
}

/// Gradients of all parameters, and the values of running statistics, which have none.
struct Collect<'a> {
    grads: &'a burn::tensor::Gradients,
    found: Vec<(String, Vec<f32>)>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = match param.val().grad(self.grads) {
            Some(grad) => grad.into_data(),
            None => param.val().into_data(),
        };
        self.found.push((format!("{:?}", param.lazy_shape()), value.iter().collect()));
    }
}

fn close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    // Before a normalization the terms of a gradient, of order 1, cancel: rounding is relative to their sum.
    let scale = expected.iter().fold(0.1f32, |most, v| most.max(v.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance * scale, "{what} [{i}]: {got}, {expected}");
    }
}

/// Result, gradients of the input and of the parameters with running statistics between them, result in evaluation.
type Outcome = (Vec<f32>, Vec<f32>, Vec<(String, Vec<f32>)>, Vec<f32>);

fn outcome(subject: &Subject, x: &Tensor<4>, pass: Pass<'_>) -> Outcome {
    let copy = subject_copy(subject);
    let x = x.clone().require_grad();
    let out = copy.with_chain(|chain| {
        let survival = with_shortcut(&chain).then(|| vec![1.25, 0.0, 1.25]);
        chain.forward(x.clone(), survival, pass)
    });
    // Not the sum: behind a normalization its gradient is zero.
    let len = out.dims().iter().product::<usize>();
    let values: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32) / 50.0 - 1.0).collect();
    let weights = Tensor::<1>::from_floats(&values[..], &x.device()).reshape(out.dims());
    let grads = (out.clone() * weights.cast(out.dtype())).sum().backward();
    let mut collect = Collect { grads: &grads, found: vec![] };
    copy.visit(&mut collect);
    let floats = |t: Tensor<4>| -> Vec<f32> { t.cast(DType::F32).into_data().iter().collect() };
    let dx = floats(Tensor::from_inner(x.grad(&grads).expect("wanted")));
    let inferred = {
        let valid = copy.map(|block| block.valid(), |conv| conv.valid());
        valid.with_chain(|chain| chain.forward(x.inner(), None, pass))
    };
    (floats(out), dx, collect.found, floats(inferred))
}

#[test]
fn fused_and_composed_agree() {
    let device = Device::flex().autodiff();
    for (name, subject, c_in) in subjects(&device) {
        // Pairwise distinct, the height odd.
        let x = Tensor::<4>::random([3, 7, 10, c_in], Distribution::Normal(0.3, 1.0), &device);
        let (fused, composed) = (outcome(&subject, &x, FUSED), outcome(&subject, &x, COMPOSED));
        close(&format!("{name}: result"), &fused.0, &composed.0, 2e-5);
        close(&format!("{name}: dx"), &fused.1, &composed.1, 1e-4);
        assert_eq!(fused.2.len(), composed.2.len());
        for ((shape, got), (_, expected)) in fused.2.iter().zip(&composed.2) {
            close(&format!("{name}: parameter {shape}"), got, expected, 2e-4);
        }
        close(&format!("{name}: with running statistics"), &fused.3, &composed.3, 2e-5);
    }
}

#[test]
fn what_is_computed_again_is_the_same_to_the_bit() {
    let device = Device::flex().autodiff();
    let again = Pass { recompute: Recompute::Blocks, ..FUSED };
    for (name, subject, c_in) in subjects(&device) {
        let x = Tensor::<4>::random([3, 7, 10, c_in], Distribution::Normal(0.3, 1.0), &device);
        for dtype in [DType::F32, DType::BF16] {
            let x = x.clone().cast(dtype);
            assert_eq!(outcome(&subject, &x, again), outcome(&subject, &x, FUSED), "{name}");
        }
    }
}

fn with_shortcut(chain: &Chain<'_>) -> bool {
    !matches!(chain.shortcut, Shortcut::None)
}

/// A copy with running statistics of its own.
fn subject_copy(subject: &Subject) -> Subject {
    match subject {
        Subject::Conv(conv) => Subject::Conv(conv.valid().train()),
        Subject::Block(block) => Subject::Block(block.valid().train()),
    }
}

/// Result, gradients and running statistics on a GPU, with the kernels there.
#[cfg(feature = "gpu")]
#[test]
fn a_gpu_and_the_cpu_agree() {
    let (cpu, gpu) = (Device::flex().autodiff(), Device::default().autodiff());
    for (name, subject, c_in) in subjects(&cpu) {
        let x = Tensor::<4>::random([3, 7, 10, c_in], Distribution::Normal(0.3, 1.0), &cpu);
        let run = |device: &Device| {
            let copy = subject_copy(&subject);
            let copy = copy.map(|block| block.fork(device), |conv| conv.fork(device));
            let x = Tensor::<4>::from_data(x.to_data(), device).require_grad();
            let out = copy.with_chain(|chain| {
                let survival = with_shortcut(&chain).then(|| vec![1.25, 0.0, 1.25]);
                chain.forward(x.clone(), survival, FUSED)
            });
            let len = out.dims().iter().product::<usize>();
            let values: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32) / 50.0 - 1.0).collect();
            let weights = Tensor::<1>::from_floats(&values[..], device).reshape(out.dims());
            let grads = (out.clone() * weights).sum().backward();
            // Burn keeps new running statistics aside until a copy asks for them.
            drop(subject_copy(&copy));
            let mut collect = Collect { grads: &grads, found: vec![] };
            copy.visit(&mut collect);
            let floats = |t: Tensor<4>| -> Vec<f32> { t.into_data().iter().collect() };
            (floats(out), floats(Tensor::from_inner(x.grad(&grads).unwrap())), collect.found)
        };
        let (found, expected) = (run(&gpu), run(&cpu));
        close(&format!("{name}: result"), &found.0, &expected.0, 2e-3);
        close(&format!("{name}: dx"), &found.1, &expected.1, 4e-3);
        for ((shape, found), (_, expected)) in found.2.iter().zip(&expected.2) {
            close(&format!("{name}: parameter {shape}"), found, expected, 4e-3);
        }
    }
}
