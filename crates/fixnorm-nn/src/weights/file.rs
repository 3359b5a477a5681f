//! A file of named tensors, whatever its format; values are read when they are asked for.
//! Not here: which of a checkpoint's entries are the state dict (`state_dict.rs`), the checkpoint format (`pytorch.rs`),
//! which tensors a model takes (`fit.rs`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensors};

use super::class_names;
use super::error::WeightsError;
use super::pytorch;
use super::state_dict;
use super::tensor::{Data, ElementType, StoredTensor};

/// Entries of a file besides its tensors, by key.
pub type Metadata = BTreeMap<String, String>;

/// Named tensors of a safetensors file or a PyTorch checkpoint.
///
/// A checkpoint gives the tensors of its state dict alone: if there are tensors under a key such as `state_dict`, those
/// and no others, and averaged ones (`state_dict_ema`) before others, as in timm. Names have no segments of wrappers
/// (`module`, `_orig_mod`).
#[derive(Clone, Debug)]
pub struct WeightsFile {
    tensors: BTreeMap<String, StoredTensor>,
    metadata: Metadata,
    wrapper: Option<String>,
    class_names: Option<Vec<String>>,
}

impl WeightsFile {
    /// Opens a file. Its content decides about its format: safetensors begins with a JSON header.
    ///
    /// # Errors
    /// [`WeightsError::Read`] if it cannot be read, [`WeightsError::Format`] if it has neither format, is cut short or
    /// holds no tensors, [`WeightsError::Code`] if it is a pickle that calls functions.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let empty = |message: &str| WeightsError::Format {
            format: "weights file",
            message: message.to_owned(),
        };
        let mut start = Vec::new();
        File::open(path)?.take(9).read_to_end(&mut start)?;
        if start.is_empty() {
            return Err(empty("it is empty"));
        }
        let named = path.extension().is_some_and(|ending| ending == "safetensors");
        let file = if named || start.get(8) == Some(&b'{') {
            Self::from_safetensors(std::fs::read(path)?)?
        } else {
            let pytorch::Checkpoint { tensors, class_names } = pytorch::read(path)?;
            Self::new(tensors, Metadata::new(), class_names)
        };
        if file.tensors.is_empty() {
            return Err(empty("it holds no tensors"));
        }
        Ok(file)
    }

    /// The tensors of a safetensors file in memory.
    ///
    /// # Errors
    /// [`WeightsError::Format`] if it has another format or is cut short.
    pub fn from_safetensors(bytes: Vec<u8>) -> Result<Self, WeightsError> {
        let (header, infos) =
            SafeTensors::read_metadata(&bytes).map_err(WeightsError::safetensors)?;
        let entry = |key: &str| infos.metadata().as_ref().and_then(|entries| entries.get(key));
        let metadata = match entry(METADATA_KEY) {
            None => Metadata::new(),
            Some(json) => serde_json::from_str(json).map_err(|error| {
                WeightsError::safetensors(format!("its fixnorm metadata: {error}"))
            })?,
        };
        let class_names = class_names::from_strings(entry);
        // The data follow the header and its length.
        let data = 8 + header;
        let bytes: Arc<[u8]> = bytes.into();
        let stored = infos.tensors().into_iter().map(|(name, info)| {
            let (start, end) = info.data_offsets;
            let element = match info.dtype {
                Dtype::F64 => ElementType::F64,
                Dtype::F32 => ElementType::F32,
                Dtype::F16 => ElementType::F16,
                Dtype::BF16 => ElementType::Bf16,
                other => ElementType::Other(format!("{other:?}")),
            };
            let data = Data::Span(bytes.clone(), data + start..data + end);
            (name, StoredTensor { shape: info.shape.clone(), element, data })
        });
        Ok(Self::new(stored.collect(), metadata, class_names))
    }

    fn new(
        entries: BTreeMap<String, StoredTensor>,
        metadata: Metadata,
        class_names: Option<Vec<String>>,
    ) -> Self {
        let (tensors, wrapper) = state_dict::find(entries);
        Self { tensors, metadata, wrapper, class_names }
    }

    /// Entries that fixnorm wrote into the file besides tensors; empty for files of others.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Names of the classes in the order of the logits, where a file of others has them: under `classes`,
    /// `class_names`, `class_to_idx` or `id2label` in a safetensors file's metadata (as JSON), in a checkpoint or in
    /// its `hyper_parameters`, `args` or `meta`.
    pub fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    /// The keys that lead to the tensors in the checkpoint, joined by dots.
    pub fn wrapper(&self) -> Option<&str> {
        self.wrapper.as_deref()
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
    /// A tensor that the file lacks or that is cut short, one of integers, and one with a value that
    /// is not finite (as `f32`).
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let stored = self.tensors.get(name).ok_or_else(|| WeightsError::Tensor {
            name: name.to_owned(),
            message: "not in the file".to_owned(),
        })?;
        stored.floats(name)
    }

    /// The weights whose names begin with `prefix`, without it.
    pub(super) fn below(&self, prefix: &str) -> Self {
        let tensors = self.tensors.iter().filter_map(|(name, stored)| {
            let name = name.strip_prefix(prefix)?;
            (!state_dict::is_counter(name, stored)).then(|| (name.to_owned(), stored.clone()))
        });
        Self { tensors: tensors.collect(), ..self.clone() }
    }
}

/// The metadata entry that holds everything fixnorm writes.
pub(super) const METADATA_KEY: &str = "fixnorm";
