//! Reads PyTorch checkpoints (`.pth`, `.pt`) with `pytorch-reader`: zip, the older formats, whole pickled models.
//! Not here: which of the entries are the state dict (`state_dict.rs`).
//!
//! A pickle is a program, and `pytorch-reader` does not interpret it: it knows the few calls that rebuild tensors and
//! dictionaries, and keeps every other one as a name. So nothing of a file is ever run; the error for a pickle that
//! calls functions is a warning about its origin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use pytorch_reader::{DType, PickleValue, PytorchReader};

use super::class_names;
use super::error::WeightsError;
use super::tensor::{Data, ElementType, StoredTensor};

/// The contents of a checkpoint.
pub(super) struct Checkpoint {
    /// Every tensor under its path through the dictionaries, joined by dots.
    pub(super) tensors: BTreeMap<String, StoredTensor>,
    /// Class names beside them.
    pub(super) class_names: Option<Vec<String>>,
}

/// Reads the checkpoint at `path`.
pub(super) fn read(path: &Path) -> Result<Checkpoint, WeightsError> {
    let broken = |error: pytorch_reader::PytorchError| WeightsError::Format {
        format: "safetensors file or PyTorch checkpoint",
        message: error.to_string(),
    };
    let pickle = PytorchReader::read_pickle_data(path, None).map_err(broken)?;
    let mut named = BTreeSet::new();
    collect(&pickle, &mut named);
    if let Some(callable) = named.into_iter().find(|callable| runs_code(callable)) {
        return Err(WeightsError::Code { callable: callable.to_owned() });
    }
    let tensors = PytorchReader::new(path).map_err(broken)?.into_tensors();
    // A view may repeat what is stored, and a compressed entry may swell, without a limit.
    let len = std::fs::metadata(path)?.len();
    if let Some(tensor) = tensors.values().find(|tensor| tensor.byte_len() as u64 > len) {
        let message = format!("declares {} bytes in a file of {len}", tensor.byte_len());
        return Err(WeightsError::Tensor { name: tensor.name.clone(), message });
    }
    let stored = tensors.into_iter().map(|(name, tensor)| {
        let element = match tensor.dtype() {
            DType::F64 => ElementType::F64,
            DType::F32 => ElementType::F32,
            DType::F16 => ElementType::F16,
            DType::BF16 => ElementType::Bf16,
            other => ElementType::Other(format!("{other:?}")),
        };
        let shape = tensor.shape().to_vec();
        (name, StoredTensor { shape, element, data: Data::Checkpoint(tensor) })
    });
    Ok(Checkpoint { tensors: stored.collect(), class_names: class_names::from_pickle(&pickle) })
}

/// The Python classes and functions that a pickle names.
fn collect<'a>(value: &'a PickleValue, named: &mut BTreeSet<&'a str>) {
    match value {
        PickleValue::Unsupported(name) => {
            named.insert(name);
        }
        PickleValue::List(values) => values.iter().for_each(|value| collect(value, named)),
        PickleValue::Dict(values) => values.values().for_each(|value| collect(value, named)),
        _ => {}
    }
}

/// Returns whether this function is one that no checkpoint has a reason to call. Not a complete list: safety does not rest on
/// it.
fn runs_code(callable: &str) -> bool {
    const MODULES: [&str; 19] = [
        "_posixsubprocess",
        "asyncio",
        "bdb",
        "code",
        "commands",
        "ctypes",
        "importlib",
        "nt",
        "os",
        "pdb",
        "posix",
        "pty",
        "runpy",
        "shutil",
        "socket",
        "subprocess",
        "sys",
        "timeit",
        "webbrowser",
    ];
    const BUILTINS: [&str; 8] =
        ["__import__", "breakpoint", "compile", "delattr", "eval", "exec", "open", "setattr"];
    match callable.split_once('.') {
        Some(("builtins" | "__builtin__", function)) => BUILTINS.contains(&function),
        Some((module, _)) => MODULES.contains(&module),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::runs_code;

    #[test]
    fn calls_are_distinguished_from_data() {
        for callable in ["posix.system", "os.path.join", "builtins.eval", "__builtin__.exec"] {
            assert!(runs_code(callable), "{callable}");
        }
        for harmless in
            ["torch.float32", "builtins.set", "argparse.Namespace", "object", "osmosis.x"]
        {
            assert!(!runs_code(harmless), "{harmless}");
        }
    }
}
