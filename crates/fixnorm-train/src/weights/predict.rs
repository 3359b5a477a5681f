//! Prediction: the likeliest classes of images.
//! Not here: finding image files (`fixnorm-data`), the weights (`bundle.rs`).

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use fixnorm_data::{DataError, Preprocessing, read_image};
use rayon::prelude::*;
use serde::Serialize;

use crate::weights::BundleError;
use crate::{Bundle, DeviceName, TrainError};

/// What to predict, and how much of it to return.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The model, where the weights do not name it.
    pub model: Option<&'a str>,
    /// Image files.
    pub files: &'a [PathBuf],
    /// Number of classes to return for each image.
    pub top: usize,
    /// Whether the logits are wanted.
    pub logits: bool,
    /// Images of a batch.
    pub batch: usize,
    /// The device.
    pub device: &'a DeviceName,
}

/// A likely class of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guess {
    /// Label.
    pub class: usize,
    /// Its name.
    pub name: String,
    /// Softmax of the logits.
    pub probability: f64,
}

/// An image and its likeliest classes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The image's file.
    pub file: PathBuf,
    /// Likeliest first.
    pub top: Vec<Guess>,
    /// One a class, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

/// The results of a [`Request`].
#[derive(Debug)]
pub struct Predictions {
    /// In the order of the files.
    pub predictions: Vec<Prediction>,
    /// The errors of files that could not be read.
    pub failed: Vec<DataError>,
}

/// Predicts the classes of images. Files that cannot be read are listed, and the others are predicted.
///
/// # Errors
/// Weights that do not fit their model or have no known preprocessing.
pub fn predict(bundle: &Bundle, request: &Request<'_>) -> Result<Predictions, TrainError> {
    let (spec, device) = (bundle.spec(request.model)?, request.device.open()?);
    let about = bundle.use_of(spec)?;
    let [h, w, c] = about.image;
    if c != 1 && c != 3 {
        let path = bundle.path().to_owned();
        return Err(BundleError::Channels { path, channels: c }.into());
    }
    let model = bundle.model(spec, &device)?.valid();
    let preprocessing = about.preprocessing();
    let mut done = Predictions { predictions: vec![], failed: vec![] };
    for files in request.files.chunks(request.batch.max(1)) {
        let read: Vec<_> =
            files.par_iter().map(|file| preprocessed(file, &preprocessing)).collect();
        let (mut good, mut pixels) = (vec![], vec![]);
        for (file, read) in files.iter().zip(read) {
            match read {
                Ok(values) => {
                    good.push(file);
                    pixels.extend(values);
                }
                Err(error) => done.failed.push(error),
            }
        }
        if good.is_empty() {
            continue;
        }
        let x = Tensor::<4>::from_data(TensorData::new(pixels, [good.len(), h, w, c]), &device);
        let logits: Vec<f32> = model.forward(x).into_data().iter().collect();
        for (file, logits) in good.into_iter().zip(logits.chunks_exact(about.classes.len())) {
            done.predictions.push(Prediction {
                file: file.clone(),
                top: guesses(logits, &about.classes, request.top),
                logits: request.logits.then(|| logits.to_vec()),
            });
        }
    }
    Ok(done)
}

fn preprocessed(file: &Path, preprocessing: &Preprocessing) -> Result<Vec<f32>, DataError> {
    let mut values = Vec::with_capacity(preprocessing.shape.iter().product());
    preprocessing.apply(&read_image(file)?, &mut values);
    Ok(values)
}

fn guesses(logits: &[f32], classes: &[String], top: usize) -> Vec<Guess> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = exps.iter().sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| exps[b].total_cmp(&exps[a]));
    order.truncate(top);
    let guess = |class: usize| Guess {
        class,
        name: classes[class].clone(),
        probability: exps[class] / sum,
    };
    order.into_iter().map(guess).collect()
}

#[cfg(test)]
mod tests {
    use super::guesses;

    #[test]
    fn guesses_are_sorted_and_large_logits_do_not_overflow() {
        let names = ["a", "b", "c"].map(str::to_owned);
        let found = guesses(&[1000.0, 1001.0, 0.0], &names, 2);
        let order: Vec<_> = found.iter().map(|guess| (guess.class, guess.name.as_str())).collect();
        assert_eq!(order, [(1, "b"), (0, "a")]);
        let expected = 1.0 / (1.0 + (-1f64).exp());
        assert!((found[0].probability - expected).abs() < 1e-12);
        assert_eq!(guesses(&[0.0; 3], &names, 9).len(), 3);
    }
}
