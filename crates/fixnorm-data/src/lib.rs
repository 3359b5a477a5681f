//! Pictures for training: sources, augmentation and a reproducible loader. Knows no tensor library.
//!
//! | module | what |
//! |---|---|
//! | [`spec`] | data sets by name: `fashion-mnist-mini`, `fashion-mnist[:DIR]`, `idx:DIR`, `synthetic:CxHxW` |
//! | [`picture`] | one picture in memory |
//! | [`source`] | labelled pictures that several threads can read |
//! | [`idx`] | the IDX format |
//! | [`split`] | a class-balanced validation set |
//! | [`transform`] | random crop, flip, normalization |
//! | [`resize`](mod@resize) | another size, as Pillow makes it |
//! | [`preprocessing`] | resize, centre crop, normalize: what a model sees outside training |
//! | [`loader`] | batches in an order that depends on (seed, epoch) alone |
//! | [`decode`] | PNG and JPEG files |
//! | [`walk`] | picture files in directories |
//!
//! ```
//! use fixnorm_data::{Augment, DataSpec, Loader, LoaderConfig};
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
//!         augment: Some(Augment { crop_padding: 1, flip: true }),
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

pub mod decode;
mod directory;
mod embedded;
mod error;
mod fashion;
pub mod idx;
pub mod loader;
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

pub use decode::{fit, read_picture};
pub use error::DataError;
pub use loader::{Batch, Epoch, Loader, LoaderConfig};
pub use picture::Picture;
pub use preprocessing::Preprocessing;
pub use resize::{Interpolation, resize, resize_window};
pub use source::{DataSet, InMemory, Source};
pub use spec::DataSpec;
pub use transform::{Augment, Normalization};
pub use walk::picture_files;
