//! CPU kernels of fixnorm on plain slices. Does not depend on a tensor library. All modules but [`update`] and [`isa`] need
//! the feature `network`.
//!
//! | module | computes |
//! |---|---|
//! | [`update`] | one optimizer step of one weight, with its norm controlled, in two passes over memory |
//! | [`block`] | chains of convolution, batch norm and activation with gate and shortcut, as one operation |
//! | [`conv`] | convolutions of NHWC images, forward and backward, fused with normalization and activation |
//! | [`norm`] | batch statistics, the affine map of a batch normalization, and its gradient |
//! | [`pool`] | maxima and means of windows and of whole images, forward and backward |
//! | [`loss`] | softmax cross-entropy with label smoothing, and its gradient |
//! | [`gemm`] | products of matrices in a thread's cache |
//! | [`activation`] | activation functions and their derivatives |
//! | [`real`] | the number formats that activations are stored in |
//! | [`profile`] | time of each operation of a step |
//! | [`isa`] | instruction sets, and the detection of those that the processor has |

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
#[cfg(all(test, feature = "network"))]
mod testing;
pub mod update;

#[cfg(feature = "network")]
pub use activation::Activation;
pub use isa::{Isa, IsaError};
#[cfg(feature = "network")]
pub use real::{Real, bf16};
