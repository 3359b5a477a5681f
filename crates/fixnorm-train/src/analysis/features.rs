//! Features, labels and final layer of any model, from a safetensors file, and what is measured on them.
//! Not here: the definition of the risk (`fixnorm_analysis::risk`), features of our own models (`evaluate/features.rs`).

use std::fs;
use std::path::Path;

use fixnorm_analysis::{Risk, RiskConfig, RiskError, Separation};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Serialize;

use crate::TrainError;
use crate::evaluate::FeatureSet;

const FEATURES: &str = "features";
const LABELS: &str = "labels";
const WEIGHT: &str = "head.weight";
const BIAS: &str = "head.bias";

/// What is measured on a file's samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Cross-boundary risk.
    #[serde(flatten)]
    pub risk: Risk,
    /// Loss, margins, calibration and class means.
    #[serde(flatten)]
    pub separation: Separation,
}

/// A file of features that cannot be measured.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FeaturesError {
    /// Another format, or a file that is cut short.
    #[error("not a safetensors file: {0}")]
    Format(String),
    /// A tensor that the file lacks.
    #[error("tensor {name} is missing; the file has {present}")]
    Missing {
        /// Its name.
        name: &'static str,
        /// The tensors that are there.
        present: String,
    },
    /// A tensor of another type.
    #[error("tensor {name} has type {found}; expected {expected}")]
    Type {
        /// Its name.
        name: &'static str,
        /// The types that are read.
        expected: &'static str,
        /// Its type.
        found: String,
    },
    /// A tensor of another shape.
    #[error("tensor {name} has shape {found:?}; expected {expected}")]
    Shape {
        /// Its name.
        name: &'static str,
        /// The shape that fits the other tensors.
        expected: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A value that is NaN or infinite.
    #[error("tensor {name}: row {row} has a value that is {value}")]
    NotFinite {
        /// Its name.
        name: &'static str,
        /// The first such row.
        row: usize,
        /// The value.
        value: f32,
    },
    /// A label that is no class of the head.
    #[error(
        "tensor labels: sample {sample} has label {label}, and head.weight has {classes} classes, 0 to {}",
        classes.saturating_sub(1)
    )]
    Label {
        /// The first such sample.
        sample: usize,
        /// Its label.
        label: i64,
        /// Classes of the head.
        classes: usize,
    },
    /// Features whose risk is undefined.
    #[error(transparent)]
    Risk(#[from] RiskError),
}

/// Reads the features of a file and the layer that classifies them:
///
/// | tensor | shape | type |
/// |---|---|---|
/// | `features` | `[n, d]` | F32 |
/// | `labels` | `[n]` | I64, I32 or U8, each below C |
/// | `head.weight` | `[C, d]`, as PyTorch's `nn.Linear` has it | F32 |
/// | `head.bias` | `[C]`; may be left out | F32 |
///
/// Other tensors are ignored.
///
/// # Errors
/// A file that cannot be read, a missing tensor, types or shapes other than those above, labels that the head does not
/// have, values that are not finite.
pub fn read(path: &Path) -> Result<FeatureSet, TrainError> {
    let bytes = fs::read(path).map_err(TrainError::io("read", path))?;
    parse(&bytes).map_err(|source| TrainError::features(path, source))
}

/// Measures the samples of a file under its head.
///
/// # Errors
/// As [`read`], and features whose risk is undefined, such as those without any spread.
pub fn measure(path: &Path, config: &RiskConfig) -> Result<Measured, TrainError> {
    let set = read(path)?;
    let wrong = |error: RiskError| TrainError::features(path, error.into());
    Ok(Measured {
        risk: set.risk(config).map_err(wrong)?,
        separation: set.separation().map_err(wrong)?,
    })
}

fn parse(bytes: &[u8]) -> Result<FeatureSet, FeaturesError> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| FeaturesError::Format(error.to_string()))?;
    let features = required(&file, FEATURES)?;
    let &[n, d] = features.shape() else {
        return Err(shape(FEATURES, "[samples, features]".to_owned(), &features));
    };
    let weight = required(&file, WEIGHT)?;
    let classes = match *weight.shape() {
        [classes, width] if width == d => classes,
        _ => return Err(shape(WEIGHT, format!("[classes, {d}] beside features"), &weight)),
    };
    let bias = match file.tensor(BIAS) {
        Ok(bias) if *bias.shape() != [classes] => {
            return Err(shape(BIAS, format!("[{classes}] beside head.weight"), &bias));
        }
        Ok(bias) => floats(BIAS, &bias)?,
        Err(_) => vec![],
    };
    let labels = required(&file, LABELS)?;
    if *labels.shape() != [n] {
        return Err(shape(LABELS, format!("[{n}] beside features"), &labels));
    }
    Ok(FeatureSet {
        labels: indices(&labels, classes)?,
        values: floats(FEATURES, &features)?,
        weight: floats(WEIGHT, &weight)?,
        bias,
        classes,
    })
}

fn required<'a>(
    file: &SafeTensors<'a>,
    name: &'static str,
) -> Result<TensorView<'a>, FeaturesError> {
    file.tensor(name).map_err(|_| {
        let mut names = file.names();
        names.sort_unstable();
        const MOST: usize = 8;
        let more = if names.len() > MOST { ", …" } else { "" };
        names.truncate(MOST);
        let present = match names[..] {
            [] => "no tensors".to_owned(),
            _ => names.join(", ") + more,
        };
        FeaturesError::Missing { name, present }
    })
}

fn shape(name: &'static str, expected: String, found: &TensorView<'_>) -> FeaturesError {
    FeaturesError::Shape { name, expected, found: found.shape().to_vec() }
}

/// The values of a tensor whose first dimension counts rows.
fn floats(name: &'static str, tensor: &TensorView<'_>) -> Result<Vec<f32>, FeaturesError> {
    if tensor.dtype() != Dtype::F32 {
        return Err(FeaturesError::Type {
            name,
            expected: "F32",
            found: format!("{:?}", tensor.dtype()),
        });
    }
    let values: Vec<f32> =
        tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(at) => {
            let width: usize = tensor.shape()[1..].iter().product();
            Err(FeaturesError::NotFinite { name, row: at / width, value: values[at] })
        }
    }
}

fn indices(tensor: &TensorView<'_>, classes: usize) -> Result<Vec<u32>, FeaturesError> {
    let data = tensor.data();
    let labels: Vec<i64> = match tensor.dtype() {
        Dtype::I64 => data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
        Dtype::I32 => {
            data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect()
        }
        Dtype::U8 => data.iter().map(|&byte| byte.into()).collect(),
        other => {
            return Err(FeaturesError::Type {
                name: LABELS,
                expected: "I64, I32 or U8",
                found: format!("{other:?}"),
            });
        }
    };
    let index = |(sample, label)| {
        let index = u32::try_from(label).ok().filter(|&index| (index as usize) < classes);
        index.ok_or(FeaturesError::Label { sample, label, classes })
    };
    labels.into_iter().enumerate().map(index).collect()
}

#[cfg(test)]
mod tests {
    use fixnorm_analysis::{Features, LinearHead, cross_boundary_risk};

    use super::*;

    struct Tensor {
        name: &'static str,
        dtype: Dtype,
        shape: Vec<usize>,
        bytes: Vec<u8>,
    }

    fn f32s(name: &'static str, shape: &[usize], values: &[f32]) -> Tensor {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { name, dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    fn i64s(shape: &[usize], values: &[i64]) -> Tensor {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { name: LABELS, dtype: Dtype::I64, shape: shape.to_vec(), bytes }
    }

    fn read(tensors: &[Tensor]) -> Result<FeatureSet, FeaturesError> {
        let views = tensors.iter().map(|tensor| {
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
            (tensor.name, view.unwrap())
        });
        parse(&safetensors::serialize(views, None).unwrap())
    }

    const VALUES: [f32; 8] = [2.0, 0.5, 3.0, 1.0, -1.0, 0.0, -2.5, 1.5];
    const ROWS: [f32; 6] = [1.0, 0.0, -1.0, 0.5, 0.25, -2.0];

    fn fine() -> Vec<Tensor> {
        vec![
            f32s(FEATURES, &[4, 2], &VALUES),
            i64s(&[4], &[0, 0, 1, 2]),
            f32s(WEIGHT, &[3, 2], &ROWS),
            f32s(BIAS, &[3], &[0.5, 0.0, -0.5]),
        ]
    }

    #[test]
    fn a_file_gives_what_the_library_gives() {
        let file = read(&fine()).unwrap();
        let features = Features { values: &VALUES, labels: &[0, 0, 1, 2] };
        let head = LinearHead { weight: &ROWS, bias: &[0.5, 0.0, -0.5], classes: 3 };
        let config = RiskConfig { draws: 400, ..RiskConfig::default() };
        assert_eq!(
            cross_boundary_risk(file.features(), file.head(), &config),
            cross_boundary_risk(features, head, &config)
        );
        assert!(cross_boundary_risk(features, head, &config).is_ok());
    }

    #[test]
    fn labels_of_every_type_are_the_same_and_a_bias_may_be_missing() {
        let mut tensors = fine();
        tensors.pop();
        let long = read(&tensors).unwrap();
        assert_eq!((long.labels.as_slice(), long.bias.len()), (&[0, 0, 1, 2][..], 0));
        let bytes = [0i32, 0, 1, 2].iter().flat_map(|label| label.to_le_bytes()).collect();
        tensors[1] = Tensor { name: LABELS, dtype: Dtype::I32, shape: vec![4], bytes };
        assert_eq!(read(&tensors).unwrap(), long);
        let bytes = vec![0, 0, 1, 2];
        tensors[1] = Tensor { name: LABELS, dtype: Dtype::U8, shape: vec![4], bytes };
        assert_eq!(read(&tensors).unwrap(), long);
    }

    #[test]
    fn wrong_files_are_named_by_tensor() {
        let with = |at: usize, tensor: Tensor| {
            let mut tensors = fine();
            tensors[at] = tensor;
            read(&tensors).unwrap_err().to_string()
        };
        let missing = read(&fine()[..2]).unwrap_err().to_string();
        assert_eq!(missing, "tensor head.weight is missing; the file has features, labels");
        assert_eq!(
            with(0, f32s(FEATURES, &[8], &VALUES)),
            "tensor features has shape [8]; expected [samples, features]"
        );
        assert_eq!(
            with(1, i64s(&[3], &[0, 1, 2])),
            "tensor labels has shape [3]; expected [4] beside features"
        );
        assert_eq!(
            with(2, f32s(WEIGHT, &[2, 3], &ROWS)),
            "tensor head.weight has shape [2, 3]; expected [classes, 2] beside features"
        );
        assert_eq!(
            with(3, f32s(BIAS, &[2], &[0.0; 2])),
            "tensor head.bias has shape [2]; expected [3] beside head.weight"
        );
        assert_eq!(
            with(1, i64s(&[4], &[0, 3, 1, 2])),
            "tensor labels: sample 1 has label 3, and head.weight has 3 classes, 0 to 2"
        );
        assert!(with(1, i64s(&[4], &[0, 0, -1, 2])).contains("sample 2 has label -1"));
        let half =
            Tensor { name: FEATURES, dtype: Dtype::F16, shape: vec![4, 2], bytes: vec![0; 16] };
        assert_eq!(with(0, half), "tensor features has type F16; expected F32");
        let floats = Tensor { dtype: Dtype::F32, ..f32s(LABELS, &[4], &[0.0; 4]) };
        assert_eq!(with(1, floats), "tensor labels has type F32; expected I64, I32 or U8");
        let mut values = VALUES;
        values[5] = f32::NAN;
        assert_eq!(
            with(0, f32s(FEATURES, &[4, 2], &values)),
            "tensor features: row 2 has a value that is NaN"
        );
        assert_eq!(
            with(3, f32s(BIAS, &[3], &[0.0, f32::INFINITY, 0.0])),
            "tensor head.bias: row 1 has a value that is inf"
        );
        let text = parse(b"features").unwrap_err().to_string();
        assert!(text.starts_with("not a safetensors file"), "{text}");
    }
}
