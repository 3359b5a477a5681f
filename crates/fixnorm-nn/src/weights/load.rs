//! A file's tensors into a model, with a full account of what does not fit.
//! Not here: reading the file (`file.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::{WeightsError, WeightsFile, is_transposed};
use crate::classifier::{Classifier, Input};
use crate::init::replace;
use crate::path::{ModulePath, follow_path};
use crate::registry::{ModelSpec, models};

/// How well a file must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Every tensor of the model and of the file has its counterpart.
    Exact,
    /// As [`Exact`](Self::Exact), except for the final linear layer, which may be for other classes or
    /// missing.
    OtherHead,
    /// Whatever fits; something must.
    Partial,
}

/// The tensors that do not fit, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Tensors the model has and the file lacks.
    pub missing: Vec<String>,
    /// Tensors the file has and the model lacks.
    pub unexpected: Vec<String>,
    /// Tensors of another shape: name, the model's and the file's.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// Whether all tensors fit.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }

    /// Whether the final linear layer is among what does not fit.
    pub fn includes_head(&self, spec: &ModelSpec) -> bool {
        let misshapen = self.misshapen.iter().map(|(name, ..)| name);
        let head = head_names(spec);
        self.missing.iter().chain(misshapen).any(|name| head.contains(name))
    }

    /// Name, expected and found shape of every misshapen tensor, in words.
    pub fn misshapen_with_shapes(&self) -> Vec<String> {
        let misshapen = self.misshapen.iter();
        misshapen
            .map(|(name, expected, found)| {
                format!("{name} (expected {expected:?}, found {found:?})")
            })
            .collect()
    }

    /// Whether only tensors of these names do not fit, and the file has none too many.
    fn is_within(&self, names: &[String]) -> bool {
        let misshapen = self.misshapen.iter().map(|(name, ..)| name);
        self.unexpected.is_empty()
            && self.missing.iter().chain(misshapen).all(|name| names.contains(name))
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let misshapen = self.misshapen_with_shapes();
        let sections = [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("of another shape", &misshapen),
        ];
        for (kind, names) in sections.iter().filter(|(_, names)| !names.is_empty()) {
            write!(f, " {kind}: {};", names.join(", "))?;
        }
        Ok(())
    }
}

/// A model with a file's weights.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: Classifier,
    /// What was left as it was before; empty if every tensor fitted.
    pub left: Mismatch,
}

/// `model` with the weights of a file; what the file does not give stays.
///
/// # Errors
/// [`WeightsError::Mismatch`] names every tensor that does not fit, where `fit` asks for it. A tensor of
/// whole numbers, or with values that are not finite, is refused in any case.
pub fn load(
    model: Classifier,
    spec: &ModelSpec,
    file: &WeightsFile,
    fit: Fit,
) -> Result<Loaded, WeightsError> {
    // First the shapes: nothing is read for a model that it does not fit.
    let plan = shapes(&model, spec);
    let left = compare(&plan, file);
    let fits = left.is_empty()
        || match fit {
            Fit::Exact => false,
            Fit::OtherHead => left.is_within(&head_names(spec)),
            Fit::Partial => left.missing.len() + left.misshapen.len() < plan.len(),
        };
    if !fits {
        return Err(WeightsError::Mismatch { model: spec.name.to_owned(), mismatch: left });
    }
    let mut values = BTreeMap::new();
    for (name, shape) in plan {
        if file.shape(&name) == Some(&shape[..]) {
            values.insert(name.clone(), file.floats(&name)?);
        }
    }
    let timm_name = spec.timm_name;
    let model = model.map(&mut Loader { path: ModulePath::default(), timm_name, values });
    Ok(Loaded { model, left })
}

/// The channels and classes that a file's weights are made for, if it has a stem and a head under the
/// model's names.
pub fn input(spec: &ModelSpec, file: &WeightsFile) -> Option<Input> {
    let stem = file.shape(&(spec.timm_name)("stem.conv.weight"))?;
    let head = file.shape(&(spec.timm_name)("fc.weight"))?;
    match (stem, head) {
        (&[_, channels, _, _], &[classes, _]) if channels > 0 && classes > 0 => {
            Some(Input { channels, classes })
        }
        _ => None,
    }
}

/// The models that a file fits to the last tensor.
pub fn fitting_models(file: &WeightsFile) -> Vec<&'static ModelSpec> {
    let fits = |spec: &&'static ModelSpec| {
        input(spec, file).is_some_and(|input| {
            let model = (spec.build)(&spec.config(input), &Device::flex());
            compare(&shapes(&model, spec), file).is_empty()
        })
    };
    models().iter().filter(fits).collect()
}

/// Weight and bias of the final linear layer.
fn head_names(spec: &ModelSpec) -> [String; 2] {
    ["fc.weight", "fc.bias"].map(spec.timm_name)
}

/// Name and shape of every tensor of the model, as PyTorch has them.
fn shapes(model: &Classifier, spec: &ModelSpec) -> Vec<(String, Vec<usize>)> {
    struct Shapes {
        path: ModulePath,
        timm_name: fn(&str) -> String,
        found: Vec<(String, Vec<usize>)>,
    }
    impl ModuleVisitor for Shapes {
        follow_path!();

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let mut shape = param.lazy_shape().to_vec();
            if is_transposed::<D>(&self.path) {
                shape.swap(0, 1);
            }
            self.found.push(((self.timm_name)(&self.path.dotted()), shape));
        }
    }
    let mut shapes =
        Shapes { path: ModulePath::default(), timm_name: spec.timm_name, found: vec![] };
    model.visit(&mut shapes);
    shapes.found
}

fn compare(plan: &[(String, Vec<usize>)], file: &WeightsFile) -> Mismatch {
    let mut mismatch = Mismatch::default();
    for (name, expected) in plan {
        match file.shape(name) {
            None => mismatch.missing.push(name.clone()),
            Some(found) if found != expected => {
                mismatch.misshapen.push((name.clone(), expected.clone(), found.to_vec()));
            }
            Some(_) => {}
        }
    }
    let known: BTreeSet<&str> = plan.iter().map(|(name, _)| name.as_str()).collect();
    // PyTorch counts the batches a batch norm has seen; nothing here depends on it.
    let unexpected =
        file.names().filter(|name| !known.contains(name) && !name.ends_with("num_batches_tracked"));
    mismatch.unexpected = unexpected.map(str::to_owned).collect();
    mismatch
}

/// Puts values in where there are any.
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
        let transposed = is_transposed::<D>(&self.path);
        let mut shape = param.lazy_shape().to_vec();
        if transposed {
            shape.swap(0, 1);
        }
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
