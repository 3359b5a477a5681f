//! Labelled images, and data sets made of them.
//! Not here: data sets by name (`spec.rs`), file formats (`idx.rs`, `decode.rs`, `tar.rs`, …).

use std::path::PathBuf;
use std::sync::Arc;

use crate::{DataError, Image, Normalization, Summary, decode};

/// One image as a source has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sample {
    /// Pixels.
    Pixels(Image),
    /// An image file that is yet to be decoded.
    Encoded(Encoded),
}

impl Sample {
    /// The whole image.
    ///
    /// # Errors
    /// When it cannot be decoded.
    pub fn decode(self) -> Result<Image, DataError> {
        match self {
            Sample::Pixels(image) => Ok(image),
            Sample::Encoded(encoded) => decode(&encoded),
        }
    }
}

/// An image file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// All of them.
    pub bytes: Vec<u8>,
    /// Shown in errors and lists: a path, or `shard.tar/name`.
    pub name: PathBuf,
}

/// Labelled images that several threads can read.
pub trait Source: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One image, `index` below [`len`](Self::len).
    ///
    /// # Errors
    /// When it cannot be read; the error names it.
    fn sample(&self, index: usize) -> Result<Sample, DataError>;

    /// The same, decoded.
    ///
    /// # Errors
    /// When it cannot be read or decoded.
    fn image(&self, index: usize) -> Result<Image, DataError> {
        self.sample(index)?.decode()
    }

    /// Its label.
    fn label(&self, index: usize) -> u32;

    /// Hears which images are read soon, so that those that lie elsewhere can be fetched meanwhile; returns at once.
    fn prefetch(&self, _indices: &[usize]) {}
}

/// Images of one shape, all in memory.
#[derive(Clone, Debug)]
pub struct InMemory {
    /// Height, width, channels.
    shape: [usize; 3],
    pixels: Arc<Vec<u8>>,
    labels: Arc<Vec<u32>>,
    /// Which of them, in which order.
    indices: Vec<usize>,
}

impl InMemory {
    /// Images of `shape` (height, width, channels), one after another in `pixels`, `[n, h, w, c]` with
    /// the channel fastest, and their `n` labels.
    ///
    /// # Panics
    /// If there are not as many labels as images.
    pub fn new(shape: [usize; 3], pixels: Vec<u8>, labels: Vec<u32>) -> Self {
        assert_eq!(pixels.len(), labels.len() * shape.iter().product::<usize>());
        Self {
            shape,
            indices: (0..labels.len()).collect(),
            pixels: Arc::new(pixels),
            labels: Arc::new(labels),
        }
    }

    /// Some of the images, by their indices; the memory is shared.
    ///
    /// # Panics
    /// If there is no image of an index.
    pub fn subset(&self, indices: Vec<usize>) -> Self {
        Self { indices: indices.into_iter().map(|i| self.indices[i]).collect(), ..self.clone() }
    }

    fn pixels(&self, index: usize) -> &[u8] {
        let size: usize = self.shape.iter().product();
        let start = self.indices[index] * size;
        &self.pixels[start..start + size]
    }

    /// All labels in order.
    pub fn labels(&self) -> Vec<u32> {
        (0..self.len()).map(|i| self.label(i)).collect()
    }

    /// Mean and standard deviation of each channel, pixels in 0..1.
    pub fn statistics(&self) -> Normalization {
        let channels = self.shape[2];
        let (mut sums, mut squares) = (vec![0.0f64; channels], vec![0.0f64; channels]);
        for index in 0..self.len() {
            for (i, &pixel) in self.pixels(index).iter().enumerate() {
                let value = f64::from(pixel) / 255.0;
                sums[i % channels] += value;
                squares[i % channels] += value * value;
            }
        }
        let count = (self.len() * self.shape[0] * self.shape[1]) as f64;
        let mean: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
        let variance = squares.iter().zip(&mean).map(|(square, mean)| square / count - mean * mean);
        Normalization {
            // A constant channel is left at its mean instead of being divided by zero.
            std: variance.map(|v| if v > 0.0 { v.sqrt() as f32 } else { 1.0 }).collect(),
            mean: mean.into_iter().map(|mean| mean as f32).collect(),
        }
    }
}

impl Source for InMemory {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn sample(&self, index: usize) -> Result<Sample, DataError> {
        let [height, width, channels] = self.shape;
        let pixels = self.pixels(index).to_vec();
        Ok(Sample::Pixels(Image { height, width, channels, pixels }))
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[self.indices[index]]
    }
}

/// A data set: choices are made on `val`; `test` is read once, at the end.
#[derive(Clone)]
pub struct DataSet {
    /// Its name.
    pub name: String,
    /// For training.
    pub train: Arc<dyn Source>,
    /// For choices.
    pub val: Arc<dyn Source>,
    /// For the result.
    pub test: Option<Arc<dyn Source>>,
    /// Height, width and channels of an image; none where every image has its own.
    pub shape: Option<[usize; 3]>,
    /// In the order of the labels.
    pub class_names: Vec<String>,
    /// How pixels become numbers; of three channels where there is no `shape`.
    pub normalization: Normalization,
    /// How its names were understood, for people.
    pub summary: Summary,
}

impl DataSet {
    /// How pixels become numbers where images are shown with `channels`, 1 or 3: grey's mean is the
    /// colours' by ITU-R 601 weights, its deviation their mean.
    pub fn normalization_of(&self, channels: usize) -> Normalization {
        match (&self.normalization.mean[..], &self.normalization.std[..]) {
            (&[r, g, b], &[r_std, g_std, b_std]) if channels == 1 => Normalization {
                mean: vec![0.299 * r + 0.587 * g + 0.114 * b],
                std: vec![(r_std + g_std + b_std) / 3.0],
            },
            _ => self.normalization.clone(),
        }
    }
}

/// Some images of another source, by their indices.
pub(crate) struct Subset {
    pub(crate) of: Arc<dyn Source>,
    pub(crate) indices: Vec<usize>,
}

impl Source for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn sample(&self, index: usize) -> Result<Sample, DataError> {
        self.of.sample(self.indices[index])
    }

    fn label(&self, index: usize) -> u32 {
        self.of.label(self.indices[index])
    }

    fn prefetch(&self, indices: &[usize]) {
        let indices: Vec<usize> = indices.iter().map(|&index| self.indices[index]).collect();
        self.of.prefetch(&indices);
    }
}
