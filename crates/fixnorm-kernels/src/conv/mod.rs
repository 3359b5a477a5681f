//! Convolutions of NHWC pictures, forward and backward, with what comes before and after them.
//! Not here: how a block strings them together (`block`).
//!
//! # Contract
//!
//! ```text
//! forward    x = gate·activation(scale·data + shift)           read and made in the cache
//!            y[n, oy, ox, co] = Σ x[n, oy·s + ky − top, ox·s + kx − left, ci] · w[co, ci, ky, kx]
//!            moments of y over n, oy, ox                       from the f32 sums
//! backward   dy = p·g + q·y + r                                read and made in the cache
//!            dw = Σ dy·x;   dx = Σ dy·w, then masked, added to or split from its gate
//! ```
//!
//! Layout: pictures `[n, h, w, c]`, weights `[c_out, c_in/groups, kh, kw]`, row-major. Stored numbers are
//! `f32` or `bf16`; sums are `f32` within a block of rows, `f64` across blocks. Work is split by
//! sizes alone, so a result does not depend on the number of threads. Pixels outside the picture
//! are zero, after activation. NaN and infinity reach every result that they take part in, and, where a
//! convolution is filtered minimally (`winograd.rs`), what shares a tile with one.

mod bordered;
mod dense;
mod depthwise;
pub mod scalar;
#[cfg(test)]
mod tests;
mod tile;
mod way_back;
mod window;
mod winograd;

use crate::isa::Isa;
use crate::norm::{GradSums, Moments};
use crate::profile::timed;
use crate::real::Real;
pub use crate::rows::{Gradient, Input};
use way_back::WayBack;

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Pictures.
    pub n: usize,
    /// Height of a picture.
    pub h: usize,
    /// Width of a picture.
    pub w: usize,
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Stride in both directions.
    pub stride: usize,
    /// Rows of zeros above.
    pub top: usize,
    /// Columns of zeros to the left.
    pub left: usize,
    /// Height of a result.
    pub h_out: usize,
    /// Width of a result.
    pub w_out: usize,
    /// Output channel `co` sees the input channels of its group only.
    pub groups: usize,
}

impl ConvShape {
    /// A convolution padded by half a kernel on each side, as PyTorch's nets are.
    pub fn symmetric(
        [n, h, w, c_in]: [usize; 4],
        c_out: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
    ) -> Self {
        let pad = kernel / 2;
        let out = |x: usize| (x + 2 * pad - kernel) / stride + 1;
        Self {
            n,
            h,
            w,
            c_in,
            c_out,
            kernel,
            stride,
            top: pad,
            left: pad,
            h_out: out(h),
            w_out: out(w),
            groups,
        }
    }

    /// Numbers of the input.
    pub fn input_len(&self) -> usize {
        self.n * self.h * self.w * self.c_in
    }

    /// Numbers of the result.
    pub fn output_len(&self) -> usize {
        self.n * self.h_out * self.w_out * self.c_out
    }

    /// Numbers of the weight.
    pub fn weight_len(&self) -> usize {
        self.c_out * (self.c_in / self.groups) * self.kernel * self.kernel
    }

    /// Multiply-accumulates.
    pub fn macs(&self) -> u64 {
        (self.n * self.h_out * self.w_out) as u64 * self.weight_len() as u64
    }

    /// What a profile calls it.
    fn name(&self) -> String {
        let kind = match (self.is_depthwise(), self.groups, self.kernel) {
            (true, _, _) => "depthwise",
            (_, 1, 1) => "pointwise",
            (_, 1, _) => "dense",
            _ => "grouped",
        };
        format!(
            "{kind} {k}x{k}/{} {}x{} {} -> {}",
            self.stride,
            self.h,
            self.w,
            self.c_in,
            self.c_out,
            k = self.kernel
        )
    }

    fn is_depthwise(&self) -> bool {
        self.groups == self.c_in && self.c_in == self.c_out && self.groups > 1
    }

    /// Whether a result's pixel is made of the input's pixel of the same index alone.
    fn is_direct(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.groups == 1 && self.top == 0 && self.left == 0
    }

    fn check(&self) {
        assert!(self.groups > 0 && self.c_in.is_multiple_of(self.groups));
        assert!(self.c_out.is_multiple_of(self.groups));
        assert!(self.kernel > 0 && self.kernel <= 32 && self.stride > 0 && self.n > 0);
        assert!(self.top < self.kernel && self.left < self.kernel);
        // The last pixel of the result still touches the picture.
        assert!((self.h_out - 1) * self.stride < self.h + self.top);
        assert!((self.w_out - 1) * self.stride < self.w + self.left);
    }
}

/// Convolves: the result, and its moments where they are wanted.
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
        || match (shape.is_depthwise(), T::products_pay(isa)) {
            (true, _) => depthwise::forward(isa, shape, x, weight, want_moments),
            (_, true) => dense::forward::<T, T>(isa, shape, x, weight, want_moments),
            _ if winograd::pays(shape) => winograd::forward(isa, shape, x, weight, want_moments),
            (_, false) => dense::forward::<T, f32>(isa, shape, x, weight, want_moments),
        },
    )
}

/// What becomes of the gradient of a convolution's input.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a, T> {
    /// It is not needed.
    Nothing,
    /// The gradient of the stored numbers, which were taken as they are, plus these.
    Plain(Option<&'a [T]>),
    /// The gradient before the activation, with the sums for its normalization.
    Masked,
    /// The gradient of the gated numbers, and of the gate.
    Gated,
}

/// The gradients of a convolution.
#[derive(Clone, Debug)]
pub struct ConvGrad<T> {
    /// As [`Wanted`]; empty for nothing.
    pub dx: Vec<T>,
    /// `[c_out, c_in/groups, kh, kw]`.
    pub dweight: Vec<f32>,
    /// Of `dx`, where it was masked.
    pub sums: Option<GradSums>,
    /// `[n, c_in]`, where there is a gate.
    pub dgate: Option<Vec<f32>>,
}

/// The gradients of weight and input.
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
    let way = WayBack { isa, s: shape, x, dy, wanted };
    // In: x, and g and y for dy. Out: dx.
    let bytes = ((1 + usize::from(wants_dx)) * shape.input_len()
        + (1 + usize::from(dy.norm.is_some())) * shape.output_len())
        * T::BYTES;
    timed(
        || format!("{} backward", shape.name()),
        2 * shape.macs() * (1 + u64::from(wants_dx)),
        bytes,
        || match (shape.is_depthwise(), T::products_pay(isa)) {
            (true, _) => depthwise::backward(way, weight),
            (_, true) => dense::backward::<T, T>(way, weight),
            _ if winograd::pays(shape) => winograd::backward(way, weight),
            (_, false) => dense::backward::<T, f32>(way, weight),
        },
    )
}
