//! Operations on the GPUs that Burn reaches, in CubeCL: those for which Burn needs several passes over memory or has a
//! slow backward pass. Convolutions other than depthwise ones are Burn's.
//!
//! | file | contents |
//! |---|---|
//! | `norm.rs`, `norm_kernels.rs` | batch norm with activation |
//! | `depthwise.rs`, `depthwise_kernels.rs` | depthwise convolution |
//! | `pixels.rs` | bytes to normalized floats |
//! | `rows.rs` | images as rows of channels, and launch sizes |

pub(crate) mod depthwise;
mod depthwise_kernels;
pub(crate) mod norm;
mod norm_kernels;
pub(crate) mod pixels;
mod rows;
