//! Vectors of channels: arrays that compilers keep in registers. Loops over rows are written block by
//! block of sixteen channels, then eight, then one, each block being loaded, computed and stored as an
//! array, so the compiler need not consider that slices may overlap.

use crate::real::Real;

/// The first `W` values of `x`.
#[inline(always)]
pub(crate) fn load<T: Real, const W: usize>(x: &[T]) -> [f32; W] {
    let x: &[T; W] = x.first_chunk().expect("a block lies inside its row");
    let mut lanes = [0.0; W];
    for i in 0..W {
        lanes[i] = x[i].to_f32();
    }
    lanes
}

/// Stores to the first `W` elements of `out`.
#[inline(always)]
pub(crate) fn store<T: Real, const W: usize>(lanes: [f32; W], out: &mut [T]) {
    let out: &mut [T; W] = out.first_chunk_mut().expect("a block lies inside its row");
    *out = rounded(lanes);
}

/// The values in the format in which they are stored.
#[inline(always)]
pub(crate) fn rounded<T: Real, const W: usize>(lanes: [f32; W]) -> [T; W] {
    let mut rounded = [T::default(); W];
    for i in 0..W {
        rounded[i] = T::from_f32(lanes[i]);
    }
    rounded
}

/// Adds to the first `W` elements of `out`.
#[inline(always)]
pub(crate) fn add<const W: usize>(lanes: [f32; W], out: &mut [f32]) {
    let mut sum = load::<f32, W>(out);
    for i in 0..W {
        sum[i] += lanes[i];
    }
    store(sum, out);
}

/// `a·b + c`, rounded once: one instruction if the processor has it (AVX2 and up, every AArch64), otherwise a slow
/// call.
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// An array that holds `$value` for each lane `$i`. A macro, because the compiler keeps larger closures
/// apart, with the instructions of every processor only.
macro_rules! map {
    (|$i:ident| $value:expr) => {{
        let mut lanes = [0.0_f32; _];
        for $i in 0..lanes.len() {
            lanes[$i] = $value;
        }
        lanes
    }};
}
pub(crate) use map;

/// Evaluates `$body` for blocks of `$c` channels: `$j` is the first one, the constant `$w` how many there are.
macro_rules! for_each_block {
    ($c:expr, $j:ident, $w:ident => $body:expr) => {{
        let c: usize = $c;
        let mut $j = 0;
        while $j + 16 <= c {
            const $w: usize = 16;
            $body;
            $j += 16;
        }
        if $j + 8 <= c {
            const $w: usize = 8;
            $body;
            $j += 8;
        }
        while $j < c {
            const $w: usize = 1;
            $body;
            $j += 1;
        }
    }};
}
pub(crate) use for_each_block;
