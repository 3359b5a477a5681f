//! Random changes of training images, one kind a file.
//!
//! | module | what |
//! |---|---|
//! | `crop` | where a random resized crop, and one of a padded image, lies |
//! | `op` | one operation of a policy, by name and strength |
//! | `color` | operations on values |
//! | `geometry` | operations that move pixels |
//! | `jitter` | brightness, contrast, saturation and hue, each a little |
//! | `policy` | which operations an image gets, by name: AutoAugment, RandAugment, TrivialAugment |
//! | `auto`, `rand`, `trivial` | the policies |
//! | `erase` | a rectangle erased |
//! | `mix` | mixes two images and their labels |
//!
//! Not here: the order in which they are applied (`transform.rs`).

mod auto;
mod color;
pub(crate) mod crop;
pub(crate) mod erase;
mod geometry;
mod jitter;
mod levels;
pub(crate) mod mix;
pub mod op;
pub mod policy;
mod rand;
mod trivial;

pub(crate) use jitter::jitter;
