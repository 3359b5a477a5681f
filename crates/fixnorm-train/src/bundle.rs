//! A weights file that says what it needs to be used: model, classes, size and normalization.
//! Not here: training with it (`run.rs`), the tensors' names (`fixnorm-nn`).

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use fixnorm_data::{DataSet, DataSpec, Normalization, Picture, fit, read_picture};
use fixnorm_nn::weights::{self, Metadata};
use fixnorm_nn::{Classifier, Input, ModelSpec};
use serde::{Deserialize, Serialize};

use crate::evaluate::{evaluate, loader, pictures};
use crate::run_dir::write_atomic;
use crate::{Evaluation, Plan, TrainError, recipe};

/// A weights file in memory.
#[derive(Clone, Debug)]
pub struct Bundle {
    path: PathBuf,
    bytes: Vec<u8>,
    about: Option<About>,
}

/// What a file that fixnorm wrote says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Model id.
    pub model: String,
    /// Height, width and channels of a picture.
    pub picture: [usize; 3],
    /// Class names in the order of the labels.
    pub classes: Vec<String>,
    /// Mean of each channel, pixels in 0..1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel.
    pub std: Vec<f32>,
    /// Peak learning rate of the run.
    pub lr: f64,
}

/// A likely class of a picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guess {
    /// Label.
    pub class: usize,
    /// Its name.
    pub name: String,
    /// Softmax of the logits.
    pub probability: f64,
}

/// A picture and its likeliest classes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The picture's file.
    pub file: PathBuf,
    /// Likeliest first.
    pub top: Vec<Guess>,
    /// One a class, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

impl Bundle {
    /// The weights of a trained model, with what its plan says about it.
    pub(crate) fn from_model(model: &Classifier, plan: &Plan) -> Result<Self, TrainError> {
        let derived = &plan.derived;
        let about = About {
            model: plan.recipe.model.clone(),
            picture: derived.picture,
            classes: derived.classes.clone(),
            mean: derived.mean.clone(),
            std: derived.std.clone(),
            lr: plan.recipe.optimizer.lr,
        };
        let path = PathBuf::from("model.safetensors");
        let json =
            serde_json::to_string(&about).map_err(|error| TrainError::corrupt(&path, error))?;
        let metadata = Metadata::from([("about".to_owned(), json)]);
        let bytes = weights::to_safetensors(model, plan.spec()?, &metadata);
        let bytes = bytes.map_err(|source| TrainError::Weights { path: path.clone(), source })?;
        Ok(Self { path, bytes, about: Some(about) })
    }

    /// Reads a weights file, or the finished weights of a run directory.
    ///
    /// # Errors
    /// A file that cannot be read or is not safetensors.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let path = match path.is_dir() {
            true => path.join("model.safetensors"),
            false => path.to_owned(),
        };
        let bytes = std::fs::read(&path).map_err(TrainError::io("read", &path))?;
        let metadata = weights::metadata(&bytes)
            .map_err(|source| TrainError::Weights { path: path.clone(), source })?;
        let about = match metadata.get("about") {
            None => None,
            Some(json) => Some(
                serde_json::from_str(json).map_err(|error| TrainError::corrupt(&path, error))?,
            ),
        };
        Ok(Self { path, bytes, about })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), TrainError> {
        write_atomic(path, &self.bytes)
    }

    /// What the file says about itself; none for one that fixnorm did not write.
    pub fn about(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// The model to use it with: the one named, which must be the file's where the file names one.
    ///
    /// # Errors
    /// No name, an unknown one, or another than the file's.
    pub fn spec(&self, named: Option<&str>) -> Result<&'static ModelSpec, TrainError> {
        let own = self.about.as_ref().map(|about| about.model.as_str());
        match (named, own) {
            (Some(named), Some(own)) if named != own => Err(TrainError::Mismatch(format!(
                "{} holds weights of {own}, not of {named}",
                self.path.display()
            ))),
            (Some(name), _) | (None, Some(name)) => Ok(ModelSpec::find(name)?),
            (None, None) => Err(TrainError::Mismatch(format!(
                "{} does not say which model it is for; name it with --model",
                self.path.display()
            ))),
        }
    }

    /// `model` with these weights.
    ///
    /// # Errors
    /// Weights that do not fit.
    pub fn load_into(&self, model: Classifier, spec: &ModelSpec) -> Result<Classifier, TrainError> {
        let loaded = weights::from_safetensors(model, spec, &self.bytes);
        loaded.map_err(|source| TrainError::Weights { path: self.path.clone(), source })
    }

    /// Loss and accuracy on the validation pictures of a data set.
    ///
    /// # Errors
    /// Data that cannot be read, weights that do not fit it.
    pub fn evaluate(
        &self,
        model: Option<&str>,
        data: &str,
        device: &str,
    ) -> Result<Evaluation, TrainError> {
        let (spec, device) = (self.spec(model)?, crate::device(device)?);
        let data: DataSet = data.parse::<DataSpec>()?.load()?;
        let input = Input { channels: data.shape[2], classes: data.class_names.len() };
        let model = self.load_into(spec.init(input, 0, &device), spec)?;
        // Pictures are normalized as they were in training, whatever the data set's own statistics.
        let normalization = self.normalization().unwrap_or(data.normalization);
        let val = loader(data.val, data.shape, normalization, 128, &recipe::Loader::default())?;
        evaluate(&model, &val, &device)
    }

    fn normalization(&self) -> Option<Normalization> {
        self.about
            .as_ref()
            .map(|about| Normalization { mean: about.mean.clone(), std: about.std.clone() })
    }

    /// The likeliest classes of pictures, in the order of `files`.
    ///
    /// # Errors
    /// A file that is not a picture, weights that do not say how pictures are made ready.
    pub fn predict(
        &self,
        model: Option<&str>,
        files: &[PathBuf],
        top: usize,
        with_logits: bool,
        device: &str,
    ) -> Result<Vec<Prediction>, TrainError> {
        let (spec, device) = (self.spec(model)?, crate::device(device)?);
        let Some(about) = &self.about else {
            return Err(TrainError::Mismatch(format!(
                "{} was not written by fixnorm: it does not say how pictures are normalized",
                self.path.display()
            )));
        };
        let input = Input { channels: about.picture[2], classes: about.classes.len() };
        let model = self.load_into(spec.init(input, 0, &device), spec)?.valid();
        let mut predictions = Vec::with_capacity(files.len());
        for files in files.chunks(64) {
            let read = files.iter().map(|file| Ok(fit(&read_picture(file)?, about.picture)));
            let read = read.collect::<Result<Vec<Picture>, TrainError>>()?;
            let logits = self.logits(&model, about, &read, &device);
            for (file, logits) in files.iter().zip(logits) {
                predictions.push(Prediction {
                    file: file.clone(),
                    top: guesses(&logits, &about.classes, top),
                    logits: with_logits.then_some(logits),
                });
            }
        }
        Ok(predictions)
    }

    fn logits(
        &self,
        model: &Classifier,
        about: &About,
        read: &[Picture],
        device: &Device,
    ) -> Vec<Vec<f32>> {
        let [h, w, c] = about.picture;
        let normalization = Normalization { mean: about.mean.clone(), std: about.std.clone() };
        let mut pixels = Vec::with_capacity(read.len() * h * w * c);
        for picture in read {
            normalization.apply(&picture.pixels, &mut pixels);
        }
        let mut batch = fixnorm_data::Batch {
            pixels,
            labels: vec![],
            indices: vec![],
            shape: [read.len(), h, w, c],
        };
        let logits = model.forward(pictures(&mut batch, device));
        let logits: Vec<f32> = logits.into_data().iter().collect();
        logits.chunks_exact(about.classes.len()).map(<[f32]>::to_vec).collect()
    }
}

fn guesses(logits: &[f32], classes: &[String], top: usize) -> Vec<Guess> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = exps.iter().sum();
    let mut guesses: Vec<Guess> = exps
        .iter()
        .zip(classes)
        .enumerate()
        .map(|(class, (exp, name))| Guess { class, name: name.clone(), probability: exp / sum })
        .collect();
    guesses.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    guesses.truncate(top);
    guesses
}
