//! One tensor of a weights file: shape, element type, and where its bytes are.
//! Not here: the formats (`file.rs`, `pytorch.rs`), which tensors are weights (`state_dict.rs`).

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use super::error::WeightsError;

/// A tensor in a file. Its values are read when they are asked for.
#[derive(Clone, Debug)]
pub(super) struct StoredTensor {
    pub(super) shape: Vec<usize>,
    pub(super) element: ElementType,
    pub(super) data: Data,
}

/// Place of a tensor's bytes.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// A range of a file that is in memory.
    Span(Arc<[u8]>, Range<usize>),
    /// In a PyTorch checkpoint.
    Checkpoint(pytorch_reader::Tensor),
}

/// Type of a tensor's elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ElementType {
    F64,
    F32,
    F16,
    Bf16,
    /// A type that no weight has, by its name.
    Other(String),
}

impl StoredTensor {
    /// The values as `f32`, row-major. `name` is for errors.
    pub(super) fn floats(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        if let ElementType::Other(found) = &self.element {
            return Err(WeightsError::Dtype { name: name.to_owned(), found: found.clone() });
        }
        let read;
        let bytes = match &self.data {
            Data::Span(bytes, range) => &bytes[range.clone()],
            Data::Checkpoint(tensor) => {
                read = tensor.read().map_err(|error| WeightsError::Tensor {
                    name: name.to_owned(),
                    message: error.to_string(),
                })?;
                &read[..]
            }
        };
        let values = self.element.floats(bytes);
        let count = values.iter().filter(|value| !value.is_finite()).count();
        if count > 0 {
            return Err(WeightsError::NotFinite {
                name: name.to_owned(),
                count,
                len: values.len(),
            });
        }
        Ok(values)
    }
}

impl ElementType {
    /// Converts little-endian `bytes` of this type.
    fn floats(&self, bytes: &[u8]) -> Vec<f32> {
        match self {
            ElementType::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            ElementType::F32 => each(bytes, f32::from_le_bytes),
            ElementType::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            ElementType::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            ElementType::Other(_) => vec![],
        }
    }
}

fn each<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|bytes| convert(*bytes)).collect()
}
