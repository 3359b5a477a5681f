//! Every instruction set against the plainest loop in `f64`.

use super::*;
use crate::real::bf16;
use crate::testing::cases;
use proptest::prelude::*;

/// Sizes around lanes, tiles and panels, and the degenerate ones.
fn size(max: usize) -> impl Strategy<Value = usize> {
    prop_oneof![1..=max, prop_oneof![Just(1), Just(7), Just(15), Just(16), Just(17), Just(33)]]
}

fn value(seed: u64, i: usize) -> f32 {
    // A fixed hash, mapped to ±1.
    let mut x = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed;
    x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x >> 40) as f32) / (1 << 23) as f32 - 1.0
}

fn matrix<T: Real>(rows: usize, columns: usize, stride: usize, seed: u64, padding: f32) -> Vec<T> {
    let element = |i: usize| match (i / stride < rows, i % stride < columns) {
        (true, true) => T::from_f32(value(seed, i)),
        _ => T::from_f32(padding),
    };
    (0..padded(rows, ROWS) * stride).map(element).collect()
}

fn check<T: Real>([m, n, k]: [usize; 3], seed: u64) -> Result<(), TestCaseError> {
    let tolerance = 4e-7 * (k.max(m) as f64 + 8.0);
    let stride = padded(k, k_align::<T>()) + k_align::<T>();
    let mut a = matrix::<T>(m, k, stride, seed, 0.0);
    // Rows beyond `m` may hold anything.
    a[m * stride..].fill(T::from_f32(f32::NAN));
    let b = matrix::<T>(k, n, n, seed ^ 1, 0.0);
    let packed = PackedB::<T>::new(k, n, |p, j| b[p * n + j].to_f32());
    let c_stride = padded(n, COLUMNS) + COLUMNS;
    for isa in Isa::available() {
        let mut c = vec![f32::NAN; padded(m, ROWS) * c_stride];
        multiply(
            isa,
            m,
            Rows { data: &a, stride },
            &packed,
            RowsMut { data: &mut c, stride: c_stride },
        );
        for i in 0..m {
            for j in 0..n {
                let exact: f64 = (0..k)
                    .map(|p| {
                        f64::from(a[i * stride + p].to_f32()) * f64::from(b[p * n + j].to_f32())
                    })
                    .sum();
                let got = f64::from(c[i * c_stride + j]);
                prop_assert!((got - exact).abs() <= tolerance, "{isa:?} [{i}, {j}] {got} {exact}");
            }
        }
    }
    let (a_stride, b_stride) = (padded(n, ROWS), padded(k, COLUMNS));
    let a = matrix::<T>(m, n, a_stride, seed ^ 2, 0.0);
    let b = matrix::<T>(m, k, b_stride, seed ^ 3, 0.0);
    for isa in Isa::available() {
        let mut c = vec![0.5; padded(n, ROWS) * b_stride];
        add_outer(
            isa,
            [m, n, k],
            Rows { data: &a, stride: a_stride },
            Rows { data: &b, stride: b_stride },
            RowsMut { data: &mut c, stride: b_stride },
        );
        for i in 0..n {
            for j in 0..k {
                let exact: f64 = (0..m)
                    .map(|p| {
                        f64::from(a[p * a_stride + i].to_f32())
                            * f64::from(b[p * b_stride + j].to_f32())
                    })
                    .sum();
                let got = f64::from(c[i * b_stride + j]) - 0.5;
                prop_assert!((got - exact).abs() <= tolerance, "{isa:?} [{i}, {j}] {got} {exact}");
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn f32_is_the_plain_product(m in size(70), n in size(70), k in size(90), seed: u64) {
        check::<f32>([m, n, k], seed)?;
    }

    #[test]
    fn bf16_is_the_plain_product(m in size(70), n in size(70), k in size(90), seed: u64) {
        check::<bf16>([m, n, k], seed)?;
    }
}

#[test]
fn nan_and_infinity_stay_in_their_row_and_column() {
    fn check<T: Real>() {
        let (m, n, k) = (19, 21, 33);
        let stride = padded(k, k_align::<T>());
        for special in [f32::NAN, f32::INFINITY] {
            let mut a = matrix::<T>(m, k, stride, 5, 0.0);
            a[7 * stride + 4] = T::from_f32(special);
            let packed = PackedB::<T>::new(k, n, |p, j| 1.0 + value(6, p * n + j).abs());
            for isa in Isa::available() {
                let c_stride = padded(n, COLUMNS);
                let mut c = vec![0.0; padded(m, ROWS) * c_stride];
                let out = RowsMut { data: &mut c, stride: c_stride };
                multiply(isa, m, Rows { data: &a, stride }, &packed, out);
                for i in 0..m {
                    for j in 0..n {
                        let got = c[i * c_stride + j];
                        assert_eq!(got.is_finite(), i != 7, "{isa:?} [{i}, {j}] {got}");
                        assert_eq!(got.is_nan(), i == 7 && special.is_nan());
                    }
                }
            }
        }
    }
    check::<f32>();
    check::<bf16>();
}

#[test]
fn an_empty_sum_is_zero() {
    fn check<T: Real>() {
        let packed = PackedB::<T>::new(0, 5, |_, _| 1.0);
        for isa in Isa::available() {
            let mut c = vec![7.0; ROWS * COLUMNS];
            let a = Rows { data: &[], stride: 0 };
            add_product(isa, 3, a, &packed, RowsMut { data: &mut c, stride: COLUMNS });
            assert!(c.iter().all(|&c| c == 7.0), "{isa:?}");
            multiply(isa, 3, a, &packed, RowsMut { data: &mut c, stride: COLUMNS });
            assert!(c[..3 * COLUMNS].iter().all(|&c| c == 0.0), "{isa:?}");
            let out = RowsMut { data: &mut c, stride: COLUMNS };
            add_outer(isa, [0, 5, 5], a, a, out);
            let out = RowsMut { data: &mut c, stride: COLUMNS };
            add_outer(isa, [5, 5, 0], a, a, out);
        }
    }
    check::<f32>();
    check::<bf16>();
}

/// Panics, or the loops would read and write beyond the slices.
fn refused(run: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = std::panic::catch_unwind(run).expect_err("the sizes do not fit");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn sizes_whose_product_overflows_are_refused() {
    // 31 rows further the index has gone once around.
    let wrapping = usize::MAX / 31 + 1;
    let isa = Isa::detected();
    let message = refused(|| {
        let packed = PackedB::<f32>::new(4, 16, |_, _| 1.0);
        let (a, mut c) = ([1.0; 64], [0.0; 32 * 16]);
        let a = Rows { data: &a, stride: wrapping };
        multiply(isa, 17, a, &packed, RowsMut { data: &mut c, stride: 16 });
    });
    assert!(message.starts_with("A: 64 elements"), "{message}");
    let message = refused(|| {
        let packed = PackedB::<f32>::new(4, 16, |_, _| 1.0);
        let (a, mut c) = ([1.0; 32 * 4], [0.0; 64]);
        let a = Rows { data: &a, stride: 4 };
        multiply(isa, 17, a, &packed, RowsMut { data: &mut c, stride: wrapping });
    });
    assert!(message.starts_with("C: 64 elements"), "{message}");
    let message = refused(|| {
        let (a, mut c) = ([1.0; 64], [0.0; 16 * 16]);
        let (a, b) = (Rows { data: &a, stride: wrapping }, Rows { data: &a, stride: 1 });
        add_outer(isa, [32, 16, 16], a, b, RowsMut { data: &mut c, stride: 16 });
    });
    assert!(message.starts_with("A: 64 elements"), "{message}");
    refused(|| {
        let packed = PackedB::<f32>::new(4, 16, |_, _| 1.0);
        let (a, mut c) = ([1.0; 64], [0.0; 64]);
        let a = Rows { data: &a, stride: 0 };
        multiply(isa, usize::MAX, a, &packed, RowsMut { data: &mut c, stride: 16 });
    });
    refused(|| drop(PackedB::<f32>::new(usize::MAX / 16 + 1, 16, |_, _| 1.0)));
}
