//! CPU kernels of fixnorm on plain slices. Knows no tensor library. All but [`update`] and [`isa`] need the feature `network`.
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

#[cfg(feature = "network")]
pub mod activation;
#[cfg(feature = "allocator")]
pub mod allocator;
#[cfg(feature = "network")]
pub mod block;
#[cfg(feature = "network")]
pub mod conv;
#[cfg(feature = "network")]
pub mod gemm;
pub mod isa;
#[cfg(feature = "network")]
mod lanes;
#[cfg(feature = "network")]
pub mod loss;
#[cfg(feature = "network")]
mod memory;
#[cfg(feature = "network")]
pub mod norm;
#[cfg(feature = "network")]
pub mod pool;
#[cfg(feature = "network")]
pub mod profile;
#[cfg(feature = "network")]
pub mod real;
#[cfg(feature = "network")]
mod rows;
#[cfg(feature = "network")]
mod scratch;
pub mod update;

#[cfg(feature = "network")]
pub use activation::Activation;
pub use isa::{Isa, IsaError};
#[cfg(feature = "network")]
pub use real::{Real, bf16};
