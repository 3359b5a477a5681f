//! Batches of images in an order, and with changes, that depend on (seed, epoch, index) alone.
//!
//! An image that cannot be read or decoded is skipped. For training, the next readable one in the epoch's
//! order replaces it, with the augmentation that the skipped one would have had. Every epoch decides again which
//! images can be decoded, each by the part of it that is needed. The decision depends on the files alone, so
//! batches keep their size and do not depend on the number of workers or on the first batch. For evaluation a
//! skipped image is left out. The consumer's side counts, batch by batch, so the limit is always reached at the
//! same batch.
//! Not here: the threads that work ahead (`loader/epoch.rs`), the changes themselves (`transform.rs`), the
//! random streams (`rng.rs`).

mod epoch;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use epoch::Epoch;

use crate::augment::mix::{Mixed, mix};
use crate::bad::{self, Known, Limit};
use crate::cache::{Cache, Kept};
use crate::rng::{Stream, shuffle, stream};
use crate::transform::Input;
use crate::{BadImage, DataError, Normalization, Pixels, Source, Transform};

/// Configuration of a [`Loader`].
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// Images of a batch.
    pub batch_size: usize,
    /// Threads; 0 makes batches in the caller's.
    pub workers: usize,
    /// Batches that each worker makes ahead, at least 1.
    pub prefetch: usize,
    /// Decides order and changes.
    pub seed: u64,
    /// Another order every epoch.
    pub shuffle: bool,
    /// Leave out an incomplete last batch.
    pub drop_last: bool,
    /// Decoding, cropping and augmentation of samples.
    pub transform: Transform,
    /// Normalization of pixels.
    pub normalization: Normalization,
    /// Handling of images that cannot be read.
    pub on_bad: OnBad,
    /// Share of the images that may be skipped before it is an error.
    pub max_bad: f64,
    /// Where decoded images are kept between epochs.
    pub cache: Option<Arc<Cache>>,
}

/// Handling of images that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBad {
    /// The next readable image in the epoch's order, so that batches keep their size.
    Replace,
    /// Nothing: its batch is smaller, or even empty.
    LeaveOut,
}

/// Images with their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `[n, h, w, c]` with the channel fastest.
    pub pixels: Pixels,
    /// One an image.
    pub labels: Vec<u32>,
    /// The images' indices in the source.
    pub indices: Vec<usize>,
    /// n, h, w, c.
    pub shape: [usize; 4],
    /// The mix of its images, if they are mixed.
    pub mixed: Option<Mixed>,
    /// Images that were skipped in making it and that no earlier batch of this loader has named.
    pub bad: Vec<BadImage>,
}

impl Batch {
    /// The same images in as many batches, one after another. The first lists the images that were skipped.
    ///
    /// # Panics
    /// If they do not divide evenly.
    pub fn split(mut self, parts: usize) -> Vec<Self> {
        let [n, h, w, c] = self.shape;
        assert!(parts > 0 && n % parts == 0, "{n} images in {parts} parts");
        let each = n / parts;
        // From behind, so that what is taken away is at the end.
        let mut batches: Vec<Self> = (1..parts)
            .rev()
            .map(|part| Self {
                pixels: self.pixels.split_off(part * each * h * w * c),
                labels: self.labels.split_off(part * each),
                indices: self.indices.split_off(part * each),
                shape: [each, h, w, c],
                mixed: self.mixed.as_mut().map(|mixed| Mixed {
                    labels: mixed.labels.split_off(part * each),
                    lambda: mixed.lambda,
                }),
                bad: vec![],
            })
            .collect();
        self.shape[0] = each;
        batches.push(self);
        batches.reverse();
        batches
    }
}

/// Makes batches of a source.
#[derive(Clone)]
pub struct Loader {
    inner: Arc<Inner>,
}

struct Inner {
    source: Arc<dyn Source>,
    shape: [usize; 3],
    /// The configuration's, which batches may share.
    normalization: Arc<Normalization>,
    config: LoaderConfig,
    known: Arc<Known>,
    kept: Option<Arc<Kept>>,
}

impl Loader {
    /// A loader of images of `shape`, height, width and channels.
    ///
    /// # Errors
    /// [`DataError::Config`]: batches of no images, no image, too few for `drop_last`, images
    /// without pixels, a normalization that does not fit them, or a share that is none.
    pub fn new(
        source: Arc<dyn Source>,
        shape: [usize; 3],
        config: LoaderConfig,
    ) -> Result<Self, DataError> {
        Self::sharing(source, shape, config, Arc::default(), None)
    }

    /// A loader with another's bad images, and its kept images where they are prepared alike.
    fn sharing(
        source: Arc<dyn Source>,
        shape: [usize; 3],
        config: LoaderConfig,
        known: Arc<Known>,
        kept: Option<Arc<Kept>>,
    ) -> Result<Self, DataError> {
        let (size, count) = (config.batch_size, source.len());
        let Normalization { mean, std } = &config.normalization;
        let channels = [mean.len(), std.len()];
        let finite = mean.iter().all(|m| m.is_finite());
        let divisible = std.iter().all(|&s| s.is_finite() && s > 0.0);
        let problem = if size == 0 {
            "batch size must be at least 1".to_owned()
        } else if count == 0 {
            "there are no images".to_owned()
        } else if config.drop_last && count < size {
            format!("{count} images do not fill a batch of {size}")
        } else if shape.contains(&0) {
            format!("images of height, width and channels {shape:?} have no pixels")
        } else if channels != [shape[2]; 2] {
            format!("normalization of {channels:?} channels for images of {}", shape[2])
        } else if !finite || !divisible {
            format!("normalization needs finite means and std above 0, found {mean:?} and {std:?}")
        } else if !(0.0..=1.0).contains(&config.max_bad) {
            format!("loader.max_bad must be between 0 and 1, found {}", config.max_bad)
        } else if let Some(problem) = config.transform.problem(shape) {
            problem
        } else if config.cache.is_some() && !config.transform.can_be_kept() {
            "images that are cropped at random are kept at the size of max_shorter_side, which is not given".to_owned()
        } else {
            let normalization = Arc::new(config.normalization.clone());
            let constant = config.transform.constant_part(shape);
            let kept = kept.filter(|kept| kept.key == constant).or_else(|| {
                let cache = config.cache.clone()?;
                Some(Arc::new(Kept::new(cache, count, constant)))
            });
            let inner = Inner { source, shape, normalization, config, known, kept };
            return Ok(Self { inner: Arc::new(inner) });
        };
        Err(DataError::Config(problem))
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> usize {
        let (count, size) = (self.inner.source.len(), self.inner.config.batch_size);
        if self.inner.config.drop_last { count / size } else { count.div_ceil(size) }
    }

    /// Images of an epoch.
    pub fn images(&self) -> usize {
        self.inner.source.len().min(self.batches() * self.inner.config.batch_size)
    }

    /// The same images in another shape; bad ones are counted together.
    ///
    /// # Errors
    /// [`DataError::Config`]: a shape that does not go with the transform.
    pub fn in_shape(&self, shape: [usize; 3]) -> Result<Self, DataError> {
        let Inner { source, config, known, kept, .. } = &*self.inner;
        Self::sharing(source.clone(), shape, config.clone(), known.clone(), kept.clone())
    }

    /// Adds bad images found before, as by the run that this one resumes: they count, and are not
    /// named again.
    ///
    /// # Errors
    /// [`DataError::TooManyBad`] past the limit.
    pub fn remember(&self, mut bad: Vec<BadImage>) -> Result<(), DataError> {
        bad.retain(|bad| bad.index < self.inner.source.len());
        self.inner.known.add(bad, self.inner.limit()).map(|_| ())
    }

    /// The batches of an epoch.
    pub fn epoch(&self, epoch: usize) -> Epoch {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from the `first` on, as [`epoch`](Self::epoch) would give them.
    pub fn epoch_from(&self, epoch: usize, first: usize) -> Epoch {
        Epoch::start(&self.inner, epoch, first.min(self.batches())..self.batches())
    }
}

impl Inner {
    /// The order of an epoch: indices of images, in repetition r increased by r · len.
    fn order(&self, epoch: usize) -> Vec<usize> {
        let len = self.source.len();
        let mut order: Vec<usize> = (0..len).collect();
        if self.config.shuffle {
            shuffle(&mut order, &mut stream(self.config.seed, Stream::Order, epoch as u64, 0));
        }
        match self.config.transform.repeats {
            1 => order,
            repeats => (0..len).map(|at| order[at / repeats] + at % repeats * len).collect(),
        }
    }

    fn limit(&self) -> Limit {
        Limit { max_bad: self.config.max_bad, images: self.source.len() }
    }

    /// A batch with all bad images met in making it, known or not. It ends early where these alone pass
    /// the limit.
    fn batch(&self, order: &[usize], epoch: usize, batch: usize) -> Result<Batch, DataError> {
        let LoaderConfig { batch_size, seed, ref transform, .. } = self.config;
        let slots = batch * batch_size..order.len().min((batch + 1) * batch_size);
        let [h, w, c] = self.shape;
        let size = slots.len() * h * w * c;
        let mut pixels = if transform.changes_numbers() {
            Pixels::Floats(Vec::with_capacity(size))
        } else {
            Pixels::Bytes(Vec::with_capacity(size), self.normalization.clone())
        };
        let (mut indices, mut met) = (Vec::with_capacity(slots.len()), BTreeMap::new());
        let allowed = self.limit().allowed();
        for slot in slots {
            match self.fill(order, slot, epoch, &mut met, &mut pixels)? {
                Some(index) => indices.push(index),
                None if met.len() > allowed => break,
                None => {}
            }
        }
        let labels: Vec<u32> = indices.iter().map(|&index| self.source.label(index)).collect();
        let shape = [indices.len(), h, w, c];
        let mut random = stream(seed, Stream::Mix, epoch as u64, batch as u64);
        let parameters = [transform.mixup, transform.cutmix];
        let mixed = mix(&mut pixels, shape, &labels, parameters, &mut random);
        Ok(Batch { labels, shape, pixels, indices, mixed, bad: met.into_values().collect() })
    }

    /// Has the images of a batch fetched in the background, those that lie elsewhere.
    fn prefetch(&self, order: &[usize], batch: usize) {
        let slots = batch * self.config.batch_size..(batch + 1) * self.config.batch_size;
        let slots = slots.start.min(order.len())..slots.end.min(order.len());
        let indices = order[slots].iter().map(|&index| index % self.source.len());
        let kept = |index: &usize| self.kept.as_ref().is_some_and(|kept| kept.has(*index));
        let indices: Vec<usize> = indices.filter(|index| !kept(index)).collect();
        self.source.prefetch(&indices);
    }

    /// Appends the values of the image for a place in the epoch's order, its own or its replacement, and
    /// returns its index.
    fn fill(
        &self,
        order: &[usize],
        slot: usize,
        epoch: usize,
        met: &mut BTreeMap<usize, BadImage>,
        pixels: &mut Pixels,
    ) -> Result<Option<usize>, DataError> {
        let candidates = match self.config.on_bad {
            OnBad::Replace => order.len(),
            OnBad::LeaveOut => 1,
        };
        for ahead in 0..candidates {
            let index = order[(slot + ahead) % order.len()] % self.source.len();
            match self.append(index, epoch, order[slot], pixels)? {
                Ok(()) => return Ok(Some(index)),
                Err(bad) => met.insert(index, bad),
            };
            if met.len() > self.limit().allowed() {
                return Ok(None);
            }
        }
        match self.config.on_bad {
            OnBad::Replace => {
                Err(DataError::Config(format!("none of the {} images can be read", order.len())))
            }
            OnBad::LeaveOut => Ok(None),
        }
    }

    /// Appends an image's values, augmented as the one at `place` is, or returns the reason why it cannot be read.
    /// Only a data set of another shape is an error.
    fn append(
        &self,
        index: usize,
        epoch: usize,
        place: usize,
        pixels: &mut Pixels,
    ) -> Result<Result<(), BadImage>, DataError> {
        let LoaderConfig { seed, transform, .. } = &self.config;
        let start = pixels.len();
        let mut random = stream(*seed, Stream::Augment, epoch as u64, place as u64);
        let (source, shape) = (&*self.source, self.shape);
        let mut apply =
            |prepared| transform.apply(prepared, shape, &self.normalization, &mut random, pixels);
        let done = match &self.kept {
            None => bad::read(source, index, |sample| apply(Input::Sample(sample))),
            Some(kept) => kept
                .image(source, index, |sample| transform.prepare(sample, shape))
                .and_then(|image| apply(Input::Prepared(image))),
        };
        match done {
            Ok(()) => Ok(Ok(())),
            // Of a server that cannot be reached nothing is known of the image.
            Err(error @ DataError::Remote { .. }) => Err(error),
            Err(DataError::Shape { found, expected }) => {
                let [found, expected] = [found, expected].map(|[h, w, c]| format!("{h}x{w}x{c}"));
                Err(DataError::Config(format!("image {index} is {found}, expected {expected}")))
            }
            Err(error) => {
                pixels.resize(start);
                Ok(Err(BadImage::new(index, error)))
            }
        }
    }

    /// Leaves the bad images in a batch that no earlier one named.
    fn counted(&self, mut batch: Batch) -> Result<Batch, DataError> {
        batch.bad = self.known.add(batch.bad, self.limit())?;
        Ok(batch)
    }
}

#[cfg(test)]
mod tests;
