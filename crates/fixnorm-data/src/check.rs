//! Every image of a data set looked at once: which cannot be read, sizes, classes, channel statistics.
//! Not here: what a loader does about bad images (`loader.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use crate::channels::recoloured;
use crate::{BadImage, DataSet, Image, Sample, Source, bad};

/// What a data set is like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Its name.
    pub data: String,
    /// What was understood of its names, in one line.
    pub understood: String,
    /// What is unusual about it.
    pub warnings: Vec<String>,
    /// `train`, `val` and, where there is one, `test`.
    pub parts: Vec<PartReport>,
    /// In the order of the labels.
    pub classes: Vec<ClassReport>,
    /// Mean of each channel over the readable training images, pixels in 0..1. Every image weighs the
    /// same, as it does once it is resized.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel, likewise.
    pub std: Vec<f64>,
}

/// What a part of a data set is like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartReport {
    /// `train`, `val` or `test`.
    pub part: &'static str,
    /// Number of images.
    #[serde(rename = "pictures")]
    pub images: usize,
    /// Rows of the readable ones; none where none is.
    pub height: Option<Range>,
    /// Columns of the readable ones.
    pub width: Option<Range>,
    /// Images that cannot be read.
    pub bad: Vec<BadImage>,
}

/// How far numbers spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The least.
    pub min: usize,
    /// As many are below as above; of two in the middle the greater.
    pub median: usize,
    /// The greatest.
    pub max: usize,
}

/// How many images a class has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassReport {
    /// Its name.
    pub name: String,
    /// Number of images in each part, in the order of the report's parts.
    #[serde(rename = "pictures")]
    pub images: Vec<usize>,
}

impl Report {
    /// Number of images that cannot be read.
    pub fn bad(&self) -> usize {
        self.parts.iter().map(|part| part.bad.len()).sum()
    }
}

/// Images decoded between two additions: enough for all threads, and little memory.
const CHUNK: usize = 4096;

/// Decodes every image, on all threads. `progress` is called with how many of how many are done, from
/// several threads.
pub fn check(data: &DataSet, progress: &(dyn Fn(usize, usize) + Sync)) -> Report {
    let parts =
        [("train", Some(&data.train)), ("val", Some(&data.val)), ("test", data.test.as_ref())];
    let parts: Vec<(&'static str, &Arc<dyn Source>)> =
        parts.into_iter().filter_map(|(name, source)| Some((name, source?))).collect();
    let all: usize = parts.iter().map(|(_, source)| source.len()).sum();
    let channels = data.shape.map_or(3, |[_, _, channels]| channels);
    let done = AtomicUsize::new(0);
    let looks: Vec<Looks> = parts
        .iter()
        .map(|(_, source)| {
            let mut looks = Looks::new(channels);
            for first in (0..source.len()).step_by(CHUNK) {
                let chunk = first..source.len().min(first + CHUNK);
                let found: Vec<_> = chunk
                    .into_par_iter()
                    .map(|index| {
                        let looked = bad::read(&***source, index, Sample::decode)
                            .map(|image| Look::at(&image, channels))
                            .map_err(|error| BadImage::new(index, error));
                        progress(done.fetch_add(1, Ordering::Relaxed) + 1, all);
                        looked
                    })
                    .collect();
                // One after another: sums do not depend on the threads.
                found.into_iter().for_each(|look| looks.add(look));
            }
            looks
        })
        .collect();
    let classes = data.class_names.iter().enumerate().map(|(label, name)| ClassReport {
        name: name.clone(),
        images: parts
            .iter()
            .map(|(_, source)| {
                (0..source.len()).filter(|&i| source.label(i) as usize == label).count()
            })
            .collect(),
    });
    let (mean, std) = looks[0].statistics();
    Report {
        data: data.name.clone(),
        understood: data.summary.to_string(),
        warnings: data.summary.warnings.clone(),
        classes: classes.collect(),
        mean,
        std,
        parts: parts
            .iter()
            .zip(looks)
            .map(|((part, source), looks)| PartReport {
                part,
                images: source.len(),
                height: range(looks.heights),
                width: range(looks.widths),
                bad: looks.bad,
            })
            .collect(),
    }
}

/// What one image is like.
struct Look {
    height: usize,
    width: usize,
    /// The mean and the mean of squares of each channel.
    moments: Vec<(f64, f64)>,
}

impl Look {
    fn at(image: &Image, channels: usize) -> Self {
        let coloured;
        let shown = if image.channels == channels {
            image
        } else {
            coloured = recoloured(image, channels);
            &coloured
        };
        let mut sums = vec![(0u64, 0u64); channels];
        for pixel in shown.pixels.chunks_exact(channels) {
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                let value = u64::from(value);
                *sum = (sum.0 + value, sum.1 + value * value);
            }
        }
        let count = (image.height * image.width) as f64;
        let moments = sums.into_iter().map(|(sum, squares)| {
            (sum as f64 / 255.0 / count, squares as f64 / (255.0 * 255.0) / count)
        });
        Self { height: image.height, width: image.width, moments: moments.collect() }
    }
}

/// What the images of a part are like.
struct Looks {
    heights: Vec<usize>,
    widths: Vec<usize>,
    moments: Vec<(f64, f64)>,
    bad: Vec<BadImage>,
}

impl Looks {
    fn new(channels: usize) -> Self {
        let moments = vec![(0.0, 0.0); channels];
        Self { heights: vec![], widths: vec![], moments, bad: vec![] }
    }

    fn add(&mut self, look: Result<Look, BadImage>) {
        match look {
            Ok(look) => {
                self.heights.push(look.height);
                self.widths.push(look.width);
                for (sum, own) in self.moments.iter_mut().zip(look.moments) {
                    *sum = (sum.0 + own.0, sum.1 + own.1);
                }
            }
            Err(bad) => self.bad.push(bad),
        }
    }

    /// Means and standard deviations; empty where there is no image.
    fn statistics(&self) -> (Vec<f64>, Vec<f64>) {
        let count = self.heights.len() as f64;
        if self.heights.is_empty() {
            return (vec![], vec![]);
        }
        self.moments
            .iter()
            .map(|(sum, squares)| (sum / count, squares / count))
            .map(|(mean, square)| (mean, (square - mean * mean).max(0.0).sqrt()))
            .unzip()
    }
}

fn range(mut numbers: Vec<usize>) -> Option<Range> {
    numbers.sort_unstable();
    let (&min, &max) = (numbers.first()?, numbers.last()?);
    Some(Range { min, median: numbers[numbers.len() / 2], max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataSpec;

    #[test]
    fn a_tree_is_described_and_its_bad_images_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, width, height, value| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::from_pixel(width, height, image::Rgb(value)).save(path).unwrap();
        };
        // Each image weighs the same, however large it is.
        write("train/a/0.png", 10, 20, [0, 255, 51]);
        write("train/a/1.png", 100, 20, [255, 255, 51]);
        write("train/b/0.png", 30, 5, [0, 255, 51]);
        write("train/b/1.png", 30, 5, [255, 255, 51]);
        write("val/b/0.png", 7, 8, [1, 2, 3]);
        std::fs::write(dir.path().join("train/b/2.png"), "torn").unwrap();
        let spec = DataSpec::Folder { dir: dir.path().to_owned() };
        let done = AtomicUsize::new(0);
        let report = check(&spec.load().unwrap(), &|_, all| {
            assert_eq!(all, 6);
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 6);
        let near = |found: &[f64], expected: [f64; 3]| {
            found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-9)
        };
        assert!(
            near(&report.mean, [0.5, 1.0, 0.2]) && near(&report.std, [0.5, 0.0, 0.0]),
            "{report:?}"
        );
        let [train, val] = &report.parts[..] else { panic!("{report:?}") };
        assert_eq!((train.images, val.images, report.bad()), (5, 1, 1));
        assert_eq!(train.width, Some(Range { min: 10, median: 30, max: 100 }));
        assert_eq!(val.height, Some(Range { min: 8, median: 8, max: 8 }));
        assert!(train.bad[0].name.ends_with("train/b/2.png"), "{report:?}");
        let classes: Vec<_> = report.classes.iter().map(|class| &class.images[..]).collect();
        assert_eq!(classes, [[2, 0], [3, 1]]);
    }

    #[test]
    fn statistics_of_the_embedded_set_are_about_the_full_ones() {
        let data = DataSpec::FashionMnistMini.load().unwrap();
        let report = check(&data, &|_, _| {});
        assert_eq!((report.bad(), report.parts.len()), (0, 3));
        assert!((report.mean[0] - 0.2860).abs() < 5e-3 && (report.std[0] - 0.3530).abs() < 5e-3);
    }
}
