//! A model's tensors as a safetensors file that timm loads strictly.
//! Not here: other formats (`onnx`).

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use safetensors::tensor::{Dtype, TensorView};

use super::error::WeightsError;
use super::file::{METADATA_KEY, Metadata};
use crate::module_path::{ModulePath, follow_path};
use crate::{Classifier, ModelSpec};

/// The file's bytes, with `format` = `pt` in its metadata, as PyTorch's users have it. The same weights and metadata give the same bytes.
///
/// Besides the parameters and running statistics there is `num_batches_tracked`, 0, beside each mean:
/// PyTorch's batch norm has such a counter, uses it only without a momentum, and is strict about it.
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
    let means = tensors.found.iter().filter_map(|(name, ..)| name.strip_suffix("running_mean"));
    let counters: Vec<String> = means.map(|norm| format!("{norm}num_batches_tracked")).collect();
    let mut views = Vec::with_capacity(tensors.found.len() + counters.len());
    for (name, shape, bytes) in &tensors.found {
        views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes)));
    }
    for name in &counters {
        views.push((name, TensorView::new(Dtype::I64, vec![], &[0; 8])));
    }
    let views = views.into_iter().map(|(name, view)| view.map(|view| (name, view)));
    let views = views.collect::<Result<Vec<_>, _>>().map_err(WeightsError::safetensors)?;
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(format)).map_err(WeightsError::safetensors)?;
    Ok(if metadata.is_empty() { bytes } else { with_entry(bytes, metadata) })
}

/// Adds `metadata` to the file's, as one entry that holds all of it as JSON. The library keeps metadata in a hash map, so
/// that two entries would have another order from run to run.
fn with_entry(mut bytes: Vec<u8>, metadata: &Metadata) -> Vec<u8> {
    const LENGTH: usize = 8;
    const BEFORE: &[u8] = br#"{"__metadata__":{"format":"pt""#;
    assert_eq!(bytes.get(LENGTH..LENGTH + BEFORE.len()), Some(BEFORE), "metadata come first");
    let json = |text: &str| serde_json::to_string(text).expect("text is JSON");
    let entries = serde_json::to_string(metadata).expect("a map of strings is JSON");
    let mut entry = format!(",{}:{}", json(METADATA_KEY), json(&entries)).into_bytes();
    // The header's length is a multiple of 8, so that values are aligned; spaces may stand between its parts.
    entry.resize(entry.len().next_multiple_of(LENGTH), b' ');
    let (length, _) = bytes.split_first_chunk_mut::<LENGTH>().expect("the header's length");
    *length = (u64::from_le_bytes(*length) + entry.len() as u64).to_le_bytes();
    let at = LENGTH + BEFORE.len();
    bytes.splice(at..at, entry);
    bytes
}

struct Tensors {
    path: ModulePath,
    timm_name: fn(&str) -> String,
    found: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl ModuleVisitor for Tensors {
    follow_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let transposed = self.path.is_linear_weight::<D>();
        let tensor = if transposed { param.val().swap_dims(0, 1) } else { param.val() };
        let data = tensor.into_data().convert::<f32>();
        let shape = data.shape().to_vec();
        let bytes = data.iter::<f32>().flat_map(f32::to_le_bytes).collect();
        self.found.push(((self.timm_name)(&self.path.dotted()), shape, bytes));
    }
}
