//! Operations that blocks and models are made of. On a CPU most are one operation of our own with its own backward
//! pass, on the kernels of `fixnorm-kernels`; elsewhere they are composed of Burn's operations.
//!
//! | file | contents |
//! |---|---|
//! | `pass.rs` | how a forward pass is executed |
//! | `fused_block.rs` | a whole block as one operation |
//! | `pool.rs` | maximum and mean over pixels |
//! | `linear.rs` | linear layers |
//! | `peer.rs` | means over the batches of several devices |
//! | `product_tuning.rs` | the choice of a GPU's kernels for products |
//! | `composed.rs` | small operations composed of Burn's |
//! | `flex.rs` | memory of Burn's CPU tensors |
//!
//! Not here: which operations a block is (`blocks`), kernels for GPUs (`gpu`), the loss (`loss`).

pub(crate) mod composed;
pub(crate) mod flex;
pub(crate) mod fused_block;
pub(crate) mod linear;
pub(crate) mod pass;
pub(crate) mod peer;
pub(crate) mod pool;
pub(crate) mod product_tuning;
