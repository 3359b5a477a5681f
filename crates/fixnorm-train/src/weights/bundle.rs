//! A weights file with what using it needs: model, classes and preprocessing, from the file itself or, for weights of others, from `plan/pretrained.rs`.
//! Not here: its uses (`predict.rs`, `export.rs`, `analysis/inspect.rs`, `session`), the tensors' names
//! (`fixnorm-nn`).

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fixnorm_data::{
    self as data, DataSet, DataSpec, EvaluationSet, Interpolation, LoadOptions, Normalization,
    Preprocessing, Resize, Split,
};
use fixnorm_nn::weights::{self, Fit, Loaded, Metadata, Mismatch, WeightsError, WeightsFile};
use fixnorm_nn::{Classifier, Input, ModelSpec};
use serde::{Deserialize, Serialize};

use crate::evaluate::evaluate;
use crate::evaluate::loader::{Order, loader};
use crate::files::write_atomic;
use crate::plan::pretrained;
use crate::run_dir::RunFiles;
use crate::weights::BundleError;
use crate::{DeviceName, Evaluation, Plan, Recipe, TrainError, recipe};

/// A weights file.
#[derive(Clone, Debug)]
pub struct Bundle {
    path: PathBuf,
    file: WeightsFile,
    about: Option<About>,
}

/// The metadata of a file that fixnorm wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Model id.
    pub model: String,
    /// Height, width and channels of an image.
    #[serde(rename = "picture")]
    pub image: [usize; 3],
    /// Class names in the order of the labels.
    pub classes: Vec<String>,
    /// Mean of each channel, pixels in 0..1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel.
    pub std: Vec<f32>,
    /// Share of the resized image's shorter side that is kept.
    #[serde(default = "whole")]
    pub crop_ratio: f64,
    /// The filter of resizing.
    #[serde(default = "bilinear")]
    pub interpolation: Interpolation,
    /// Peak learning rate of the run, where there was one.
    #[serde(default)]
    pub lr: Option<f64>,
    /// The recipe's sections `optimizer` and `head`. Not parsed here: another version may have other keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<serde_json::Value>,
}

fn whole() -> f64 {
    1.0
}

fn bilinear() -> Interpolation {
    Interpolation::Bilinear
}

impl About {
    /// The metadata of weights that were trained by a plan.
    fn of_plan(plan: &Plan) -> Self {
        let derived = &plan.derived;
        Self {
            model: plan.recipe.model.clone(),
            image: derived.image,
            classes: derived.classes.clone(),
            mean: derived.mean.clone(),
            std: derived.std.clone(),
            crop_ratio: derived.resize.map_or_else(whole, |resize| resize.crop_ratio),
            interpolation: derived.resize.map_or_else(bilinear, |resize| resize.interpolation),
            lr: plan.recipe.optimizer.lr,
            updates: Some(serde_json::json!({
                "optimizer": plan.recipe.optimizer,
                "head": plan.recipe.head,
            })),
        }
    }

    /// The default recipe with the update rules and the learning rate of the run, if they are known.
    pub fn recipe(&self) -> Option<Recipe> {
        let updates = self.updates.as_ref()?;
        let optimizer = serde_json::from_value(updates.get("optimizer")?.clone()).ok()?;
        let head = serde_json::from_value(updates.get("head")?.clone()).ok()?;
        Some(Recipe { optimizer, head, ..Recipe::default() })
    }

    /// Metadata for weights for color images that others trained.
    fn of_others(spec: &ModelSpec, classes: usize) -> Self {
        let Preprocessing { shape, crop_ratio, interpolation, normalization } =
            pretrained::preprocessing(spec);
        Self {
            model: spec.name.to_owned(),
            image: shape,
            classes: pretrained::class_names(classes),
            mean: normalization.mean,
            std: normalization.std,
            crop_ratio,
            interpolation,
            lr: None,
            updates: None,
        }
    }

    /// The model's input channels and classes.
    pub fn input(&self) -> Input {
        Input { channels: self.image[2], classes: self.classes.len() }
    }

    /// The preprocessing of images.
    pub fn preprocessing(&self) -> Preprocessing {
        Preprocessing {
            shape: self.image,
            crop_ratio: self.crop_ratio,
            interpolation: self.interpolation,
            normalization: self.normalization(),
        }
    }

    pub(crate) fn normalization(&self) -> Normalization {
        Normalization { mean: self.mean.clone(), std: self.std.clone() }
    }

    /// The impossible value in it, if any, since it comes from a file.
    fn problem(&self) -> Option<String> {
        const MOST_VALUES: usize = 1 << 28;
        let values = self.image.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
        let channels = self.image[2];
        if !values.is_some_and(|values| (1..=MOST_VALUES).contains(&values)) {
            Some(format!("images of {:?} (height, width, channels)", self.image))
        } else if [self.mean.len(), self.std.len()] != [channels; 2] {
            Some(format!("means {:?} and std {:?} of {channels} channels", self.mean, self.std))
        } else if !self.mean.iter().all(|m| m.is_finite())
            || !self.std.iter().all(|s| s.is_finite() && *s > 0.0)
        {
            Some(format!("means {:?} and std {:?}", self.mean, self.std))
        } else if !(0.1..=1.0).contains(&self.crop_ratio) {
            Some(format!("a crop ratio of {}", self.crop_ratio))
        } else if self.classes.is_empty() {
            Some("no classes".to_owned())
        } else {
            None
        }
    }

    /// The metadata of a safetensors file.
    fn metadata(&self) -> Metadata {
        let json = serde_json::to_string(self).expect("plain values are JSON");
        Metadata::from([(ABOUT.to_owned(), json)])
    }
}

/// The metadata entry.
const ABOUT: &str = "about";

/// Writes the weights of a trained model, with its plan's metadata.
pub(crate) fn save(model: &Classifier, plan: &Plan, path: &Path) -> Result<(), TrainError> {
    save_with(model, plan.spec()?, &About::of_plan(plan), path)
}

/// Writes a model's weights as safetensors.
pub(crate) fn save_with(
    model: &Classifier,
    spec: &ModelSpec,
    about: &About,
    path: &Path,
) -> Result<(), TrainError> {
    let bytes = weights::to_safetensors(model, spec, &about.metadata());
    let bytes = bytes.map_err(|source| TrainError::Weights { path: path.to_owned(), source })?;
    write_atomic(path, &bytes)
}

/// The preprocessing of a data set for weights.
pub(crate) struct View {
    /// Height, width and channels.
    pub(crate) shape: [usize; 3],
    /// Normalization of pixels, and resizing where images have another shape.
    pub(crate) preprocessing: (Normalization, Option<Resize>),
}

/// Weights evaluated on a data set.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// Loss and accuracy.
    pub evaluation: Evaluation,
    /// Tensors that the weights do not provide and that are random.
    pub left: Mismatch,
    /// The split of the images; none where the data set has no splits and all its images were used.
    pub split: Option<Split>,
    /// The data as it was understood.
    pub summary: data::Summary,
}

/// Options of an evaluation.
#[derive(Clone)]
pub struct EvalOptions<'a> {
    /// The split; by default validation images, or all of a data set without splits.
    pub split: Option<Split>,
    /// How the data set is loaded.
    pub load: LoadOptions<'a>,
    /// Average the logits of an image and of its mirror image.
    pub flip: bool,
    /// Share of the images that may be unreadable.
    pub max_bad: f64,
}

impl Bundle {
    /// Opens a weights file (safetensors or a PyTorch checkpoint), or the finished weights of a run
    /// directory.
    ///
    /// # Errors
    /// A file that cannot be read, is neither, or has impossible metadata.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let path = if path.is_dir() { RunFiles::new(path).weights_path() } else { path.to_owned() };
        let file = WeightsFile::open(&path).map_err(|source| match source {
            WeightsError::Read(source) => TrainError::io("read", &path)(source),
            source => TrainError::Weights { path: path.clone(), source },
        })?;
        let about: Option<About> = match file.metadata().get(ABOUT) {
            None => None,
            Some(json) => Some(
                serde_json::from_str(json).map_err(|error| TrainError::corrupt(&path, error))?,
            ),
        };
        if let Some(problem) = about.as_ref().and_then(About::problem) {
            return Err(TrainError::corrupt(&path, format!("its metadata has {problem}")));
        }
        Ok(Self { path, file, about })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's metadata; none if fixnorm did not write it.
    pub fn about(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// The model to use it with: the one named, which must be the file's where the file names one, or
    /// else the one that every tensor fits.
    ///
    /// # Errors
    /// An unknown name, another than the file's, or no name for a file that fits none or several.
    pub fn spec(&self, named: Option<&str>) -> Result<&'static ModelSpec, TrainError> {
        let own = self.about.as_ref().map(|about| about.model.as_str());
        let path = || self.path.clone();
        match (named, own) {
            (Some(named), Some(own)) if named != own => {
                let (own, named) = (own.to_owned(), named.to_owned());
                Err(BundleError::OtherModel { path: path(), own, named }.into())
            }
            (Some(name), _) | (None, Some(name)) => Ok(ModelSpec::find(name)?),
            (None, None) => match weights::fitting_models(&self.file)[..] {
                [spec] => Ok(spec),
                [] => {
                    let nearest = weights::nearest_model(&self.file);
                    Err(BundleError::NoModelFits { path: path(), nearest }.into())
                }
                ref several => {
                    let models = several.iter().map(|spec| spec.name).collect();
                    Err(BundleError::SeveralModelsFit { path: path(), models }.into())
                }
            },
        }
    }

    /// Input channels and classes of the file's model, by its metadata or its tensors' shapes.
    pub fn input(&self, spec: &ModelSpec) -> Input {
        let own = self.about.as_ref().map(About::input);
        // Without a stem and a head in it, loading reports all that is missing.
        own.or_else(|| weights::input(spec, &self.file)).unwrap_or(spec.input)
    }

    /// Preprocessing and class names for these weights: by the file's metadata, or for weights of others the defaults.
    ///
    /// # Errors
    /// Weights of others for images that are not in color.
    pub fn use_of(&self, spec: &ModelSpec) -> Result<About, TrainError> {
        let input = self.input(spec);
        match &self.about {
            Some(about) => Ok(about.clone()),
            None if input.channels == 3 => Ok(About {
                classes: self.class_names(spec),
                ..About::of_others(spec, input.classes)
            }),
            None => {
                let (path, channels) = (self.path.clone(), input.channels);
                Err(BundleError::NoPreprocessing { path, channels }.into())
            }
        }
    }

    /// Names of the classes in the order of the logits; the indices where the file has no names.
    pub(crate) fn class_names(&self, spec: &ModelSpec) -> Vec<String> {
        let classes = self.input(spec).classes;
        let own = self.about.as_ref().map(|about| &about.classes[..]);
        let own = own.or_else(|| self.file.class_names()).filter(|names| names.len() == classes);
        own.map_or_else(|| pretrained::class_names(classes), <[String]>::to_vec)
    }

    /// `model` with these weights.
    ///
    /// # Errors
    /// Weights that do not fit as `fit` asks.
    pub fn load_into(
        &self,
        model: Classifier,
        spec: &ModelSpec,
        fit: Fit,
    ) -> Result<Loaded, TrainError> {
        let loaded = weights::load(model, spec, &self.file, fit);
        loaded.map_err(|source| TrainError::Weights { path: self.path.clone(), source })
    }

    /// The file's model with the file's weights, all of them.
    ///
    /// # Errors
    /// Weights that do not fit.
    pub fn model(
        &self,
        spec: &'static ModelSpec,
        device: &Device,
    ) -> Result<Classifier, TrainError> {
        let model = spec.init(self.input(spec), 0, device);
        Ok(self.load_into(model, spec, Fit::Exact)?.model)
    }

    /// Images of a data set as these weights take them: resized and normalized as in training, whatever the data set's
    /// own statistics.
    pub(crate) fn view(
        &self,
        spec: &'static ModelSpec,
        set: &EvaluationSet,
    ) -> Result<View, TrainError> {
        let about = self.use_of(spec);
        let (shape, resize) = match (set.shape, &about) {
            (Some(shape), Ok(about)) if about.image == shape => (shape, None),
            (_, Ok(About { image, crop_ratio, interpolation, .. })) => {
                (*image, Some(Resize { crop_ratio: *crop_ratio, interpolation: *interpolation }))
            }
            (Some(shape), Err(_)) => (shape, None),
            (None, Err(_)) => {
                let (path, channels) = (self.path.clone(), self.input(spec).channels);
                return Err(BundleError::NoPreprocessing { path, channels }.into());
            }
        };
        let normalization = match about {
            Ok(about) => about.normalization(),
            Err(_) => set.normalization.clone(),
        };
        Ok(View { shape, preprocessing: (normalization, resize) })
    }

    /// Opens images of a data set with the labels of these weights' classes, which are matched by name.
    ///
    /// # Errors
    /// Data that cannot be read or has classes that the weights do not have.
    pub(crate) fn open(
        &self,
        spec: &'static ModelSpec,
        data: &str,
        split: Option<Split>,
        load: &LoadOptions<'_>,
    ) -> Result<EvaluationSet, TrainError> {
        let classes = self.class_names(spec);
        Ok(DataSet::open_for_evaluation(&data.parse::<DataSpec>()?, split, &classes, load)?)
    }

    /// Loss and accuracy on a split of a data set, or on all images of one without splits. Classes are matched by name;
    /// the data may have fewer than the weights.
    ///
    /// # Errors
    /// Data that cannot be read or has other classes, weights that do not fit their model.
    pub fn evaluate(
        &self,
        model: Option<&str>,
        data: &str,
        fit: Fit,
        options: EvalOptions<'_>,
        device: &DeviceName,
    ) -> Result<Evaluated, TrainError> {
        let (spec, device) = (self.spec(model)?, device.open()?);
        let set = self.open(spec, data, options.split, &options.load)?;
        let View { shape, preprocessing } = self.view(spec, &set)?;
        let input = Input { channels: shape[2], ..self.input(spec) };
        let loaded = self.load_into(spec.init(input, 0, &device), spec, fit)?;
        let settings = recipe::Loader { max_bad: options.max_bad, ..recipe::Loader::default() };
        let images = loader(set.source, shape, preprocessing, 128, &settings, Order::Given, None)?;
        let evaluation = evaluate(&loaded.model, &images, options.flip, &device)?;
        Ok(Evaluated { evaluation, left: loaded.left, split: set.split, summary: set.summary })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_of_older_files_is_understood_and_nonsense_is_not() {
        let json = r#"{"model":"resnet8","picture":[28,28,1],"classes":["a"],"mean":[0.5],"std":[0.2],"lr":0.1}"#;
        let about: About = serde_json::from_str(json).unwrap();
        assert_eq!((about.crop_ratio, about.interpolation), (1.0, Interpolation::Bilinear));
        assert_eq!((about.lr, about.problem()), (Some(0.1), None));
        let wrong = |change: fn(&mut About)| {
            let mut changed = about.clone();
            change(&mut changed);
            changed.problem().unwrap()
        };
        assert!(wrong(|about| about.image = [0, 28, 1]).starts_with("images of"));
        assert!(wrong(|about| about.image = [usize::MAX, 2, 1]).starts_with("images of"));
        assert!(wrong(|about| about.image = [1 << 20, 1 << 20, 1]).starts_with("images of"));
        assert!(wrong(|about| about.std = vec![0.0]).starts_with("means"));
        assert!(wrong(|about| about.mean = vec![]).starts_with("means"));
        assert!(wrong(|about| about.crop_ratio = 0.0).starts_with("a crop ratio"));
        assert!(wrong(|about| about.crop_ratio = f64::NAN).starts_with("a crop ratio"));
        assert_eq!(wrong(|about| about.classes.clear()), "no classes");
    }
}
