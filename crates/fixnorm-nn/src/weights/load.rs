//! Reads a file's tensors into a model.
//! Not here: comparing the two (`fit.rs`), reading the file (`file.rs`).

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use super::error::WeightsError;
use super::file::WeightsFile;
use super::fit::{Comparison, Fit, named_shapes, nearest_model};
use super::mismatch::Mismatch;
use crate::models::init::replace;
use crate::module_path::{ModulePath, follow_path};
use crate::{Classifier, ModelSpec};

/// A model with a file's weights.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: Classifier,
    /// Tensors of the model that are as before; empty if every tensor fitted.
    pub left: Mismatch,
    /// Entries of the file beside the model, such as loss weights, metrics and other networks.
    pub unused: Vec<String>,
}

/// Replaces the weights of `model` by those of a file; tensors that the file does not give stay.
///
/// # Errors
/// [`WeightsError::Mismatch`] holds every tensor that does not fit as `fit` asks, [`WeightsError::Ambiguous`] the
/// prefixes of a file with several networks. A tensor of integers, or with values that are not finite, is refused in
/// any case.
pub fn load(
    model: Classifier,
    spec: &ModelSpec,
    file: &WeightsFile,
    fit: Fit,
) -> Result<Loaded, WeightsError> {
    // First the shapes: nothing is read for a model that it does not fit.
    let tensors = named_shapes(&model, spec);
    let comparison = Comparison::new(&tensors, spec, file)?;
    if !comparison.fits(fit, &tensors, spec) {
        return Err(WeightsError::Mismatch {
            model: spec.name.to_owned(),
            mismatch: Box::new(comparison.mismatch),
            nearest: nearest_model(file).filter(|nearest| nearest.model != spec.name),
        });
    }
    let mut values = BTreeMap::new();
    for (name, shape) in tensors {
        if comparison.file.shape(&name) == Some(&shape[..]) {
            values.insert(name.clone(), comparison.file.floats(&name)?);
        }
    }
    let timm_name = spec.timm_name;
    let model = model.map(&mut Loader { path: ModulePath::default(), timm_name, values });
    Ok(Loaded { model, left: comparison.mismatch, unused: comparison.unused })
}

/// Replaces the parameters that there are values for.
struct Loader {
    path: ModulePath,
    timm_name: fn(&str) -> String,
    values: BTreeMap<String, Vec<f32>>,
}

impl ModuleMapper for Loader {
    follow_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(values) = self.values.remove(&(self.timm_name)(&self.path.dotted())) else {
            return param;
        };
        let transposed = self.path.is_linear_weight::<D>();
        let mut shape = param.lazy_shape().to_vec();
        if transposed {
            shape.swap(0, 1);
        }
        let device = param.lazy_device();
        let tensor = Tensor::<D>::from_data(TensorData::new(values, shape), &device);
        let tensor = if transposed {
            // Through memory, so that the layout is that of a weight made here.
            Tensor::from_data(tensor.swap_dims(0, 1).into_data(), &device)
        } else {
            tensor
        };
        replace(param, tensor)
    }
}
