//! Convolutions of NHWC images, forward and backward, fused with the normalization and activation around them.
//! Not here: how a block connects them (`block`).
//!
//! # Contract
//!
//! ```text
//! forward    x = gate·activation(scale·data + shift)           computed in the cache while reading
//!            y[n, oy, ox, co] = Σ x[n, oy·s + ky − top, ox·s + kx − left, ci] · w[co, ci, ky, kx]
//!            moments of y over n, oy, ox                       from the f32 sums
//! backward   dy = p·g + q·y + r                                computed in the cache while reading
//!            dw = Σ dy·x;   dx = Σ dy·w, then masked, added to or split from its gate
//! ```
//!
//! Layout: images `[n, h, w, c]`, weights `[c_out, c_in/groups, kh, kw]`, row-major. Stored values are
//! `f32` or `bf16`; sums are `f32` within a block of rows, `f64` across blocks. Work is split by
//! sizes alone, so a result does not depend on the number of threads. Pixels outside the image
//! are zero, after activation. NaN and infinity reach every result that they take part in, and, where a
//! convolution is filtered minimally (`winograd.rs`), what shares a tile with one.

mod backward;
mod bordered;
mod dense;
mod depthwise;
pub mod scalar;
mod shape;
#[cfg(test)]
mod tests;
mod tile;
mod weight_sums;
mod window;
mod winograd;

use crate::isa::{Isa, Level};
use crate::norm::Moments;
use crate::profile::timed;
use crate::real::Real;
pub use crate::rows::{Gradient, Input};
use backward::Backward;
pub use backward::{ConvGrad, Wanted};
pub use shape::ConvShape;

/// How a convolution is computed.
enum Method {
    Depthwise,
    /// By minimal filtering, in `f32`.
    Winograd,
    /// By products of operands in the format of the stored values.
    Stored,
    /// By products of `f32`.
    Widened,
}

impl Method {
    fn of<T: Real>(isa: Isa, shape: &ConvShape) -> Self {
        // A quarter of the multiplications at half of the speed pays, at a fraction of it as beside tiles does not.
        let tiles = T::products_pay(isa) && isa.level() >= Level::Amx;
        if shape.is_depthwise() {
            Method::Depthwise
        } else if winograd::pays(shape) && !tiles {
            Method::Winograd
        } else if T::products_pay(isa) {
            Method::Stored
        } else {
            Method::Widened
        }
    }
}

/// Convolves. Returns the result, and its moments if `want_moments` is set.
///
/// # Panics
/// If a length does not fit `shape`.
pub fn forward<T: Real>(
    isa: Isa,
    shape: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    want_moments: bool,
) -> (Vec<T>, Option<Moments>) {
    shape.check();
    assert_eq!(x.data.len(), shape.input_len(), "input");
    assert_eq!(weight.len(), shape.weight_len(), "weight");
    let bytes = (shape.input_len() + shape.output_len()) * T::BYTES;
    timed(
        || format!("{} forward", shape.name()),
        2 * shape.macs(),
        bytes,
        || match Method::of::<T>(isa, shape) {
            Method::Depthwise => depthwise::forward(isa, shape, x, weight, want_moments),
            Method::Winograd => winograd::forward(isa, shape, x, weight, want_moments),
            Method::Stored => dense::forward::<T, T>(isa, shape, x, weight, want_moments),
            Method::Widened => dense::forward::<T, f32>(isa, shape, x, weight, want_moments),
        },
    )
}

/// Returns the gradients of weight and input.
///
/// # Panics
/// If a length does not fit `shape`, or `wanted` does not fit `x`.
pub fn backward<T: Real>(
    isa: Isa,
    shape: &ConvShape,
    x: Input<'_, T>,
    weight: &[f32],
    dy: Gradient<'_, T>,
    wanted: Wanted<'_, T>,
) -> ConvGrad<T> {
    shape.check();
    assert_eq!(x.data.len(), shape.input_len(), "input");
    assert_eq!(weight.len(), shape.weight_len(), "weight");
    assert_eq!(dy.g.len(), shape.output_len(), "gradient");
    match wanted {
        Wanted::Masked => assert!(x.affine.is_some() && x.gate.is_none()),
        Wanted::Gated => assert!(x.affine.is_some() && x.gate.is_some()),
        Wanted::Plain(_) => assert!(x.affine.is_none()),
        Wanted::Nothing => {}
    }
    let wants_dx = !matches!(wanted, Wanted::Nothing);
    let pass = Backward { isa, s: shape, x, dy, wanted };
    // In: x, and g and y for dy. Out: dx.
    let bytes = ((1 + usize::from(wants_dx)) * shape.input_len()
        + (1 + usize::from(dy.norm.is_some())) * shape.output_len())
        * T::BYTES;
    timed(
        || format!("{} backward", shape.name()),
        2 * shape.macs() * (1 + u64::from(wants_dx)),
        bytes,
        || match Method::of::<T>(isa, shape) {
            Method::Depthwise => depthwise::backward(pass, weight),
            Method::Winograd => winograd::backward(pass, weight),
            Method::Stored => dense::backward::<T, T>(pass, weight),
            Method::Widened => dense::backward::<T, f32>(pass, weight),
        },
    )
}
