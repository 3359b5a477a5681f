//! Every kind of convolution, on every instruction set and in both formats, against the plain loops.

use super::*;
use crate::activation::Activation;
use crate::norm::{Affine, NormGrad};
use crate::real::bf16;
use crate::testing::cases;
use proptest::prelude::*;

fn value(seed: u64, i: usize) -> f32 {
    let mut x = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.rotate_left(17);
    x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 32)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x >> 40) as f32) / (1 << 23) as f32 - 1.0
}

fn values<T: Real>(len: usize, seed: u64) -> Vec<T> {
    (0..len).map(|i| T::from_f32(value(seed, i))).collect()
}

fn exact<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| f64::from(v.to_f32())).collect()
}

/// Shapes whose dimensions differ from each other, and the edge ones.
fn shape() -> impl Strategy<Value = ConvShape> {
    prop_oneof![4 => any_shape(), 1 => filtered_shape()]
}

/// Shapes that minimal filtering takes.
fn filtered_shape() -> impl Strategy<Value = ConvShape> {
    (1..4_usize, 1..10_usize, 1..14_usize, 16..50_usize, 16..50_usize)
        .prop_map(|(n, h, w, c_in, c_out)| ConvShape::symmetric([n, h, w, c_in], c_out, 3, 1, 1))
        .prop_filter("of that kind", winograd::pays)
}

fn any_shape() -> impl Strategy<Value = ConvShape> {
    let channels =
        || prop_oneof![1..40_usize, prop_oneof![Just(1), Just(15), Just(16), Just(17), Just(48)]];
    let sizes = (1..4_usize, 1..9_usize, 1..11_usize, channels(), channels());
    let kernel = prop_oneof![Just(1), Just(3), Just(5), Just(7), Just(9)];
    (sizes, kernel, 1..3_usize, 0..3_usize, any::<bool>()).prop_map(
        |((n, h, w, c_in, c_out), kernel, stride, kind, same)| {
            let (c_in, c_out, groups) = match kind {
                0 => (c_in, c_out, 1),
                1 => (c_in, c_in, c_in),
                _ => (3 * (c_in % 7 + 1), 3 * (c_out % 5 + 1), 3),
            };
            let mut shape = ConvShape::symmetric([n, h, w, c_in], c_out, kernel, stride, groups);
            if same {
                // TensorFlow's padding: the odd pixel goes below and to the right.
                (shape.h_out, shape.w_out) = (h.div_ceil(stride), w.div_ceil(stride));
                let total =
                    |out: usize, own: usize| ((out - 1) * stride + kernel).saturating_sub(own);
                shape.top = total(shape.h_out, h) / 2;
                shape.left = total(shape.w_out, w) / 2;
            }
            shape
        },
    )
}

/// `got` and `expected` agree within `tolerance` of the largest expected value, or of 1: sums of terms
/// of that size may cancel.
fn close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), expected.len(), "{}", what);
    let scale = expected.iter().fold(1.0_f64, |most, v| most.max(v.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let within = (got - expected).abs() <= tolerance * scale;
        prop_assert!(within, "{what}[{i}]: {got}, expected {expected}, scale {scale}");
    }
    Ok(())
}

struct Case<T> {
    x: Vec<T>,
    affine: Affine,
    gate: Vec<f32>,
    weight: Vec<f32>,
    g: Vec<T>,
    y: Vec<T>,
    norm: NormGrad,
}

impl<T: Real> Case<T> {
    fn new(s: &ConvShape, activation: Activation, seed: u64) -> Self {
        let few = |len, seed| values::<f32>(len, seed);
        // Weights that bf16 holds exactly, so that both formats compute the same products.
        let weight = values::<bf16>(s.weight_len(), seed ^ 3).iter().map(|w| w.to_f32()).collect();
        Self {
            x: values(s.input_len(), seed),
            affine: Affine {
                scale: few(s.c_in, seed ^ 1),
                shift: few(s.c_in, seed ^ 2),
                mean: few(s.c_in, seed ^ 9),
                activation,
            },
            gate: few(s.n * s.c_in, seed ^ 4),
            weight,
            g: values(s.output_len(), seed ^ 5),
            y: values(s.output_len(), seed ^ 6),
            norm: NormGrad {
                dgamma: vec![],
                dbeta: vec![],
                p: few(s.c_out, seed ^ 7),
                q: few(s.c_out, seed ^ 8),
                r: few(s.c_out, seed ^ 10),
            },
        }
    }
}

/// `tolerance` covers the rounding of what is stored, relative to the largest value.
fn check<T: Real>(
    s: &ConvShape,
    activation: Activation,
    mode: usize,
    seed: u64,
) -> Result<(), TestCaseError> {
    let tolerance = if T::BYTES == 4 { 2e-5 } else { 2e-2 };
    let case = Case::<T>::new(s, activation, seed);
    let (affine, gate) = match mode {
        0 => (None, None),
        1 => (Some(&case.affine), None),
        _ => (Some(&case.affine), Some(&case.gate[..])),
    };
    let x = Input { data: &case.x, affine, gate };
    let dy = Gradient { g: &case.g, norm: (mode > 0).then_some((&case.y[..], &case.norm)) };
    let wanted = match mode {
        0 => Wanted::Plain(seed.is_multiple_of(2).then_some(&case.x[..])),
        1 => Wanted::Masked,
        _ => Wanted::Gated,
    };

    // Expected results, in f64.
    let pre = |i: usize| {
        let c = i % s.c_in;
        case.x[i].to_f32() * case.affine.scale[c] + case.affine.shift[c]
    };
    let channel_gate =
        |i: usize| f64::from(case.gate[i / (s.h * s.w * s.c_in) * s.c_in + i % s.c_in]);
    let active: Vec<f64> =
        (0..s.input_len()).map(|i| f64::from(activation.value(pre(i)))).collect();
    let input: Vec<f64> = match mode {
        0 => exact(&case.x),
        1 => active.clone(),
        _ => active.iter().enumerate().map(|(i, a)| a * channel_gate(i)).collect(),
    };
    let weight = exact(&case.weight);
    let y = scalar::forward(s, &input, &weight);
    let gradient: Vec<f64> = (0..s.output_len())
        .map(|i| {
            let (g, y, c) =
                (f64::from(case.g[i].to_f32()), f64::from(case.y[i].to_f32()), i % s.c_out);
            match mode {
                0 => g,
                _ => {
                    f64::from(case.norm.p[c]) * g
                        + f64::from(case.norm.q[c]) * y
                        + f64::from(case.norm.r[c])
                }
            }
        })
        .collect();
    let (dx, dweight) = scalar::backward(s, &input, &weight, &gradient);
    let dx_expected: Vec<f64> = (0..s.input_len())
        .map(|i| match wanted {
            Wanted::Plain(Some(add)) => dx[i] + f64::from(add[i].to_f32()),
            Wanted::Masked => dx[i] * f64::from(activation.slope(pre(i))),
            _ => dx[i],
        })
        .collect();

    for isa in Isa::available() {
        let (got, moments) = forward(isa, s, x, &case.weight, true);
        close("y", &exact(&got), &y, tolerance)?;
        let moments = moments.expect("wanted");
        prop_assert_eq!(moments.count, s.n * s.h_out * s.w_out);
        for c in 0..s.c_out {
            let own: Vec<f64> = y.iter().skip(c).step_by(s.c_out).copied().collect();
            let mean = own.iter().sum::<f64>() / own.len() as f64;
            let var = own.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / own.len() as f64;
            let scale = own.iter().fold(1.0_f64, |most, v| most.max(v.abs()));
            prop_assert!((f64::from(moments.mean[c]) - mean).abs() < tolerance * scale);
            prop_assert!((f64::from(moments.var[c]) - var).abs() < 2.0 * tolerance * scale * scale);
        }

        let grad = backward(isa, s, x, &case.weight, dy, wanted);
        close("dweight", &exact(&grad.dweight), &dweight, tolerance)?;
        close("dx", &exact(&grad.dx), &dx_expected, tolerance)?;
        if let Some(sums) = &grad.sums {
            let sum = |c: usize, y: &dyn Fn(usize) -> f64| -> f64 {
                (c..s.input_len()).step_by(s.c_in).map(|i| dx_expected[i] * y(i)).sum()
            };
            let deviation =
                |i: usize| f64::from(case.x[i].to_f32()) - f64::from(case.affine.mean[i % s.c_in]);
            let g: Vec<f64> = (0..s.c_in).map(|c| sum(c, &|_| 1.0)).collect();
            let gy: Vec<f64> = (0..s.c_in).map(|c| sum(c, &deviation)).collect();
            let scale = dx_expected.iter().fold(1.0_f64, |most, v| most.max(v.abs()));
            let bound = tolerance * scale * (s.n * s.h * s.w) as f64 * 2.0;
            for c in 0..s.c_in {
                prop_assert!((sums.g[c] - g[c]).abs() <= bound, "Σg {} {}", sums.g[c], g[c]);
                prop_assert!((sums.gy[c] - gy[c]).abs() <= bound, "Σgy {} {}", sums.gy[c], gy[c]);
            }
        }
        if let Some(dgate) = &grad.dgate {
            let mut expected = vec![0.0; s.n * s.c_in];
            for i in 0..s.input_len() {
                expected[i / (s.h * s.w * s.c_in) * s.c_in + i % s.c_in] += dx[i] * active[i];
            }
            close("dgate", &exact(dgate), &expected, tolerance * 2.0)?;
        }
        let none = backward(isa, s, x, &case.weight, dy, Wanted::Nothing);
        prop_assert!(none.dx.is_empty());
        prop_assert_eq!(&none.dweight, &grad.dweight);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn f32_agrees_with_the_definition(s in shape(), kind in 0..7_usize, mode in 0..3_usize, seed: u64) {
        check::<f32>(&s, Activation::ALL[kind], mode, seed)?;
    }

    #[test]
    fn bf16_agrees_with_the_definition(s in shape(), kind in 0..7_usize, mode in 0..3_usize, seed: u64) {
        check::<bf16>(&s, Activation::ALL[kind], mode, seed)?;
    }
}

#[test]
fn minimal_filtering_rounds_a_little_more() {
    let s = ConvShape::symmetric([1, 12, 16, 256], 16, 3, 1, 1);
    assert!(winograd::pays(&s));
    let x: Vec<f32> = values::<f32>(s.input_len(), 1).iter().map(|x| x.max(0.0)).collect();
    let weight = values::<f32>(s.weight_len(), 2);
    let expected = scalar::forward(&s, &exact(&x), &exact(&weight));
    let (y, _) = forward(Isa::current(), &s, Input::plain(&x), &weight, false);
    let rms = |sum: f64| (sum / y.len() as f64).sqrt();
    let size = rms(expected.iter().map(|y| y * y).sum());
    let error = rms(y.iter().zip(&expected).map(|(y, e)| (f64::from(*y) - e).powi(2)).sum());
    assert!(error < 2e-6 * size, "{:e}", error / size);
}

#[test]
fn threads_do_not_change_a_bit() {
    for (kernel, stride, groups) in [(1, 1, 1), (3, 1, 1), (5, 1, 1), (3, 2, 1), (3, 1, 24)] {
        let s = ConvShape::symmetric([9, 13, 11, 24], 24, kernel, stride, groups);
        let case = Case::<f32>::new(&s, Activation::Relu, 5);
        let x = Input { data: &case.x, affine: Some(&case.affine), gate: None };
        let dy = Gradient { g: &case.g, norm: Some((&case.y[..], &case.norm)) };
        let results = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let isa = Isa::detected();
                let y = forward(isa, &s, x, &case.weight, true);
                let grad = backward(isa, &s, x, &case.weight, dy, Wanted::Masked);
                (y, grad.dx, grad.dweight, grad.sums)
            })
        });
        assert!(results[0] == results[1] && results[0] == results[2], "kernel {kernel}");
    }
}

#[test]
fn nan_reaches_what_it_touches_and_nothing_else() {
    // Filtered minimally, what shares a tile with a pixel that sees the NaN may become NaN too.
    for (c_in, filtered) in [(15, false), (17, true)] {
        let s = ConvShape::symmetric([2, 9, 11, c_in], 18, 3, 1, 1);
        assert_eq!(winograd::pays(&s), filtered);
        let case = Case::<f32>::new(&s, Activation::Relu6, 5);
        for isa in Isa::available() {
            let mut data = case.x.clone();
            data[(s.w + 2) * s.c_in] = f32::NAN;
            let x = Input { data: &data, affine: Some(&case.affine), gate: None };
            let (y, moments) = forward(isa, &s, x, &case.weight, true);
            for (i, y) in y.iter().enumerate() {
                let (pixel, image) = (i / s.c_out % (s.h * s.w), i / (s.c_out * s.h * s.w));
                let (py, px) = (pixel / s.w, pixel % s.w);
                let touched = image == 0 && py <= 2 && (1..=3).contains(&px);
                let shares = filtered && image == 0 && py < 4 && px < 4;
                assert!(!touched || y.is_nan(), "{isa:?} {i}");
                assert!(touched || shares || !y.is_nan(), "{isa:?} {i}");
            }
            assert!(moments.unwrap().mean.iter().all(|mean| mean.is_nan()));
        }
    }
}

#[test]
fn groups_of_many_channels_fill_whole_blocks_of_rows() {
    // On a thread of its own, whose working buffers are no longer than this convolution asks for.
    let run = || {
        let s = ConvShape::symmetric([1, 32, 32, 48], 48, 3, 1, 3);
        let case = Case::<f32>::new(&s, Activation::Relu, 5);
        let x = Input { data: &case.x, affine: Some(&case.affine), gate: None };
        let dy = Gradient { g: &case.g, norm: Some((&case.y[..], &case.norm)) };
        for isa in Isa::available() {
            let (y, _) = forward(isa, &s, x, &case.weight, true);
            assert_eq!(y.len(), s.output_len());
            let grad = backward(isa, &s, x, &case.weight, dy, Wanted::Masked);
            assert!(grad.dx.iter().all(|dx| dx.is_finite()));
        }
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(run);
}
