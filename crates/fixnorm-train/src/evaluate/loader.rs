//! The loader of images to evaluate on: unchanged, every image once.

use std::sync::Arc;

use fixnorm_data::cache::Cache;
use fixnorm_data::{Loader, LoaderConfig, Normalization, OnBad, Resize, Source, Transform};

use crate::{TrainError, recipe};

/// The order in which images are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As the source has them.
    Given,
    /// A random order, the same for all seeds: runs are measured on the same first few images.
    Shuffled,
}

/// A loader of unchanged images.
pub(crate) fn loader(
    source: Arc<dyn Source>,
    shape: [usize; 3],
    (normalization, resize): (Normalization, Option<Resize>),
    batch_size: usize,
    loader: &recipe::Loader,
    order: Order,
    cache: Option<Arc<Cache>>,
) -> Result<Loader, TrainError> {
    let config = LoaderConfig {
        batch_size,
        workers: loader.workers,
        prefetch: loader.prefetch,
        seed: 0,
        shuffle: order == Order::Shuffled,
        drop_last: false,
        transform: resize.map_or_else(Transform::default, Transform::from),
        normalization,
        on_bad: OnBad::LeaveOut,
        max_bad: loader.max_bad,
        cache,
    };
    Ok(Loader::new(source, shape, config)?)
}
