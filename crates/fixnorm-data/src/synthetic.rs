//! Images of noise, made when read: to measure speed with, not to learn from.
//! Not here: the name's form (`spec.rs`).

use std::sync::Arc;

use rand_chacha::rand_core::Rng;

use crate::rng::{Stream, stream};
use crate::{DataError, DataSet, Image, Normalization, Sample, Source, Summary};

const CLASSES: usize = 1000;
const TRAIN: usize = 2048;
const VAL: usize = 256;

/// Some images of one endless row of noise.
struct Noise {
    /// Height, width, channels.
    shape: [usize; 3],
    first: u64,
    len: usize,
}

impl Source for Noise {
    fn len(&self) -> usize {
        self.len
    }

    fn sample(&self, index: usize) -> Result<Sample, DataError> {
        let [height, width, channels] = self.shape;
        let mut pixels = vec![0; height * width * channels];
        stream(0, Stream::Synthetic, 0, self.first + index as u64).fill_bytes(&mut pixels);
        Ok(Sample::Pixels(Image { height, width, channels, pixels }))
    }

    fn label(&self, index: usize) -> u32 {
        (index % CLASSES) as u32
    }
}

/// The data set of images of `shape`: height, width, channels.
pub(crate) fn synthetic(shape: [usize; 3], name: String) -> DataSet {
    let part = |first, len| Arc::new(Noise { shape, first, len });
    let class_names: Vec<String> = (0..CLASSES).map(|class| class.to_string()).collect();
    let counts = [Some((TRAIN, "noise")), Some((VAL, "noise")), None];
    DataSet {
        summary: Summary::new(&name, counts, &class_names, "random"),
        name,
        train: part(0, TRAIN),
        val: part(TRAIN as u64, VAL),
        test: None,
        shape: Some(shape),
        class_names,
        normalization: Normalization { mean: vec![0.5; shape[2]], std: vec![0.25; shape[2]] },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_repeatable_and_differs_between_images() {
        let data = synthetic([4, 5, 3], "noise".to_owned());
        assert_eq!((data.train.len(), data.val.len(), data.test.is_none()), (2048, 256, true));
        assert_eq!(data.class_names.len(), 1000);
        assert!((0..2048).all(|index| data.train.label(index) < 1000));
        let first = data.train.image(0).unwrap();
        assert_eq!(first, data.train.image(0).unwrap());
        assert_ne!(first, data.train.image(1).unwrap());
        assert_ne!(first, data.val.image(0).unwrap());
        assert_eq!((first.height, first.width, first.channels), (4, 5, 3));
    }
}
