//! Pictures for training: sources, augmentation and a reproducible loader. Knows no tensor library.
//!
//! | module | what |
//! |---|---|
//! | [`spec`] | data sets by name: `fashion-mnist-mini`, `fashion-mnist[:DIR]`, `idx:DIR`, `synthetic:CxHxW` |
//! | [`picture`] | one picture in memory |
//! | [`source`] | labelled pictures that several threads can read |
//! | [`idx`] | the IDX format |
//! | [`split`] | a class-balanced validation set |
//! | [`transform`] | from a sample to a model's numbers: cut, resized, changed at random |
//! | [`augment`] | the random changes |
//! | [`normalization`] | pixels to numbers |
//! | [`resize`](mod@resize) | another size, as Pillow makes it |
//! | [`preprocessing`] | resize, centre crop, normalize: what a model sees outside training |
//! | [`loader`] | batches in an order that depends on (seed, epoch) alone |
//! | [`decode`] | JPEG, PNG and WebP files |
//! | [`walk`] | picture files in directories |
//!
//! ```
//! use fixnorm_data::{DataSpec, Loader, LoaderConfig, Transform};
//!
//! let data = "synthetic:3x8x6".parse::<DataSpec>()?.load()?;
//! let loader = Loader::new(
//!     data.train,
//!     data.shape,
//!     LoaderConfig {
//!         batch_size: 100,
//!         workers: 2,
//!         prefetch: 2,
//!         seed: 1,
//!         shuffle: true,
//!         drop_last: false,
//!         transform: Transform { crop_padding: 1, hflip: 0.5, ..Transform::default() },
//!         normalization: data.normalization,
//!     },
//! )?;
//! assert_eq!((loader.batches(), loader.pictures()), (21, 2048));
//! for batch in loader.epoch(0) {
//!     let batch = batch?;
//!     assert_eq!(batch.shape, [batch.labels.len(), 8, 6, 3]);
//! }
//! # Ok::<(), fixnorm_data::DataError>(())
//! ```

pub mod augment;
pub mod decode;
mod directory;
mod dispatch;
mod embedded;
mod error;
mod fashion;
pub mod idx;
mod jpeg;
pub mod loader;
pub mod normalization;
pub mod picture;
pub mod preprocessing;
pub mod resize;
mod rng;
pub mod source;
pub mod spec;
pub mod split;
mod synthetic;
pub mod transform;
pub mod walk;

pub use augment::erase::Erasing;
pub use augment::mix::Mixed;
pub use augment::op::Op;
pub use augment::policy::Policy;
pub use decode::{decode, fit, read_picture};
pub use error::DataError;
pub use loader::{Batch, Epoch, Loader, LoaderConfig};
pub use normalization::Normalization;
pub use picture::Picture;
pub use preprocessing::Preprocessing;
pub use resize::{Interpolation, resize, resize_window};
pub use source::{DataSet, Encoded, InMemory, Sample, Source};
pub use spec::DataSpec;
pub use transform::{Crop, Transform};
pub use walk::picture_files;
