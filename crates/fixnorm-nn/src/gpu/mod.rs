//! Operations on the GPUs that Burn reaches, in CubeCL: those for which Burn needs several passes over memory, has a slow
//! backward pass, or measures candidates for minutes.
//!
//! | file | contents |
//! |---|---|
//! | `conv.rs`, `conv_kernels.rs` | convolution, as an operation with a backward pass |
//! | `products.rs` | matrix products, which convolutions are but for the depthwise ones |
//! | `windows.rs` | images as the factors of a product, and back |
//! | `depthwise.rs` | depthwise convolution |
//! | `norm.rs`, `norm_launch.rs`, `norm_kernels.rs`, `norm_gradient.rs` | batch norm with activation |
//! | `activations.rs` | activations and their derivatives |
//! | `loss.rs` | softmax cross-entropy |
//! | `pixels.rs` | bytes to normalized floats |
//! | `rows.rs` | images as rows of channels, and launch sizes |

mod activations;
pub(crate) mod conv;
mod conv_kernels;
mod depthwise;
pub(crate) mod loss;
pub(crate) mod norm;
mod norm_gradient;
mod norm_kernels;
mod norm_launch;
pub(crate) mod pixels;
mod products;
mod rows;
mod windows;
