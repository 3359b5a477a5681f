//! Every kind of pooling against the plainest loops over its definition.

use super::*;
use crate::real::bf16;
use crate::testing::cases;
use proptest::prelude::*;

/// The plainest loops over the definition, in `f64`: calls `window(result, inputs)` with the indices
/// of each window's pixels inside the image.
fn for_each_window(s: &PoolShape, mut window: impl FnMut(usize, &[usize])) {
    let inside = |out: usize, k: usize, size: usize| {
        (out * s.stride + k).checked_sub(s.padding).filter(|&at| at < size)
    };
    let mut result = 0;
    for n in 0..s.n {
        for oy in 0..s.h_out() {
            for ox in 0..s.w_out() {
                for c in 0..s.c {
                    let mut inputs = vec![];
                    for ky in 0..s.kernel {
                        for kx in 0..s.kernel {
                            if let (Some(y), Some(x)) = (inside(oy, ky, s.h), inside(ox, kx, s.w)) {
                                inputs.push(((n * s.h + y) * s.w + x) * s.c + c);
                            }
                        }
                    }
                    window(result, &inputs);
                    result += 1;
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Max,
    Average { include_pad: bool },
}

const KINDS: [Kind; 3] =
    [Kind::Max, Kind::Average { include_pad: true }, Kind::Average { include_pad: false }];

/// Index of the first maximum.
fn first_maximum(x: &[f64], inputs: &[usize]) -> usize {
    let most = inputs.iter().map(|&i| x[i]).fold(f64::NEG_INFINITY, f64::max);
    inputs.iter().copied().find(|&i| x[i] == most).expect("no window is empty")
}

fn divisor(s: &PoolShape, inputs: &[usize], include_pad: bool) -> f64 {
    (if include_pad { s.kernel * s.kernel } else { inputs.len() }) as f64
}

fn twin(s: &PoolShape, kind: Kind, x: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; s.output_len()];
    for_each_window(s, |o, inputs| {
        y[o] = match kind {
            Kind::Max => x[first_maximum(x, inputs)],
            Kind::Average { include_pad } => {
                inputs.iter().map(|&i| x[i]).sum::<f64>() / divisor(s, inputs, include_pad)
            }
        };
    });
    y
}

fn twin_backward(s: &PoolShape, kind: Kind, x: &[f64], dy: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; x.len()];
    for_each_window(s, |o, inputs| match kind {
        Kind::Max => dx[first_maximum(x, inputs)] += dy[o],
        Kind::Average { include_pad } => {
            for &i in inputs {
                dx[i] += dy[o] / divisor(s, inputs, include_pad);
            }
        }
    });
    dx
}

fn pool<T: Real>(isa: Isa, s: &PoolShape, kind: Kind, x: &[T]) -> Vec<T> {
    match kind {
        Kind::Max => max_pool(isa, s, x),
        Kind::Average { include_pad } => average_pool(isa, s, x, include_pad),
    }
}

fn pool_backward<T: Real>(isa: Isa, s: &PoolShape, kind: Kind, x: &[T], dy: &[T]) -> Vec<T> {
    match kind {
        Kind::Max => max_pool_backward(isa, s, x, dy),
        Kind::Average { include_pad } => average_pool_backward(isa, s, dy, include_pad),
    }
}

/// Multiples of 1/32 below 4, which are exact in `bf16`. With `levels` of 256 no image of up to 256 pixels holds one
/// twice, with few levels most windows do.
fn ranked<T: Real>(s: &PoolShape, levels: usize) -> Vec<T> {
    let value = |i: usize| {
        let (image, pixel, c) = (i / (s.h * s.w * s.c), i / s.c % (s.h * s.w), i % s.c);
        let level = (pixel * 97 + c * 31 + image * 57) % 256 * levels / 256;
        T::from_f32((level as f32 - levels as f32 / 2.0) / 32.0)
    };
    (0..s.input_len()).map(value).collect()
}

fn values<T: Real>(len: usize, seed: usize) -> Vec<T> {
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0;
    (0..len).map(|i| T::from_f32(value(i))).collect()
}

fn exact<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| f64::from(v.to_f32())).collect()
}

/// Rounding error of a stored value, relative to the largest one.
fn tolerance<T: Real>() -> f64 {
    if T::BYTES == 4 { 1e-6 } else { 4e-3 }
}

fn close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3_f64, |most, v| most.max(v.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        // Written so that a NaN fails.
        let within = (got - expected).abs() <= tolerance * scale;
        assert!(within, "{what}[{i}]: {got}, expected {expected}, scale {scale}");
    }
}

fn check<T: Real>(s: &PoolShape, levels: usize) {
    for kind in KINDS {
        let (x, dy) = (ranked::<T>(s, levels), values::<T>(s.output_len(), 3));
        let y = twin(s, kind, &exact(&x));
        let dx = twin_backward(s, kind, &exact(&x), &exact(&dy));
        for isa in Isa::available() {
            let what = format!("{kind:?} {isa:?} {s:?}");
            let own = pool(isa, s, kind, &x);
            close(&what, &exact(&own), &y, tolerance::<T>());
            if kind == Kind::Max {
                assert_eq!(exact(&own), y, "{what}");
            }
            let own = pool_backward(isa, s, kind, &x, &dy);
            close(&format!("dx {what}"), &exact(&own), &dx, tolerance::<T>());
        }
    }
    check_global::<T>([s.n, s.h, s.w, s.c]);
}

fn check_global<T: Real>([n, h, w, c]: [usize; 4]) {
    let (x, dy) = (values::<T>(n * h * w * c, 1), values::<f32>(n * c, 2));
    let pixels = (h * w) as f64;
    let (mut y, mut dx) = (vec![0.0; n * c], vec![0.0; x.len()]);
    for (i, x) in exact(&x).into_iter().enumerate() {
        let channel = i / (h * w * c) * c + i % c;
        y[channel] += x / pixels;
        dx[i] = f64::from(dy[channel]) / pixels;
    }
    for isa in Isa::available() {
        let own = global_average(isa, [n, h, w, c], &x);
        close(&format!("global {isa:?}"), &exact(&own), &y, 2e-6);
        let own = global_average_backward::<T>(isa, [n, h, w, c], &dy);
        close(&format!("dx of global {isa:?}"), &exact(&own), &dx, tolerance::<T>());
    }
}

/// Shapes whose dimensions mostly differ from each other.
fn shape() -> impl Strategy<Value = PoolShape> {
    let channels = prop_oneof![1..40_usize, Just(15), Just(16), Just(17), Just(31), Just(33)];
    let window = (1..6_usize, 1..5_usize, any::<prop::sample::Index>());
    (1..4_usize, 1..10_usize, 1..12_usize, channels, window).prop_map(
        |(n, h, w, c, (kernel, stride, padding))| {
            let padding = padding.index(kernel / 2 + 1);
            let least = kernel - 2 * padding;
            PoolShape { n, h: h.max(least), w: w.max(least), c, kernel, stride, padding }
        },
    )
}

fn of([n, h, w, c]: [usize; 4], kernel: usize, stride: usize, padding: usize) -> PoolShape {
    PoolShape { n, h, w, c, kernel, stride, padding }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn f32_agrees_with_the_definition(s in shape(), levels in prop_oneof![Just(3), Just(256)]) {
        check::<f32>(&s, levels);
    }

    #[test]
    fn bf16_agrees_with_the_definition(s in shape(), levels in prop_oneof![Just(3), Just(256)]) {
        check::<bf16>(&s, levels);
    }
}

#[test]
fn edge_shapes_agree_with_the_definition() {
    for s in [
        of([1, 1, 1, 1], 1, 1, 0),
        of([2, 1, 1, 17], 3, 2, 1),
        of([1, 7, 5, 16], 3, 2, 1),
        of([1, 5, 7, 15], 2, 2, 0),
        of([3, 5, 7, 1], 2, 2, 1),
        // The last row and column are in no window.
        of([1, 6, 8, 2], 3, 2, 0),
        // Nor is every second one between windows.
        of([2, 7, 9, 33], 1, 2, 0),
        of([1, 9, 7, 3], 2, 4, 1),
        // One window holds everything.
        of([2, 4, 4, 18], 4, 4, 0),
        of([1, 2, 3, 31], 5, 1, 2),
    ] {
        for levels in [1, 2, 256] {
            check::<f32>(&s, levels);
            check::<bf16>(&s, levels);
        }
    }
}

#[test]
fn gradients_are_the_differences_of_the_twin() {
    // Less than half of the difference between values, so that the maxima stay where they are.
    const STEP: f64 = 1.0 / 128.0;
    for s in [
        of([2, 5, 7, 3], 3, 2, 1),
        of([1, 6, 4, 17], 2, 2, 0),
        of([1, 4, 5, 2], 3, 1, 1),
        of([2, 1, 1, 5], 3, 1, 1),
        of([1, 7, 8, 1], 2, 3, 1),
    ] {
        for kind in KINDS {
            let (x, dy) = (ranked::<f32>(&s, 256), values::<f32>(s.output_len(), 3));
            let mut moved = exact(&x);
            let loss = |x: &[f64]| -> f64 {
                twin(&s, kind, x).iter().zip(&dy).map(|(y, &dy)| y * f64::from(dy)).sum()
            };
            let differences: Vec<f64> = (0..x.len())
                .map(|i| {
                    let own = moved[i];
                    let [above, below] = [STEP, -STEP].map(|step| {
                        moved[i] = own + step;
                        loss(&moved)
                    });
                    moved[i] = own;
                    (above - below) / (2.0 * STEP)
                })
                .collect();
            for isa in Isa::available() {
                let dx = pool_backward(isa, &s, kind, &x, &dy);
                close(&format!("{kind:?} {isa:?} {s:?}"), &exact(&dx), &differences, 1e-6);
            }
        }
    }
}

#[test]
fn a_small_example() {
    // 1 3 3    Two windows of four, stride one. The right one holds three equal maxima, of which it
    // 2 0 3    chooses the first, as does the left one.
    let s = of([1, 2, 3, 1], 2, 1, 0);
    let (x, dy) = ([1.0, 3.0, 3.0, 2.0, 0.0, 3.0], [10.0, 20.0]);
    for isa in Isa::available() {
        assert_eq!(max_pool::<f32>(isa, &s, &x), [3.0, 3.0]);
        assert_eq!(max_pool_backward(isa, &s, &x, &dy), [0.0, 30.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(average_pool(isa, &s, &x, true), [1.5, 2.25]);
        let dx = average_pool_backward(isa, &s, &dy, true);
        assert_eq!(dx, [2.5, 7.5, 5.0, 2.5, 7.5, 5.0]);
        // A corner with its padding.
        let s = of([1, 1, 1, 1], 2, 2, 1);
        assert_eq!(average_pool(isa, &s, &[8.0_f32], true), [2.0]);
        assert_eq!(average_pool(isa, &s, &[8.0_f32], false), [8.0]);
        assert_eq!(max_pool(isa, &s, &[-8.0_f32]), [-8.0]);
    }
}

#[test]
fn nan_and_infinity_reach_what_they_touch_and_nothing_else() {
    let s = of([2, 7, 5, 17], 3, 2, 1);
    // Row 2, column 2, channel 16 of the first image: in the windows of rows 1 and columns 1.
    let at = (2 * s.w + 2) * s.c + 16;
    for isa in Isa::available() {
        for kind in KINDS {
            for odd in [f32::NAN, f32::INFINITY] {
                let mut x = ranked::<f32>(&s, 256);
                x[at] = odd;
                let y = pool(isa, &s, kind, &x);
                for_each_window(&s, |o, inputs| {
                    let own = y[o];
                    let same = if odd.is_nan() { own.is_nan() } else { own == odd };
                    assert_eq!(same, inputs.contains(&at), "{isa:?} {kind:?} {o}");
                });
            }
        }
        let mut x = ranked::<f32>(&s, 256);
        x[at] = f32::NAN;
        let y = global_average(isa, [s.n, s.h, s.w, s.c], &x);
        assert!((0..y.len()).all(|i| y[i].is_nan() == (i == 16)));

        // The window goes back to its NaN, and a NaN of the gradient to the choice.
        let mut dy = vec![1.0; s.output_len()];
        let mut holds = 0.0;
        for_each_window(&s, |_, inputs| holds += f32::from(u8::from(inputs.contains(&at))));
        assert_eq!(max_pool_backward(isa, &s, &x, &dy)[at], holds);
        dy.fill(f32::NAN);
        let dx = max_pool_backward(isa, &s, &x, &dy);
        assert!(dx[at].is_nan() && dx.contains(&0.0));
    }
}

#[test]
fn windows_of_negative_infinity_or_two_nans_choose_as_pytorch() {
    let s = of([1, 3, 3, 16], 3, 3, 0);
    let dy = vec![1.0_f32; 16];
    for isa in Isa::available() {
        let mut x = vec![f32::NEG_INFINITY; s.input_len()];
        assert_eq!(max_pool(isa, &s, &x), [f32::NEG_INFINITY; 16]);
        assert!(max_pool_backward(isa, &s, &x, &dy)[..16].iter().all(|&dx| dx == 1.0));
        x[2 * 16..3 * 16].fill(f32::NAN);
        x[5 * 16..6 * 16].fill(f32::NAN);
        x[6 * 16..].fill(9.0);
        let dx = max_pool_backward(isa, &s, &x, &dy);
        assert!((0..dx.len()).all(|i| dx[i] == f32::from(u8::from(i / 16 == 5))));
    }
}

#[test]
fn the_mean_of_a_large_image_is_precise() {
    let (h, w) = (300, 301);
    let x = vec![0.1_f32; h * w];
    let mean = global_average(Isa::detected(), [1, h, w, 1], &x)[0];
    assert!((mean / 0.1 - 1.0).abs() < 1e-5, "{mean}");
}

#[test]
fn threads_do_not_change_a_bit() {
    let s = of([9, 13, 11, 24], 3, 2, 1);
    let (x, dy) = (values::<f32>(s.input_len(), 1), values::<f32>(s.output_len(), 2));
    let size = [s.n, s.h, s.w, s.c];
    let results = [1, 2, 5].map(|threads| {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        threads.install(|| {
            let isa = Isa::detected();
            let mean = global_average(isa, size, &x);
            let mut all = global_average_backward::<f32>(isa, size, &mean);
            all.extend(mean);
            for kind in KINDS {
                all.extend(pool(isa, &s, kind, &x));
                all.extend(pool_backward(isa, &s, kind, &x, &dy));
            }
            all.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        })
    });
    assert!(results[0] == results[1] && results[0] == results[2]);
}

#[test]
#[should_panic(expected = "padding of more than half a kernel")]
fn padding_of_more_than_half_a_kernel_is_refused() {
    max_pool(Isa::SCALAR, &of([1, 4, 4, 1], 2, 2, 2), &[0.0_f32; 16]);
}

#[test]
#[should_panic(expected = "a window of 5 in 4 pixels")]
fn a_window_larger_than_the_image_is_refused() {
    max_pool(Isa::SCALAR, &of([1, 4, 4, 1], 5, 1, 0), &[0.0_f32; 16]);
}
