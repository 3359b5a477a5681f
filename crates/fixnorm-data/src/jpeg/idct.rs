//! The inverse DCT of a block of 8 × 8 coefficients to 8, 4, 2 or 1 pixels a side.
//!
//! Fewer pixels come from as many low coefficients: the image without the frequencies that it has no room for, which
//! differs less from a filtered one than averages of pixels do. Fixed point: a pass multiplies by 4096 and cuts to 2
//! bits behind the point, the second to whole numbers. For 8 a side these are the integers of stb_image, which zune-jpeg
//! computes as well, so that pixels are the same to the bit.
//! Not here: coefficients (`huffman.rs`), where pixels go (`sequential.rs`).

/// Rounding of the first pass.
const FIRST: i32 = 512;
/// Rounding of the second pass, and the 128 that is the middle of the values.
const SECOND: i32 = 512 + (1 << 16) + (128 << 17);

/// Writes the pixels of a block, `DOWN` rows of `ACROSS` from `out[0]` on, `stride` from row to row. `flat` says that
/// only the first coefficient is not 0.
#[inline(always)]
pub(super) fn inverse<const DOWN: usize, const ACROSS: usize>(
    block: &[i32; 64],
    flat: bool,
    out: &mut [u8],
    stride: usize,
) {
    if flat {
        let value = (block[0].wrapping_add(4 + 1024) >> 3).clamp(0, 255) as u8;
        for row in out.chunks_mut(stride).take(DOWN) {
            row[..ACROSS].fill(value);
        }
        return;
    }
    // A copy of its own, without which the compiler makes no vectors of the columns.
    let block = *block;
    let (mut half, mut turned, mut whole) = ([0; 64], [0; 64], [0; 64]);
    for column in 0..ACROSS {
        let sums = line::<DOWN>(|row| block[row * 8 + column], FIRST);
        for row in 0..DOWN {
            half[row * 8 + column] = sums[row] >> 10;
        }
    }
    // Lines side by side again, so that the compiler makes vectors of them.
    for row in 0..DOWN {
        for column in 0..ACROSS {
            turned[column * 8 + row] = half[row * 8 + column];
        }
    }
    for row in 0..DOWN {
        let sums = line::<ACROSS>(|column| turned[column * 8 + row], SECOND);
        for column in 0..ACROSS {
            whole[column * 8 + row] = sums[column];
        }
    }
    let pixels = whole.map(|sum| (sum >> 17).clamp(0, 255) as u8);
    for (y, row) in out.chunks_mut(stride).take(DOWN).enumerate() {
        for (x, pixel) in row[..ACROSS].iter_mut().enumerate() {
            *pixel = pixels[x * 8 + y];
        }
    }
}

/// 4096 times the values of a line of coefficients, and `rounding`.
#[inline(always)]
fn line<const N: usize>(c: impl Fn(usize) -> i32, rounding: i32) -> [i32; N] {
    let mut out = [0; N];
    match N {
        8 => out.copy_from_slice(&eight(std::array::from_fn(c), rounding)),
        4 => out.copy_from_slice(&four(std::array::from_fn(c), rounding)),
        2 => {
            let [even, odd] = [c(0), c(1)].map(|c| c.wrapping_mul(4096));
            let even = even.wrapping_add(rounding);
            out.copy_from_slice(&[even.wrapping_add(odd), even.wrapping_sub(odd)]);
        }
        _ => out[0] = c(0).wrapping_mul(4096).wrapping_add(rounding),
    }
    out
}

/// x0 = c0 + c2 + 1.306563 c1 + 0.541196 c3, and so on.
#[inline(always)]
fn four([c0, c1, c2, c3]: [i32; 4], rounding: i32) -> [i32; 4] {
    let (add, sub, mul) = (i32::wrapping_add, i32::wrapping_sub, i32::wrapping_mul);
    let (e0, e1) = (add(mul(add(c0, c2), 4096), rounding), add(mul(sub(c0, c2), 4096), rounding));
    let (o0, o1) = (add(mul(c1, 5352), mul(c3, 2217)), sub(mul(c1, 2217), mul(c3, 5352)));
    [add(e0, o0), add(e1, o1), sub(e1, o1), sub(e0, o0)]
}

/// Source: `stb_image`'s inverse DCT, after Loeffler, Ligtenberg and Moschytz (1989).
#[inline(always)]
fn eight(c: [i32; 8], rounding: i32) -> [i32; 8] {
    let (add, sub, mul) = (i32::wrapping_add, i32::wrapping_sub, i32::wrapping_mul);
    let p1 = mul(add(c[2], c[6]), 2217);
    let (t2, t3) = (add(p1, mul(c[6], -7567)), add(p1, mul(c[2], 3135)));
    let t0 = add(mul(add(c[0], c[4]), 4096), rounding);
    let t1 = add(mul(sub(c[0], c[4]), 4096), rounding);
    let [e0, e1, e2, e3] = [add(t0, t3), add(t1, t2), sub(t1, t2), sub(t0, t3)];
    let [t0, t1, t2, t3] = [c[7], c[5], c[3], c[1]];
    let p5 = mul(add(add(t0, t2), add(t1, t3)), 4816);
    let (p1, p2) = (add(p5, mul(add(t0, t3), -3685)), add(p5, mul(add(t1, t2), -10497)));
    let (p3, p4) = (mul(add(t0, t2), -8034), mul(add(t1, t3), -1597));
    let o0 = add(mul(t3, 6149), add(p1, p4));
    let o1 = add(mul(t2, 12586), add(p2, p3));
    let o2 = add(mul(t1, 8410), add(p2, p4));
    let o3 = add(mul(t0, 1223), add(p1, p3));
    [
        add(e0, o0),
        add(e1, o1),
        add(e2, o2),
        add(e3, o3),
        sub(e3, o3),
        sub(e2, o2),
        sub(e1, o1),
        sub(e0, o0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The orthonormal inverse DCT of the low coefficients, in f64.
    fn reference<const DOWN: usize, const ACROSS: usize>(block: &[i32; 64]) -> Vec<f64> {
        let basis = |n: usize, x: usize, u: usize| {
            let angle = (2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / (2 * n) as f64;
            angle.cos() * if u == 0 { 1.0 } else { 2f64.sqrt() }
        };
        let pixel = |y: usize, x: usize| -> f64 {
            let terms = (0..DOWN * ACROSS).map(|i| {
                let (v, u) = (i / ACROSS, i % ACROSS);
                f64::from(block[v * 8 + u]) * basis(DOWN, y, v) * basis(ACROSS, x, u)
            });
            (terms.sum::<f64>() / 8.0 + 128.0).clamp(0.0, 255.0)
        };
        (0..DOWN * ACROSS).map(|i| pixel(i / ACROSS, i % ACROSS)).collect()
    }

    fn check<const DOWN: usize, const ACROSS: usize>() {
        let mut state = 1u32;
        for round in 0..200 {
            let mut block = [0; 64];
            for (at, value) in block.iter_mut().enumerate() {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let sparse = at > 0 && (state >> 8) % 4 < round % 4;
                let spread = if at == 0 { 1600 } else { 300 };
                *value = if sparse { 0 } else { (state >> 16) as i32 % spread - spread / 2 };
            }
            let mut out = vec![7; DOWN * 11];
            inverse::<DOWN, ACROSS>(&block, false, &mut out, 11);
            for (i, expected) in reference::<DOWN, ACROSS>(&block).into_iter().enumerate() {
                let found = f64::from(out[i / ACROSS * 11 + i % ACROSS]);
                assert!(
                    (found - expected).abs() < 0.7,
                    "{DOWN}x{ACROSS} at {i}: {found}, {expected}"
                );
            }
            assert!(out.chunks(11).all(|row| row[ACROSS..].iter().all(|&pixel| pixel == 7)));
            block[1..].fill(0);
            let mut flat = out.clone();
            inverse::<DOWN, ACROSS>(&block, true, &mut flat, 11);
            inverse::<DOWN, ACROSS>(&block, false, &mut out, 11);
            assert_eq!(flat, out);
        }
    }

    #[test]
    fn every_size_is_the_transform_of_the_low_coefficients() {
        check::<8, 8>();
        check::<4, 4>();
        check::<2, 2>();
        check::<1, 1>();
        check::<8, 4>();
        check::<4, 8>();
        check::<4, 2>();
        check::<2, 4>();
        check::<2, 1>();
        check::<1, 2>();
    }
}
