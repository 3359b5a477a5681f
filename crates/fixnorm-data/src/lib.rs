//! Images for training: sources, augmentation and a reproducible loader. Depends on no tensor library.
//!
//! | module | what |
//! |---|---|
//! | [`spec`] | data sets by name: `fashion-mnist-mini`, `folder:DIR`, `tar:GLOB`, … |
//! | [`image`](mod@image) | one image in memory |
//! | [`source`] | labelled images that several threads can read |
//! | [`idx`] | the IDX format |
//! | [`index`] | what is known of each shard, kept between runs |
//! | [`imagenet`] | classes and statistics of ImageNet-1k |
//! | [`split`] | a class-balanced validation set |
//! | [`summary`] | what was understood of a data set's names |
//! | [`evaluation`] | a data set with a model's labels |
//! | [`transform`] | from a sample to a model's input: cropped, resized, changed at random |
//! | [`augment`] | the random changes |
//! | [`normalization`] | pixels to normalized values |
//! | [`pixels`] | a batch's pixels: normalized values, or bytes that a device normalizes |
//! | [`resize`](mod@resize) | resizing, as Pillow does it |
//! | [`preprocessing`] | resize, centre crop, normalize: what a model sees outside training |
//! | [`cache`] | decoded images kept between epochs |
//! | [`loader`] | batches in an order that depends on (seed, epoch) alone; replacements of bad images |
//! | [`check`](mod@check) | decodes every image once: sizes, classes, statistics, bad images |
//! | [`fetch`] | data sets downloaded, checked and unpacked |
//! | [`format`](mod@format) | image formats, recognised by their first bytes |
//! | [`decode`](mod@decode) | image files to pixels |
//! | [`walk`] | image files in directories |
//!
//! ```
//! use fixnorm_data::{DataSpec, Loader, LoaderConfig, OnBad, Transform};
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
//!         transform: Transform { crop_padding: 1, hflip: 0.5, ..Transform::default() },
//!         normalization: data.normalization,
//!         on_bad: OnBad::Replace,
//!         max_bad: 0.001,
//!         cache: None,
//!     },
//! )?;
//! assert_eq!((loader.batches(), loader.images()), (21, 2048));
//! for batch in loader.epoch(0) {
//!     let batch = batch?;
//!     assert_eq!(batch.shape, [batch.labels.len(), 8, 6, 3]);
//! }
//! # Ok::<(), fixnorm_data::DataError>(())
//! ```

pub mod augment;
mod bad;
pub mod cache;
mod channels;
pub mod check;
mod cifar;
mod classes;
mod copies;
pub mod decode;
mod directory;
mod dispatch;
mod embedded;
mod error;
pub mod evaluation;
mod fashion;
pub mod fetch;
mod fingerprint;
mod folder;
pub mod format;
pub mod idx;
pub mod image;
pub mod imagenet;
pub mod index;
mod jpeg;
mod left_out;
pub mod loader;
mod names;
pub mod normalization;
mod parquet;
mod parts;
mod pattern;
pub mod pixels;
mod places;
mod plain_tar;
pub mod preprocessing;
#[cfg(feature = "object-store")]
mod remote;
#[cfg(not(feature = "object-store"))]
#[path = "remote/absent.rs"]
mod remote;
pub mod resize;
mod rng;
mod shard_file;
mod shards;
pub mod source;
pub mod spec;
mod spill;
pub mod split;
mod split_names;
pub mod summary;
mod synthetic;
mod tar;
mod training_subset;
pub mod transform;
mod unpack;
pub mod walk;

pub use self::image::Image;
pub use augment::erase::Erasing;
pub use augment::mix::Mixed;
pub use augment::op::Op;
pub use augment::policy::Policy;
pub use bad::BadImage;
pub use check::check;
pub use classes::{Mapped, map as map_classes};
pub use decode::{decode, read_image};
pub use error::DataError;
pub use evaluation::EvaluationSet;
pub use format::{FileKind, Format};
pub use index::LoadOptions;
pub use loader::{Batch, Epoch, Loader, LoaderConfig, OnBad};
pub use names::text_of;
pub use normalization::Normalization;
pub use pixels::Pixels;
pub use preprocessing::{Preprocessing, Resize, fit};
pub use resize::{Interpolation, resize, resize_window};
pub use source::{DataSet, Encoded, InMemory, Sample, Source};
pub use spec::{Columns, DataSpec};
pub use split_names::Split;
pub use summary::Summary;
pub use training_subset::TrainingSubset;
pub use transform::{Crop, Transform};
pub use walk::image_files;
