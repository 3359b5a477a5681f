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
    #[serde(serialize_with = "crate::files::serialize_path")]
    pub file: PathBuf,
    /// Likeliest first.
    pub top: Vec<Guess>,
    /// One a class, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

/// An image without a prediction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The image's file.
    #[serde(serialize_with = "crate::files::serialize_path")]
    pub file: PathBuf,
    /// Why there is none.
    pub error: String,
}

/// The answer for one file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Its likeliest classes.
    Predicted(Prediction),
    /// It cannot be read, or its logits are not finite.
    Failed(Failed),
}

/// Predicts the classes of images: one answer a file, in the order of the files.
///
/// # Errors
/// Weights that do not fit their model or that do not describe their preprocessing.
pub fn predict(bundle: &Bundle, request: &Request<'_>) -> Result<Vec<Answer>, TrainError> {
    let (spec, device) = (bundle.spec(request.model)?, request.device.open()?);
    let about = bundle.use_of(spec)?;
    let [h, w, c] = about.image;
    if c != 1 && c != 3 {
        let path = bundle.path().to_owned();
        return Err(BundleError::Channels { path, channels: c }.into());
    }
    let model = bundle.model(spec, &device)?.valid();
    let preprocessing = about.preprocessing();
    let mut answers = vec![];
    for files in request.files.chunks(request.batch.max(1)) {
        let read: Vec<_> =
            files.par_iter().map(|file| preprocessed(file, &preprocessing)).collect();
        let (mut good, mut pixels) = (0, vec![]);
        let failed: Vec<Option<DataError>> = read
            .into_iter()
            .map(|read| match read {
                Ok(values) => {
                    good += 1;
                    pixels.extend(values);
                    None
                }
                Err(error) => Some(error),
            })
            .collect();
        let logits: Vec<f32> = if good > 0 {
            let x = Tensor::<4>::from_data(TensorData::new(pixels, [good, h, w, c]), &device);
            model.forward(x).into_data().iter().collect()
        } else {
            vec![]
        };
        let mut logits = logits.chunks_exact(about.classes.len());
        for (file, failed) in files.iter().zip(failed) {
            let answer = match failed {
                Some(error) => Err(error.to_string()),
                None => logits.next().map_or_else(
                    || Err("the model gave no logits".to_owned()),
                    |logits| finite(logits, file),
                ),
            };
            answers.push(match answer {
                Ok(logits) => Answer::Predicted(Prediction {
                    file: file.clone(),
                    top: guesses(logits, &about.classes, request.top),
                    logits: request.logits.then(|| logits.to_vec()),
                }),
                Err(error) => Answer::Failed(Failed { file: file.clone(), error }),
            });
        }
    }
    Ok(answers)
}

/// The logits, if all are finite: there is no likeliest class among others.
fn finite<'a>(logits: &'a [f32], file: &Path) -> Result<&'a [f32], String> {
    match logits.iter().find(|logit| !logit.is_finite()) {
        None => Ok(logits),
        Some(logit) => Err(format!("{}: the model's logits hold {logit}", file.display())),
    }
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
    use std::path::Path;

    use super::{finite, guesses};

    #[test]
    fn logits_that_are_not_finite_are_an_error_of_the_file() {
        assert_eq!(finite(&[1.0, -2.0], Path::new("a.png")), Ok(&[1.0, -2.0][..]));
        for (logits, found) in [([0.0, f32::NAN], "NaN"), ([f32::INFINITY, 0.0], "inf")] {
            let error = finite(&logits, Path::new("a.png")).unwrap_err();
            assert_eq!(error, format!("a.png: the model's logits hold {found}"));
        }
    }

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
