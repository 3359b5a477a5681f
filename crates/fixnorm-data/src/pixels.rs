//! The pixels of a batch's images: normalized values, or bytes that a device normalizes.
//! Not here: the arithmetic (`normalization.rs`), the device's (`fixnorm-nn`).

use std::borrow::Cow;
use std::sync::Arc;

use crate::Normalization;

/// Pixels of images, `[n, h, w, c]` with the channel fastest.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// Normalized.
    Floats(Vec<f32>),
    /// As images have them, a quarter of the memory, with what is yet to be done.
    Bytes(Vec<u8>, Arc<Normalization>),
}

impl Default for Pixels {
    fn default() -> Self {
        Self::Floats(vec![])
    }
}

impl Pixels {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Floats(floats) => floats.len(),
            Self::Bytes(bytes, _) => bytes.len(),
        }
    }

    /// Returns true if there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The normalized values.
    pub fn floats(&self) -> Cow<'_, [f32]> {
        match self {
            Self::Floats(floats) => floats.into(),
            Self::Bytes(bytes, normalization) => {
                let mut floats = vec![];
                normalization.apply(bytes, &mut floats);
                floats.into()
            }
        }
    }

    /// Normalizes the values in place and returns them.
    pub fn into_floats(self) -> Vec<f32> {
        match self {
            Self::Floats(floats) => floats,
            bytes => bytes.floats().into_owned(),
        }
    }

    /// Truncates, or pads with zeros, to `len` values.
    pub fn resize(&mut self, len: usize) {
        match self {
            Self::Floats(floats) => floats.resize(len, 0.0),
            Self::Bytes(bytes, _) => bytes.resize(len, 0),
        }
    }

    /// Splits off the values from `at` on.
    pub fn split_off(&mut self, at: usize) -> Self {
        match self {
            Self::Floats(floats) => Self::Floats(floats.split_off(at)),
            Self::Bytes(bytes, normalization) => {
                Self::Bytes(bytes.split_off(at), normalization.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stand_for_their_numbers() {
        let normalization = Normalization { mean: vec![0.5, 0.0], std: vec![0.25, 1.0] };
        let bytes: Vec<u8> = (0..24).map(|i| i * 10).collect();
        let mut floats = vec![];
        normalization.apply(&bytes, &mut floats);
        let (mut floats, mut bytes) =
            (Pixels::Floats(floats), Pixels::Bytes(bytes, Arc::new(normalization)));
        assert_eq!((floats.len(), floats.floats()), (24, bytes.floats()));
        let rest = (floats.split_off(16), bytes.split_off(16));
        assert_eq!((rest.0.len(), rest.0.floats()), (8, rest.1.floats()));
        assert_eq!((floats.len(), floats.floats()), (16, bytes.floats()));
        // A blank image: zeros, or black.
        bytes.resize(18);
        assert_eq!(bytes.floats()[16..], [-2.0, 0.0]);
        floats.resize(18);
        assert_eq!(floats.floats()[16..], [0.0, 0.0]);
    }
}
