//! Weights in and out, as safetensors with timm's names and PyTorch's layouts.
//!
//! Burn and PyTorch differ in one layout: a linear weight is `[in, out]` here and `[out, in]` there.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::classifier::Classifier;
use crate::init::replace;
use crate::path::{ModulePath, follow_path};
use crate::registry::ModelSpec;

/// What a file says about itself besides its tensors.
pub type Metadata = BTreeMap<String, String>;

/// Weights that cannot be read, or do not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// Not a safetensors file.
    #[error("not a safetensors file: {0}")]
    Format(String),
    /// A file for another model, or for other classes or channels.
    #[error("the weights do not fit {model}:{}", list(.missing, .unexpected, .misshapen))]
    Mismatch {
        /// The model they were to be loaded into.
        model: String,
        /// Tensors the model has and the file lacks.
        missing: Vec<String>,
        /// Tensors the file has and the model lacks.
        unexpected: Vec<String>,
        /// Tensors of another shape, with the expected and the found one.
        misshapen: Vec<String>,
    },
    /// A tensor of a type that is not read.
    #[error("tensor {name} has type {found}; expected F32")]
    Dtype {
        /// Its name.
        name: String,
        /// Its type.
        found: String,
    },
}

fn list(missing: &[String], unexpected: &[String], misshapen: &[String]) -> String {
    let sections =
        [("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)];
    let sections = sections.iter().filter(|(_, names)| !names.is_empty());
    sections.map(|(kind, names)| format!(" {kind}: {};", names.join(", "))).collect()
}

/// The file's bytes. The same weights and metadata give the same bytes.
///
/// # Errors
/// [`WeightsError::Format`] if the format refuses a tensor.
pub fn to_safetensors(
    model: &Classifier,
    spec: &ModelSpec,
    metadata: &Metadata,
) -> Result<Vec<u8>, WeightsError> {
    // `valid` brings the running statistics up to date: Burn keeps the last update aside.
    let mut tensors =
        Tensors { path: ModulePath::default(), timm_name: spec.timm_name, found: vec![] };
    model.valid().visit(&mut tensors);
    let views = tensors.found.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        view.map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(format_error)?;
    // The format keeps metadata in a hash map, whose order differs from run to run; one entry that
    // holds all of it as JSON has none.
    let metadata: HashMap<String, String> = match metadata.is_empty() {
        true => HashMap::new(),
        false => HashMap::from([(METADATA_KEY.to_owned(), to_json(metadata))]),
    };
    safetensors::serialize(views, Some(metadata).filter(|m| !m.is_empty())).map_err(format_error)
}

/// The metadata entry that holds everything fixnorm writes.
const METADATA_KEY: &str = "fixnorm";

/// The metadata of a file that fixnorm wrote; empty for others.
///
/// # Errors
/// [`WeightsError::Format`] if the bytes are not a safetensors file.
pub fn metadata(bytes: &[u8]) -> Result<Metadata, WeightsError> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(format_error)?;
    let entry = header.metadata().as_ref().and_then(|entries| entries.get(METADATA_KEY));
    entry.map_or_else(|| Ok(Metadata::new()), |json| from_json(json))
}

fn to_json(metadata: &Metadata) -> String {
    serde_json::to_string(metadata).expect("a map of strings is JSON")
}

fn from_json(json: &str) -> Result<Metadata, WeightsError> {
    serde_json::from_str(json)
        .map_err(|error| WeightsError::Format(format!("its fixnorm metadata: {error}")))
}

/// `model` with the weights of a file.
///
/// # Errors
/// A file that is not one, holds other types than F32, or does not fit: every missing, unexpected
/// and misshapen tensor is named.
pub fn from_safetensors(
    model: Classifier,
    spec: &ModelSpec,
    bytes: &[u8],
) -> Result<Classifier, WeightsError> {
    let file = SafeTensors::deserialize(bytes).map_err(format_error)?;
    let mut loader = Loader {
        path: ModulePath::default(),
        timm_name: spec.timm_name,
        file: file.tensors().into_iter().collect(),
        missing: vec![],
        misshapen: vec![],
        wrong_type: None,
    };
    let model = model.map(&mut loader);
    // PyTorch counts the batches a batch norm has seen; nothing here depends on it.
    let mut unexpected: Vec<String> = loader.file.into_keys().collect();
    unexpected.retain(|name| !name.ends_with("num_batches_tracked"));
    if let Some((name, found)) = loader.wrong_type {
        return Err(WeightsError::Dtype { name, found });
    }
    if loader.missing.is_empty() && unexpected.is_empty() && loader.misshapen.is_empty() {
        return Ok(model);
    }
    Err(WeightsError::Mismatch {
        model: spec.name.to_owned(),
        missing: loader.missing,
        unexpected,
        misshapen: loader.misshapen,
    })
}

fn format_error(error: safetensors::SafeTensorError) -> WeightsError {
    WeightsError::Format(error.to_string())
}

/// Whether a parameter of rank `D` at `path` lies the other way round in PyTorch.
fn is_transposed<const D: usize>(path: &ModulePath) -> bool {
    D == 2 && path.layer() == Some("Linear")
}

struct Tensors {
    path: ModulePath,
    timm_name: fn(&str) -> String,
    found: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl ModuleVisitor for Tensors {
    follow_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = match is_transposed::<D>(&self.path) {
            true => param.val().swap_dims(0, 1),
            false => param.val(),
        };
        let data = tensor.into_data().convert::<f32>();
        let shape = data.shape().to_vec();
        let bytes = data.iter::<f32>().flat_map(f32::to_le_bytes).collect();
        self.found.push(((self.timm_name)(&self.path.dotted()), shape, bytes));
    }
}

struct Loader<'a> {
    path: ModulePath,
    timm_name: fn(&str) -> String,
    file: BTreeMap<String, TensorView<'a>>,
    missing: Vec<String>,
    misshapen: Vec<String>,
    wrong_type: Option<(String, String)>,
}

impl Loader<'_> {
    /// The values for the parameter at hand, of the file's shape.
    fn take(&mut self, expected: &[usize]) -> Option<Vec<f32>> {
        let name = (self.timm_name)(&self.path.dotted());
        let Some(view) = self.file.remove(&name) else {
            self.missing.push(name);
            return None;
        };
        if view.shape() != expected {
            self.misshapen
                .push(format!("{name} (expected {expected:?}, found {:?})", view.shape()));
            return None;
        }
        if view.dtype() != Dtype::F32 {
            self.wrong_type = Some((name, format!("{:?}", view.dtype())));
            return None;
        }
        let floats = view.data().chunks_exact(4);
        Some(floats.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

impl ModuleMapper for Loader<'_> {
    follow_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let transposed = is_transposed::<D>(&self.path);
        let mut shape = param.lazy_shape().to_vec();
        if transposed {
            shape.swap(0, 1);
        }
        let Some(values) = self.take(&shape) else {
            return param;
        };
        let device = param.lazy_device();
        let tensor = Tensor::<D>::from_data(TensorData::new(values, shape), &device);
        let tensor = match transposed {
            // Through memory, so that the layout is that of a weight made here.
            true => Tensor::from_data(tensor.swap_dims(0, 1).into_data(), &device),
            false => tensor,
        };
        replace(param, tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classifier::Input;
    use burn::tensor::{Device, Distribution};

    const INPUT: Input = Input { channels: 1, classes: 5 };

    fn pictures(device: &Device) -> Tensor<4> {
        Tensor::random([3, 9, 11, 1], Distribution::Default, device)
    }

    #[test]
    fn round_trip_gives_the_same_logits_with_running_statistics() {
        let device = Device::flex().autodiff();
        let spec = ModelSpec::find("resnet8").unwrap();
        let model = spec.init(INPUT, 1, &device);
        for _ in 0..3 {
            model.forward(pictures(&device));
        }
        let metadata_in = Metadata::from([("classes".to_owned(), "a,b".to_owned())]);
        let bytes = to_safetensors(&model, spec, &metadata_in).unwrap();
        assert_eq!(metadata(&bytes).unwrap(), metadata_in);

        let loaded = from_safetensors(spec.init(INPUT, 2, &device), spec, &bytes).unwrap();
        let x = pictures(&device.clone().inner());
        let expected = model.valid().forward(x.clone()).into_data();
        assert_eq!(loaded.valid().forward(x).into_data(), expected);
        assert_eq!(to_safetensors(&loaded, spec, &metadata_in).unwrap(), bytes);
    }

    #[test]
    fn mismatch_names_every_tensor() {
        let device = Device::flex();
        let [small, large] = ["resnet8", "resnet20"].map(|name| ModelSpec::find(name).unwrap());
        let other = Input { channels: 3, classes: 4 };
        let bytes =
            to_safetensors(&large.init(other, 1, &device), large, &Metadata::new()).unwrap();
        let error = from_safetensors(small.init(INPUT, 1, &device), small, &bytes).unwrap_err();
        let WeightsError::Mismatch { missing, unexpected, misshapen, .. } = &error else {
            panic!("{error}");
        };
        assert!(missing.is_empty());
        // Two more blocks in each of three stages, of two convolutions and two norms of four.
        assert_eq!(unexpected.len(), 3 * 2 * (2 + 2 * 4));
        assert_eq!(misshapen.len(), 3, "{misshapen:?}");
        let text = error.to_string();
        assert!(
            text.contains("layer1.1.conv1.weight")
                && text.contains("fc.weight (expected [5, 64], found [4, 64])")
        );
    }

    #[test]
    fn truncated_and_foreign_files_are_refused() {
        let device = Device::flex();
        let spec = ModelSpec::find("resnet8").unwrap();
        let bytes = to_safetensors(&spec.init(INPUT, 1, &device), spec, &Metadata::new()).unwrap();
        for bad in [&bytes[..bytes.len() - 1], &bytes[..5], b"PK\x03\x04 not this", b""] {
            let error = from_safetensors(spec.init(INPUT, 1, &device), spec, bad).unwrap_err();
            assert!(matches!(error, WeightsError::Format(_)), "{error}");
        }
    }
}
