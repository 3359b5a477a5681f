//! Pictures for training: sources, augmentation and a reproducible loader. Knows no tensor library.
//!
//! | module | what |
//! |---|---|
//! | [`spec`] | data sets by name: `fashion-mnist-mini`, `fashion-mnist[:DIR]`, `idx:DIR`, `synthetic:CxHxW` |
//! | [`source`] | labelled pictures that several threads can read |
//! | [`idx`] | the IDX format |
//! | [`split`] | a class-balanced validation set |
//! | [`transform`] | random crop, flip, normalization |
//! | [`loader`] | batches in an order that depends on (seed, epoch) alone |
//! | [`decode`] | PNG and JPEG files |

pub mod decode;
mod embedded;
mod error;
pub mod idx;
pub mod loader;
mod rng;
pub mod source;
pub mod spec;
pub mod split;
pub mod transform;

pub use decode::{fit, read_picture};
pub use error::DataError;
pub use loader::{Batch, Epoch, Loader, LoaderConfig};
pub use source::{DataSet, InMemory, Picture, Source};
pub use spec::DataSpec;
pub use transform::{Augment, Normalization};
