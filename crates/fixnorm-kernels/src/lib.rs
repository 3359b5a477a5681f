//! CPU kernels of fixnorm on plain slices. Knows no tensor library.
//!
//! | module | computes |
//! |---|---|
//! | [`update`] | one optimizer step of one weight, with its norm controlled, in two passes over memory |
//! | [`block`] | chains of convolution, batch norm and activation with gate and shortcut, as one operation |
//! | [`conv`] | convolutions of NHWC pictures, forward and backward, with what comes before and after |
//! | [`norm`] | batch statistics, the affine map they come to, and the way back |
//! | [`pool`] | maxima and means of windows and of whole pictures, forward and backward |
//! | [`loss`] | softmax cross-entropy with label smoothing, and its gradient |
//! | [`gemm`] | products of matrices in a thread's cache |
//! | [`activation`] | activation functions and their derivatives |
//! | [`real`] | the number formats that activations are stored in |
//! | [`profile`] | where the time of a step goes |
//! | [`isa`] | which instructions are used |

pub mod activation;
#[cfg(feature = "allocator")]
pub mod allocator;
pub mod block;
pub mod conv;
pub mod gemm;
pub mod isa;
mod lanes;
pub mod loss;
mod memory;
pub mod norm;
pub mod pool;
pub mod profile;
pub mod real;
mod rows;
mod scratch;
pub mod update;

pub use activation::Activation;
pub use isa::{Isa, IsaError};
pub use real::{Real, bf16};
