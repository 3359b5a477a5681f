//! The input pipeline: images a second, as a training loop receives them.

use std::hint::black_box;
use std::time::{Duration, Instant};

use fixnorm_data::{Crop, DataSpec, Loader, LoaderConfig, OnBad, Transform};
use serde::{Deserialize, Serialize};
use toml::Table;

use super::setup::peak_rss_mib;
use crate::recipe::values::parse_assignment;
use crate::{RecipeError, TrainError, recipe};

/// Side of images that have any size.
const SIDE: usize = 224;

/// What to measure.
#[derive(Clone, Debug)]
pub struct DataBench {
    /// Data, as `fixnorm_data::DataSpec` reads it.
    pub data: String,
    /// The transform of images.
    pub transform: Transform,
    /// Images of a batch.
    pub batch: usize,
    /// Side of an image in pixels; the data's own, or 224 where images have any size, if left out.
    pub resolution: Option<usize>,
    /// Threads.
    pub workers: usize,
    /// Batches that each makes ahead.
    pub prefetch: usize,
    /// `ram` or a directory, where decoded images are kept between epochs, as `loader.cache`.
    pub cache: Option<String>,
    /// Seconds to measure for, after an epoch that is not.
    pub seconds: f64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct DataReport {
    /// Data.
    pub data: String,
    /// Height, width and channels of an image.
    pub shape: [usize; 3],
    /// The transform of images.
    pub transform: Transform,
    /// Images of a batch.
    pub batch: usize,
    /// Threads.
    pub workers: usize,
    /// Number of images received.
    #[serde(rename = "pictures")]
    pub images: usize,
    /// Over all.
    pub images_per_second: f64,
    /// Measured.
    pub seconds: f64,
    /// Largest memory of the process so far, where the system tells.
    pub peak_rss_mib: Option<u64>,
}

/// A random resized crop and a flip, with `KEY=VALUE` of [`Transform`] changed.
///
/// # Errors
/// A key that it does not have, or a value that does not fit.
pub fn pipeline(changes: &[String]) -> Result<Transform, TrainError> {
    let mut transform = Transform { crop: Crop::RandomResized, hflip: 0.5, ..Transform::default() };
    let mut table = Table::try_from(&transform).unwrap_or_default();
    for change in changes {
        let (key, value) = parse_assignment(change)?;
        table.insert(key.to_owned(), value.clone());
        transform = Transform::deserialize(table.clone()).map_err(|error| RecipeError::Value {
            key: key.to_owned(),
            value: value.to_string(),
            message: error.to_string().trim().to_owned(),
        })?;
    }
    Ok(transform)
}

/// Measures how many training images a second the loader makes, whole epochs until the time is over.
///
/// # Errors
/// Data that cannot be read, or a pipeline that does not fit it.
pub fn data(bench: &DataBench) -> Result<DataReport, TrainError> {
    let data = bench.data.parse::<DataSpec>()?.load()?;
    let [height, width, channels] = data.shape.unwrap_or([SIDE, SIDE, 3]);
    let shape = [bench.resolution.unwrap_or(height), bench.resolution.unwrap_or(width), channels];
    let settings = recipe::Loader { cache: bench.cache.clone(), ..recipe::Loader::default() };
    let mut transform = bench.transform.clone();
    if bench.cache.is_some() {
        transform.max_shorter_side.get_or_insert(recipe::Loader::kept_side(shape));
    }
    let config = LoaderConfig {
        batch_size: bench.batch,
        workers: bench.workers,
        prefetch: bench.prefetch,
        seed: 0,
        shuffle: true,
        drop_last: false,
        transform: transform.clone(),
        normalization: data.normalization_of(channels),
        on_bad: OnBad::Replace,
        max_bad: settings.max_bad,
        cache: settings.open_cache()?,
    };
    let loader = Loader::new(data.train, shape, config)?;
    let (mut images, mut start) = (0, Instant::now());
    for epoch in 0.. {
        if epoch == 1 {
            (images, start) = (0, Instant::now());
        }
        for batch in loader.epoch(epoch) {
            let batch = batch?;
            // As a model reads them.
            black_box(batch.pixels.floats());
            images += batch.labels.len();
        }
        if epoch > 0 && start.elapsed() >= Duration::from_secs_f64(bench.seconds) {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(DataReport {
        data: bench.data.clone(),
        shape,
        transform,
        batch: bench.batch,
        workers: bench.workers,
        images,
        images_per_second: images as f64 / seconds,
        seconds,
        peak_rss_mib: peak_rss_mib(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelines_are_changed_by_key() {
        let changes = ["auto_augment=rand-m9-mstd0.5", "scale=[0.2, 1.0]", "crop=center"];
        let transform = pipeline(&changes.map(str::to_owned)).unwrap();
        assert_eq!(transform.auto_augment.to_string(), "rand-m9-mstd0.5");
        assert_eq!((transform.crop, transform.scale), (Crop::Center, [0.2, 1.0]));
        for (change, part) in [
            ("flip=1", "unknown field `flip`"),
            ("auto_augment=x", "unknown augmentation"),
            ("mixup", "key=value"),
        ] {
            let error = pipeline(&[change.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn every_image_is_counted() {
        for cache in [None, Some("ram".to_owned())] {
            let report = data(&DataBench {
                data: "synthetic:3x20x30".to_owned(),
                transform: pipeline(&[]).unwrap(),
                batch: 100,
                resolution: Some(8),
                workers: 2,
                prefetch: 1,
                cache,
                seconds: 0.0,
            })
            .unwrap();
            assert_eq!((report.images, report.shape), (2048, [8, 8, 3]));
            assert!(report.images_per_second > 0.0 && report.images_per_second.is_finite());
        }
    }
}
