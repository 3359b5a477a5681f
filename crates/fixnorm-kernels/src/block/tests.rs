//! Whole blocks against the definition in `f64`, and their gradients against its differences.

use super::*;
use crate::conv::scalar;
use crate::real::bf16;
use crate::testing::cases;
use proptest::prelude::*;

fn value(seed: u64, i: usize) -> f32 {
    let mut x = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.rotate_left(17);
    x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x >> 40) as f32) / (1 << 23) as f32 - 1.0
}

fn values(len: usize, seed: u64) -> Vec<f32> {
    // Values that both formats hold exactly.
    (0..len).map(|i| <bf16 as Real>::from_f32(value(seed, i)).to_f32()).collect()
}

/// A block with its values, all in one list: x, then for each stage (the projection last) weight, γ, β,
/// then the squeeze's four.
struct Case {
    shapes: Vec<ConvShape>,
    activations: Vec<Activation>,
    projection: Option<ConvShape>,
    identity: Option<usize>,
    squeeze: Option<usize>,
    survival: Option<Vec<f32>>,
    given: bool,
    tensors: Vec<Vec<f32>>,
}

const EPSILON: f32 = 1e-2;

impl Case {
    fn new(kind: usize, activation: Activation, seed: u64) -> Self {
        let sizes = [3, 5, 6];
        let [n, h, w] = sizes;
        let conv = |c_in: usize, c_out, kernel, stride, groups, [h, w]: [usize; 2]| {
            ConvShape::symmetric([n, h, w, c_in], c_out, kernel, stride, groups)
        };
        let out = |s: &ConvShape| [s.h_out, s.w_out];
        let mut case = Self {
            shapes: vec![],
            activations: vec![],
            projection: None,
            identity: None,
            squeeze: None,
            survival: None,
            given: false,
            tensors: vec![],
        };
        match kind {
            // Stem.
            0 => {
                case.shapes = vec![conv(3, 10, 3, 2, 1, [h, w])];
                case.activations = vec![activation];
            }
            // Basic block whose shortcut halves the image and has more channels.
            1 | 2 => {
                let stride = kind;
                let first = conv(5, 7, 3, stride, 1, [h, w]);
                let second = conv(7, 7, 3, 1, 1, out(&first));
                case.shapes = vec![first, second];
                case.activations = vec![activation; 2];
                case.identity = Some(stride);
            }
            // Inverted residual with a gate and a drop path.
            3 => {
                let first = conv(8, 18, 1, 1, 1, [h, w]);
                let second = conv(18, 18, 3, 1, 18, out(&first));
                let third = conv(18, 8, 1, 1, 1, out(&second));
                case.shapes = vec![first, second, third];
                case.activations = vec![activation, activation, Activation::Identity];
                case.identity = Some(1);
                case.squeeze = Some(5);
                case.survival = Some(vec![1.25, 0.0, 1.25]);
            }
            // Bottleneck with a projection.
            4 | 5 => {
                let first = conv(6, 4, 1, 1, 1, [h, w]);
                let second = conv(4, 4, 3, 2, 1, out(&first));
                let third = conv(4, 16, 1, 1, 1, out(&second));
                case.projection = Some(conv(6, 16, 1, 2, 1, [h, w]));
                case.shapes = vec![first, second, third];
                case.activations = vec![activation; 3];
                case.survival = (kind == 5).then(|| vec![0.5, 1.5, 0.0]);
            }
            // Inverted residual that narrows, without shortcut, on running statistics.
            _ => {
                let first = conv(4, 17, 1, 1, 1, [h, w]);
                let second = conv(17, 17, 5, 2, 17, out(&first));
                let third = conv(17, 6, 1, 1, 1, out(&second));
                case.shapes = vec![first, second, third];
                case.activations = vec![activation, activation, Activation::Identity];
                case.squeeze = Some(3);
                case.given = true;
            }
        }
        let mut seed = seed;
        let mut push = |tensors: &mut Vec<Vec<f32>>, len, shift: f32| {
            seed = seed.wrapping_add(0x1234_5677);
            tensors.push(values(len, seed).iter().map(|v| v + shift).collect());
        };
        push(&mut case.tensors, case.shapes[0].input_len(), 0.0);
        for shape in case.shapes.iter().chain(&case.projection) {
            push(&mut case.tensors, shape.weight_len(), 0.0);
            push(&mut case.tensors, shape.c_out, 0.5);
            push(&mut case.tensors, shape.c_out, 0.0);
        }
        if let Some(r) = case.squeeze {
            let c = case.shapes.last().unwrap().c_in;
            for len in [r * c, r, c * r, c] {
                push(&mut case.tensors, len, 0.0);
            }
        }
        case
    }

    /// Running statistics, where they are used.
    fn running(&self, stage: usize) -> (Vec<f32>, Vec<f32>) {
        let c = self.all_shapes()[stage].c_out;
        (
            values(c, 77 + stage as u64),
            values(c, 99 + stage as u64).iter().map(|v| v + 1.5).collect(),
        )
    }

    fn all_shapes(&self) -> Vec<ConvShape> {
        self.shapes.iter().chain(&self.projection).copied().collect()
    }

    fn squeeze_at(&self) -> usize {
        1 + 3 * self.all_shapes().len()
    }

    /// The result by the definition, in `f64`.
    fn plain(&self, tensors: &[Vec<f64>]) -> Vec<f64> {
        let stage = |stage: usize, shape: &ConvShape, x: &[f64]| -> Vec<f64> {
            let [weight, gamma, beta] = [0, 1, 2].map(|k| &tensors[1 + 3 * stage + k]);
            let mut y = scalar::forward(shape, x, weight);
            let running = self.running(stage);
            for c in 0..shape.c_out {
                let own: Vec<f64> = y.iter().skip(c).step_by(shape.c_out).copied().collect();
                let count = own.len() as f64;
                let (mean, var) = if self.given {
                    (f64::from(running.0[c]), f64::from(running.1[c]))
                } else {
                    let mean = own.iter().sum::<f64>() / count;
                    (mean, own.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / count)
                };
                for y in y.iter_mut().skip(c).step_by(shape.c_out) {
                    *y = (*y - mean) / (var + f64::from(EPSILON)).sqrt() * gamma[c] + beta[c];
                }
            }
            y
        };
        let x = &tensors[0];
        let mut a = x.clone();
        let last = self.shapes.len() - 1;
        for (i, shape) in self.shapes.iter().enumerate() {
            if let (Some(r), true) = (self.squeeze, i == last) {
                let (c, pixels) = (shape.c_in, shape.h * shape.w);
                let at = self.squeeze_at();
                for image in a.chunks_exact_mut(pixels * c) {
                    let pooled: Vec<f64> = (0..c)
                        .map(|c0| image.iter().skip(c0).step_by(c).sum::<f64>() / pixels as f64)
                        .collect();
                    let hidden: Vec<f64> = (0..r)
                        .map(|j| {
                            let sum: f64 = (0..c).map(|i| tensors[at][j * c + i] * pooled[i]).sum();
                            smooth(Activation::Silu, sum + tensors[at + 1][j])
                        })
                        .collect();
                    for c0 in 0..c {
                        let sum: f64 =
                            (0..r).map(|j| tensors[at + 2][c0 * r + j] * hidden[j]).sum();
                        let gate = smooth(Activation::Sigmoid, sum + tensors[at + 3][c0]);
                        image.iter_mut().skip(c0).step_by(c).for_each(|a| *a *= gate);
                    }
                }
            }
            a = stage(i, shape, &a);
            if i < last {
                a.iter_mut().for_each(|a| *a = smooth(self.activations[i], *a));
            }
        }
        let s = &self.shapes[last];
        let image_len = s.h_out * s.w_out * s.c_out;
        if let Some(survival) = &self.survival {
            a.iter_mut().enumerate().for_each(|(i, a)| *a *= f64::from(survival[i / image_len]));
        }
        if let Some(shape) = &self.projection {
            let added = stage(self.shapes.len(), shape, x);
            a.iter_mut().zip(added).for_each(|(a, added)| *a += added);
        }
        if let Some(stride) = self.identity {
            let first = &self.shapes[0];
            for (i, a) in a.iter_mut().enumerate() {
                let (c, pixel) = (i % s.c_out, i / s.c_out);
                let (n, y, x0) =
                    (pixel / (s.h_out * s.w_out), pixel / s.w_out % s.h_out, pixel % s.w_out);
                if c < first.c_in {
                    *a += x[((n * first.h + y * stride) * first.w + x0 * stride) * first.c_in + c];
                }
            }
        }
        a.iter_mut().for_each(|a| *a = smooth(self.activations[last], *a));
        a
    }

    /// Runs `f` on the block as the kernels take it.
    fn with_block<R>(&self, f: impl FnOnce(&Block<'_>) -> R) -> R {
        let shapes = self.all_shapes();
        let running: Vec<_> = (0..shapes.len()).map(|i| self.running(i)).collect();
        let stage = |i: usize| Stage {
            shape: shapes[i],
            weight: &self.tensors[1 + 3 * i],
            gamma: &self.tensors[2 + 3 * i],
            beta: &self.tensors[3 + 3 * i],
            epsilon: EPSILON,
            statistics: if self.given {
                Statistics::Given(&running[i].0, &running[i].1)
            } else {
                Statistics::Batch
            },
            activation: self.activations.get(i).copied().unwrap_or_default(),
        };
        let at = self.squeeze_at();
        f(&Block {
            stages: (0..self.shapes.len()).map(stage).collect(),
            squeeze: self.squeeze.map(|_| Squeeze {
                reduce: &self.tensors[at],
                reduce_bias: &self.tensors[at + 1],
                expand: &self.tensors[at + 2],
                expand_bias: &self.tensors[at + 3],
                activation: Activation::Silu,
                gate: Activation::Sigmoid,
            }),
            shortcut: match (self.projection, self.identity) {
                (Some(_), _) => Shortcut::Projection(stage(self.shapes.len())),
                (_, Some(stride)) => Shortcut::Identity { stride },
                _ => Shortcut::None,
            },
            survival: self.survival.as_deref(),
        })
    }
}

/// An activation in `f64`.
fn smooth(activation: Activation, x: f64) -> f64 {
    let sigmoid = 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Silu => x * sigmoid,
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::HardSigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::Sigmoid => sigmoid,
    }
}

fn flat(grad: &BlockGrad<f32>) -> Vec<&[f32]> {
    let mut all: Vec<&[f32]> = vec![&grad.dx];
    for stage in grad.stages.iter().chain(&grad.projection) {
        all.extend([&stage.dweight[..], &stage.dgamma, &stage.dbeta]);
    }
    if let Some(squeeze) = &grad.squeeze {
        all.extend([
            &squeeze.dreduce[..],
            &squeeze.dreduce_bias,
            &squeeze.dexpand,
            &squeeze.dexpand_bias,
        ]);
    }
    all
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn forward_is_the_definition(kind in 0..7_usize, activation in 0..7_usize, seed: u64) {
        let case = Case::new(kind, Activation::ALL[activation], seed);
        let tensors: Vec<Vec<f64>> =
            case.tensors.iter().map(|n| n.iter().map(|&v| f64::from(v)).collect()).collect();
        let expected = case.plain(&tensors);
        let scale = expected.iter().fold(1e-2_f64, |most, v| most.max(v.abs()));
        for isa in Isa::available() {
            let (out, saved) = case.with_block(|block| block.forward(isa, &case.tensors[0]));
            prop_assert_eq!(out.len(), expected.len());
            for (got, expected) in out.iter().zip(&expected) {
                prop_assert!((f64::from(*got) - expected).abs() < 2e-4 * scale, "{got} {expected}");
            }
            prop_assert_eq!(saved.moments().count(), case.all_shapes().len());
            let inferred = case.with_block(|block| block.infer(isa, &case.tensors[0]));
            prop_assert_eq!(inferred, out);

            let half: Vec<bf16> = case.tensors[0].iter().map(|&v| Real::from_f32(v)).collect();
            let (out, _) = case.with_block(|block| block.forward(isa, &half));
            let square: f64 = out
                .iter()
                .zip(&expected)
                .map(|(got, expected)| (f64::from(got.to_f32()) - expected).powi(2))
                .sum();
            let error = (square / expected.len() as f64).sqrt();
            prop_assert!(error < 3e-2 * scale, "bf16 is off by {error}, scale {scale}");
        }
    }

    // Along a random direction of each tensor: one difference checks all its values.
    #[test]
    fn backward_is_the_difference_of_the_definition(kind in 0..7_usize, smooth in 0..3_usize, seed: u64) {
        let activation = [Activation::Identity, Activation::Silu, Activation::Sigmoid][smooth];
        let case = Case::new(kind, activation, seed);
        let tensors: Vec<Vec<f64>> =
            case.tensors.iter().map(|n| n.iter().map(|&v| f64::from(v)).collect()).collect();
        let dout = values(case.plain(&tensors).len(), seed ^ 55);
        let loss = |tensors: &[Vec<f64>]| -> f64 {
            case.plain(tensors).iter().zip(&dout).map(|(out, d)| out * f64::from(*d)).sum()
        };
        for isa in Isa::available() {
            let grad = case.with_block(|block| {
                let (_, saved) = block.forward(isa, &case.tensors[0]);
                let half: Vec<bf16> = case.tensors[0].iter().map(|&v| Real::from_f32(v)).collect();
                let dhalf: Vec<bf16> = dout.iter().map(|&v| Real::from_f32(v)).collect();
                let (_, saved_half) = block.forward(isa, &half);
                // The other format runs the same code; its gradients must be finite.
                let grad = block.backward(isa, &half, &saved_half, &dhalf, true);
                assert!(grad.stages.iter().all(|s| s.dweight.iter().all(|d| d.is_finite())));
                let bare = block.backward(isa, &case.tensors[0], &saved, &dout, false);
                let grad = block.backward(isa, &case.tensors[0], &saved, &dout, true);
                assert!(bare.dx.is_empty() && bare.stages == grad.stages);
                grad
            });
            for (tensor, got) in flat(&grad).into_iter().enumerate() {
                prop_assert_eq!(got.len(), tensors[tensor].len());
                let direction = values(got.len(), seed ^ (tensor as u64 + 1000));
                let step = 1e-5;
                let moved = |by: f64| {
                    let mut tensors = tensors.clone();
                    for (v, d) in tensors[tensor].iter_mut().zip(&direction) {
                        *v += by * f64::from(*d);
                    }
                    loss(&tensors)
                };
                let difference = (moved(step) - moved(-step)) / (2.0 * step);
                let product: f64 =
                    got.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
                let size: f64 = got.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt()
                    * direction.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>().sqrt();
                prop_assert!(
                    (difference - product).abs() < 1e-3 * size.max(0.1),
                    "{isa:?} tensor {tensor}: {product}, difference {difference}, size {size}"
                );
            }
        }
    }
}
