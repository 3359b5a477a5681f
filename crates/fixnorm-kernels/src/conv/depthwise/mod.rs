//! Convolutions of each channel by itself: an image passes through a few rows at a time.
//! Not here: all other convolutions (`dense.rs`).
//!
//! ```text
//! forward   forward.rs      backward   backward.rs      sums over taps   taps.rs
//! rows and blocks of channels          rows.rs
//! ```
//!
//! ```text
//! for each image, for each row of the result
//!   read and activate the rows of x that are new, read and combine the row of dy
//!   for each block of sixteen channels
//!     forward    y[row]  = Σ taps · x rows
//!     backward   dtaps  += x rows · dy[row];   dx of the rows that no later row of dy reaches
//! ```
//!
//! 1. Memory is read and written in the order it lies in; a ring of as many rows as the kernel is high
//!    stays in the cache, block by block, padded and activated, so the inner loops have no edges.
//! 2. The taps of sixteen channels are nine (or 25) vectors that stay in registers along a row.
//! 3. The input's gradient is gathered, not scattered: pixels whose coordinates have the same remainder
//!    see the same taps, so each class is a convolution of `dy` with a kernel of its own.

mod backward;
mod forward;
mod rows;
mod taps;

pub(super) use backward::backward;
pub(super) use forward::forward;
