//! A file of named tensors, whatever its format; values are read when they are asked for.
//! Not here: which of them a model takes (`load.rs`), the checkpoint format (`pytorch.rs`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors};

use super::{Metadata, WeightsError, pytorch};

/// Named tensors of a safetensors file or a PyTorch checkpoint.
///
/// Of a checkpoint, the state dict alone: where tensors lie under a key such as `state_dict`, those and
/// no others; averaged ones (`state_dict_ema`) first, as timm prefers them. Prefixes that wrappers put
/// before every name (`module.`) are gone.
#[derive(Clone, Debug)]
pub struct WeightsFile {
    tensors: BTreeMap<String, Stored>,
    metadata: Metadata,
    wrapper: Option<&'static str>,
}

/// A tensor in a file.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) shape: Vec<usize>,
    pub(super) number: Number,
    pub(super) data: Data,
}

/// Where a tensor's bytes are.
#[derive(Clone, Debug)]
pub(super) enum Data {
    /// In memory.
    Span(Arc<[u8]>, Range<usize>),
    /// In a checkpoint.
    Checkpoint(pytorch_reader::Tensor),
}

/// What a tensor is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F64,
    F32,
    F16,
    Bf16,
    /// Nothing that weights are made of, by name.
    Other(String),
}

/// Keys that a checkpoint keeps its state dict under, those of averaged weights first.
const WRAPPERS: [&str; 6] =
    ["state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net"];

/// What wrappers around a model (data parallel, compiled, trainers) put before all its names.
const PREFIXES: [&str; 3] = ["module.", "_orig_mod.", "model."];

impl WeightsFile {
    /// Opens a file, told apart by its content: safetensors opens with a JSON header.
    ///
    /// # Errors
    /// [`WeightsError::Read`] if it cannot be read, [`WeightsError::Format`] if it is of neither format
    /// or torn, [`WeightsError::Code`] if it is a pickle made to run code.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let mut start = Vec::new();
        File::open(path)?.take(9).read_to_end(&mut start)?;
        if start.is_empty() {
            return Err(WeightsError::Format {
                format: "weights file",
                message: "it is empty".to_owned(),
            });
        }
        let named = path.extension().is_some_and(|ending| ending == "safetensors");
        match named || start.get(8) == Some(&b'{') {
            true => Self::from_safetensors(std::fs::read(path)?),
            false => Ok(Self::unwrapped(pytorch::read(path)?, Metadata::new())),
        }
    }

    /// The tensors of a safetensors file in memory.
    ///
    /// # Errors
    /// [`WeightsError::Format`] if it is none or torn.
    pub fn from_safetensors(bytes: Vec<u8>) -> Result<Self, WeightsError> {
        let (header, infos) =
            SafeTensors::read_metadata(&bytes).map_err(WeightsError::safetensors)?;
        let entry = infos.metadata().as_ref().and_then(|entries| entries.get(METADATA_KEY));
        let metadata = match entry {
            None => Metadata::new(),
            Some(json) => serde_json::from_str(json).map_err(|error| {
                WeightsError::safetensors(format!("its fixnorm metadata: {error}"))
            })?,
        };
        // Behind the header and its length.
        let data = 8 + header;
        let bytes: Arc<[u8]> = bytes.into();
        let stored = infos.tensors().into_iter().map(|(name, info)| {
            let (start, end) = info.data_offsets;
            let number = match info.dtype {
                Dtype::F64 => Number::F64,
                Dtype::F32 => Number::F32,
                Dtype::F16 => Number::F16,
                Dtype::BF16 => Number::Bf16,
                other => Number::Other(format!("{other:?}")),
            };
            let data = Data::Span(bytes.clone(), data + start..data + end);
            (name, Stored { shape: info.shape.clone(), number, data })
        });
        Ok(Self::unwrapped(stored.collect(), metadata))
    }

    fn unwrapped(mut tensors: BTreeMap<String, Stored>, metadata: Metadata) -> Self {
        let below = |name: &str, key: &str| {
            name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'))
        };
        let wrapper = WRAPPERS.into_iter().find(|key| tensors.keys().any(|name| below(name, key)));
        if let Some(key) = wrapper {
            tensors.retain(|name, _| below(name, key));
            tensors = stripped(tensors, key.len() + 1);
        }
        while let Some(prefix) =
            PREFIXES.iter().find(|&&prefix| tensors.keys().all(|name| name.starts_with(prefix)))
            && !tensors.is_empty()
        {
            tensors = stripped(tensors, prefix.len());
        }
        Self { tensors, metadata, wrapper }
    }

    /// What fixnorm wrote into the file besides tensors; empty for files of others.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The key of the checkpoint that the tensors were taken from.
    pub fn wrapper(&self) -> Option<&'static str> {
        self.wrapper
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, if the file has it.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|stored| &stored.shape[..])
    }

    /// The values of a tensor, row-major, as `f32`.
    ///
    /// # Errors
    /// A tensor that the file lacks or that is cut short, one of whole numbers, and one with a value that
    /// is not finite (as `f32`).
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let broken = |message: String| WeightsError::Tensor { name: name.to_owned(), message };
        let stored = self.tensors.get(name).ok_or_else(|| broken("not in the file".to_owned()))?;
        if let Number::Other(found) = &stored.number {
            return Err(WeightsError::Dtype { name: name.to_owned(), found: found.clone() });
        }
        let read;
        let bytes = match &stored.data {
            Data::Span(bytes, range) => &bytes[range.clone()],
            Data::Checkpoint(tensor) => {
                read = tensor.read().map_err(|error| broken(error.to_string()))?;
                &read[..]
            }
        };
        let values = stored.number.floats(bytes);
        let count = values.iter().filter(|value| !value.is_finite()).count();
        match count {
            0 => Ok(values),
            _ => Err(WeightsError::NotFinite { name: name.to_owned(), count, len: values.len() }),
        }
    }
}

/// Every tensor under its name without the first `len` bytes.
fn stripped(tensors: BTreeMap<String, Stored>, len: usize) -> BTreeMap<String, Stored> {
    tensors.into_iter().map(|(name, stored)| (name[len..].to_owned(), stored)).collect()
}

impl Number {
    /// Little-endian `bytes` of this kind of number.
    fn floats(&self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Number::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Number::F32 => each(bytes, f32::from_le_bytes),
            Number::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Number::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Number::Other(_) => vec![],
        }
    }
}

fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|bytes| number(*bytes)).collect()
}

/// The metadata entry that holds everything fixnorm writes.
pub(super) const METADATA_KEY: &str = "fixnorm";
