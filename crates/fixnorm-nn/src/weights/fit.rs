//! Compares a file with a model: where in the file the model's tensors are, which do not fit, which models would fit.
//! Not here: reading values into a model (`load.rs`).

use std::collections::BTreeSet;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

use super::error::WeightsError;
use super::file::WeightsFile;
use super::mismatch::{Mismatch, NearestModel};
use crate::module_path::{ModulePath, follow_path};
use crate::{Classifier, Input, ModelSpec, models};

/// Required fit of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Every tensor of the model and of the file has its counterpart. Entries beside the model, such as loss weights
    /// and metrics, do not count.
    Exact,
    /// As [`Exact`](Self::Exact), except for the final linear layer, which may be for other classes or
    /// missing.
    OtherHead,
    /// Any tensors that fit; at least one must.
    Partial,
}

/// A file as a model sees it.
pub(super) struct Comparison {
    /// The tensors under the model's names.
    pub(super) file: WeightsFile,
    /// Tensors that do not fit.
    pub(super) mismatch: Mismatch,
    /// Entries of the file beside the model.
    pub(super) unused: Vec<String>,
}

/// Name and shape of a tensor of a model, as PyTorch has it.
pub(super) type NamedShape = (String, Vec<usize>);

impl Comparison {
    /// Compares the file with the tensors of a model.
    ///
    /// # Errors
    /// [`WeightsError::Ambiguous`] if the file has the model's tensors more than once.
    pub(super) fn new(
        tensors: &[NamedShape],
        spec: &ModelSpec,
        file: &WeightsFile,
    ) -> Result<Self, WeightsError> {
        let prefix = prefix(tensors, file).map_err(|prefixes| WeightsError::Ambiguous {
            model: spec.name.to_owned(),
            prefixes,
        })?;
        let others = file.names().filter(|name| !name.starts_with(&prefix));
        let mut unused: Vec<String> = others.map(str::to_owned).collect();
        let file = file.below(&prefix);
        let mut mismatch = Mismatch::default();
        for (name, expected) in tensors {
            match file.shape(name) {
                None => mismatch.missing.push(name.clone()),
                Some(found) if found != expected => {
                    mismatch.misshapen.push((name.clone(), expected.clone(), found.to_vec()));
                }
                Some(_) => {}
            }
        }
        let known: BTreeSet<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        // PyTorch counts the batches a batch norm has seen; nothing here depends on it.
        let unexpected = file
            .names()
            .filter(|name| !known.contains(name) && !name.ends_with("num_batches_tracked"));
        for name in unexpected {
            let list = if is_beside_a_model(name) { &mut unused } else { &mut mismatch.unexpected };
            list.push(name.to_owned());
        }
        Ok(Self { file, mismatch, unused })
    }

    /// Returns whether the file fits as `fit` asks.
    pub(super) fn fits(&self, fit: Fit, tensors: &[NamedShape], spec: &ModelSpec) -> bool {
        let mismatch = &self.mismatch;
        match fit {
            Fit::Exact => mismatch.is_empty(),
            Fit::OtherHead => {
                let head = head_names(spec);
                mismatch.unexpected.is_empty()
                    && mismatch.not_given().all(|name| head.contains(name))
            }
            Fit::Partial => mismatch.not_given().count() < tensors.len(),
        }
    }
}

impl Mismatch {
    /// Returns whether the final linear layer is among the tensors that do not fit.
    pub fn includes_head(&self, spec: &ModelSpec) -> bool {
        let head = head_names(spec);
        self.not_given().any(|name| head.contains(name))
    }
}

/// Returns whether an entry is a loss or a metric that was saved with a model, by a word of its name before the first dot.
fn is_beside_a_model(name: &str) -> bool {
    const WORDS: [&str; 15] = [
        "loss",
        "losses",
        "criterion",
        "metric",
        "metrics",
        "acc",
        "accuracy",
        "top1",
        "top5",
        "f1",
        "auroc",
        "precision",
        "recall",
        "confmat",
        "mixup",
    ];
    let first = name.split('.').next().unwrap_or_default().to_lowercase();
    first.split('_').any(|word| WORDS.contains(&word))
}

/// The prefix of the model's names in the file, empty or with a dot at its end: Lightning modules and training loops
/// keep a model under a name of their choice. Several prefixes under which it holds as many tensors are an error,
/// except where one alone is of averaged weights.
fn prefix(tensors: &[NamedShape], file: &WeightsFile) -> Result<String, Vec<String>> {
    let Some((first, _)) = tensors.first() else { return Ok(String::new()) };
    let ends = format!(".{first}");
    let longer = file.names().filter_map(|name| name.strip_suffix(&ends));
    let prefixes = longer.map(|prefix| format!("{prefix}."));
    let given = |prefix: &str| {
        let has = |(name, _): &&NamedShape| file.shape(&format!("{prefix}{name}")).is_some();
        tensors.iter().filter(has).count()
    };
    let counted: Vec<(usize, String)> = prefixes.map(|prefix| (given(&prefix), prefix)).collect();
    let most = counted.iter().map(|(count, _)| *count).max().unwrap_or(0);
    // A block has names like those of a stem: half of a model is none of its blocks.
    if most <= given("") || 2 * most < tensors.len() {
        return Ok(String::new());
    }
    let mut best: Vec<String> =
        counted.into_iter().filter(|(count, _)| *count == most).map(|(_, prefix)| prefix).collect();
    let mut averaged = best.iter().filter(|prefix| {
        prefix.split(['.', '_']).any(|word| ["ema", "swa", "averaged"].contains(&word))
    });
    match (averaged.next().cloned(), averaged.next()) {
        (Some(averaged), None) => Ok(averaged),
        _ if best.len() == 1 => Ok(best.remove(0)),
        _ => Err(best),
    }
}

/// The channels and classes that a file's weights are made for, if it has a stem and a head under the
/// model's names.
pub fn input(spec: &ModelSpec, file: &WeightsFile) -> Option<Input> {
    let stem = (spec.timm_name)("stem.conv.weight");
    // Most files have none, and counting a model's tensors takes time.
    if !file.names().any(|name| name.ends_with(&stem)) {
        return None;
    }
    let registered = ModelSpec::find(spec.name).ok()?;
    let model = (spec.build)(&registered.config(spec.input), &Device::flex());
    let file = file.below(&prefix(&named_shapes(&model, spec), file).ok()?);
    let stem = file.shape(&stem)?;
    let head = file.shape(&(spec.timm_name)("fc.weight"))?;
    match (stem, head) {
        (&[_, channels, _, _], &[classes, _]) if channels > 0 && classes > 0 => {
            Some(Input { channels, classes })
        }
        _ => None,
    }
}

/// The models that a file fits exactly.
pub fn fitting_models(file: &WeightsFile) -> Vec<&'static ModelSpec> {
    let fits = |spec: &&'static ModelSpec| {
        input(spec, file).is_some_and(|input| {
            let model = (spec.build)(&spec.config(input), &Device::flex());
            let tensors = named_shapes(&model, spec);
            Comparison::new(&tensors, spec, file)
                .is_ok_and(|comparison| comparison.fits(Fit::Exact, &tensors, spec))
        })
    };
    models().iter().filter(fits).collect()
}

/// The model of the registry with the largest share of tensors in common with the file, if it has any.
pub fn nearest_model(file: &WeightsFile) -> Option<NearestModel> {
    let common = models().iter().filter_map(|spec| {
        let input = input(spec, file).unwrap_or(spec.input);
        let model = (spec.build)(&spec.config(input), &Device::flex());
        let tensors = named_shapes(&model, spec);
        let mismatch = Comparison::new(&tensors, spec, file).ok()?.mismatch;
        let fitting = tensors.len() - mismatch.not_given().count();
        let all = (tensors.len() + mismatch.unexpected.len()) as f64;
        let nearest = NearestModel { model: spec.name, fitting, tensors: tensors.len() };
        (fitting > 0).then_some((fitting as f64 / all, nearest))
    });
    common.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, nearest)| nearest)
}

/// Weight and bias of the final linear layer.
fn head_names(spec: &ModelSpec) -> [String; 2] {
    ["fc.weight", "fc.bias"].map(spec.timm_name)
}

/// Name and shape of every tensor of the model, the stem's first.
pub(super) fn named_shapes(model: &Classifier, spec: &ModelSpec) -> Vec<NamedShape> {
    struct Shapes {
        path: ModulePath,
        timm_name: fn(&str) -> String,
        found: Vec<NamedShape>,
    }
    impl ModuleVisitor for Shapes {
        follow_path!();

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let mut shape = param.lazy_shape().to_vec();
            if self.path.is_linear_weight::<D>() {
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
