//! Pictures for training: sources, augmentation and a reproducible loader. Knows no tensor library.
//!
//! | module | what |
//! |---|---|
//! | [`spec`] | data sets by name: `fashion-mnist-mini`, `folder:DIR`, `tar:GLOB`, … |
//! | [`picture`] | one picture in memory |
//! | [`source`] | labelled pictures that several threads can read |
//! | [`idx`] | the IDX format |
//! | [`index`] | what is known of each shard, kept between runs |
//! | [`imagenet`] | classes and statistics of ImageNet-1k |
//! | [`split`] | a class-balanced validation set |
//! | [`transform`] | random crop, flip, normalization |
//! | [`resize`](mod@resize) | another size, as Pillow makes it |
//! | [`preprocessing`] | resize, centre crop, normalize: what a model sees outside training |
//! | [`loader`] | batches in an order that depends on (seed, epoch) alone; what stands for bad pictures |
//! | [`check`](mod@check) | every picture looked at once: sizes, classes, statistics, bad pictures |
//! | [`fetch`] | data sets downloaded, checked and unpacked |
//! | [`decode`](mod@decode) | PNG and JPEG files |
//! | [`walk`] | picture files in directories |
//!
//! ```
//! use fixnorm_data::{Augment, DataSpec, Loader, LoaderConfig, OnBad};
//!
//! let data = "synthetic:3x8x6".parse::<DataSpec>()?.load()?;
//! let loader = Loader::new(
//!     data.train,
//!     data.shape.unwrap_or([32, 32, 3]),
//!     LoaderConfig {
//!         batch_size: 100,
//!         workers: 2,
//!         prefetch: 2,
//!         seed: 1,
//!         shuffle: true,
//!         drop_last: false,
//!         augment: Some(Augment { crop_padding: 1, flip: true }),
//!         normalization: data.normalization,
//!         resize: None,
//!         on_bad: OnBad::Replace,
//!         max_bad: 0.001,
//!     },
//! )?;
//! assert_eq!((loader.batches(), loader.pictures()), (21, 2048));
//! for batch in loader.epoch(0) {
//!     let batch = batch?;
//!     assert_eq!(batch.shape, [batch.labels.len(), 8, 6, 3]);
//! }
//! # Ok::<(), fixnorm_data::DataError>(())
//! ```

mod bad;
pub mod check;
mod cifar;
pub mod decode;
mod directory;
mod embedded;
mod error;
mod fashion;
pub mod fetch;
mod folder;
pub mod idx;
pub mod imagenet;
pub mod index;
pub mod loader;
mod parquet;
mod parts;
pub mod picture;
mod places;
pub mod preprocessing;
pub mod resize;
mod rng;
mod shards;
pub mod source;
pub mod spec;
mod spill;
pub mod split;
mod synthetic;
mod tar;
pub mod transform;
mod unpack;
pub mod walk;

pub use bad::BadPicture;
pub use check::check;
pub use decode::{decode, fit, read_picture};
pub use error::DataError;
pub use index::LoadOptions;
pub use loader::{Batch, Epoch, Loader, LoaderConfig, OnBad, Resize};
pub use picture::Picture;
pub use preprocessing::Preprocessing;
pub use resize::{Interpolation, resize, resize_window};
pub use source::{DataSet, Encoded, InMemory, Sample, Source};
pub use spec::DataSpec;
pub use transform::{Augment, Normalization};
pub use walk::picture_files;
