//! Export: safetensors that timm loads strictly, an ONNX graph, or a directory for the Hugging Face hub.
//! Not here: the formats of weights (`fixnorm-nn`), the directory's other files (`hub.rs`, `card.rs`).

use std::fmt;
use std::path::Path;

use fixnorm_nn::onnx::to_onnx;
use fixnorm_nn::weights::Metadata;
use serde_json::json;

use crate::files::{check_dir, check_file, write_atomic};
use crate::run_dir::RunFiles;
use crate::weights::bundle::{About, save_with};
use crate::weights::hub;
use crate::{Bundle, DeviceName, TrainError};

/// A format that weights are exported in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// Weights alone, under timm's names.
    Safetensors,
    /// The whole model, for inference.
    Onnx,
    /// A directory as the Hugging Face hub and timm expect it: weights, `config.json` and a model card.
    Hub,
}

impl ExportFormat {
    /// The format that a file's name ends with; [`Hub`](Self::Hub) for a directory and for a name with a `/` at its end.
    pub fn of(path: &Path) -> Option<Self> {
        let ends_in_slash = path.to_string_lossy().ends_with(std::path::is_separator);
        if ends_in_slash || path.is_dir() {
            return Some(Self::Hub);
        }
        match path.extension()?.to_str()? {
            "safetensors" => Some(Self::Safetensors),
            "onnx" => Some(Self::Onnx),
            _ => None,
        }
    }
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Onnx => "onnx",
            Self::Hub => "hub",
        })
    }
}

/// Checks that [`export`] can write `out`, before any work.
///
/// # Errors
/// When it cannot, or when `out` is the directory of a run.
pub fn check_out(format: ExportFormat, out: &Path) -> Result<(), TrainError> {
    match format {
        ExportFormat::Hub if RunFiles::new(out).has_plan() => {
            Err(TrainError::ExportIntoRun(out.to_owned()))
        }
        ExportFormat::Hub => check_dir(out),
        ExportFormat::Safetensors | ExportFormat::Onnx => check_file(out),
    }
}

/// Writes a file's weights to `out`, each file all or nothing. Returns what the user should know about it.
///
/// # Errors
/// Weights that do not fit their model or have no known preprocessing; a file that cannot be written.
pub fn export(
    bundle: &Bundle,
    model: Option<&str>,
    format: ExportFormat,
    out: &Path,
    device: &DeviceName,
) -> Result<Vec<String>, TrainError> {
    let (spec, device) = (bundle.spec(model)?, device.open()?);
    let about = bundle.use_of(spec)?;
    let model = bundle.model(spec, &device)?;
    match format {
        ExportFormat::Safetensors => save_with(&model, spec, &about, out)?,
        ExportFormat::Onnx => {
            write_atomic(out, &to_onnx(&model, about.image, &description(&about)))?;
        }
        ExportFormat::Hub => return hub::write(bundle, spec, &about, &model, out),
    }
    Ok(vec![])
}

/// Metadata that using the graph needs.
fn description(about: &About) -> Metadata {
    let [height, width, channels] = about.image;
    let preprocessing = json!({
        "height": height,
        "width": width,
        "channels": channels,
        "crop_ratio": about.crop_ratio,
        "interpolation": about.interpolation,
        "mean": about.mean,
        "std": about.std,
    });
    Metadata::from([
        ("model".to_owned(), about.model.clone()),
        ("classes".to_owned(), json!(about.classes).to_string()),
        ("preprocessing".to_owned(), preprocessing.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_endings() {
        let of = |name: &str| ExportFormat::of(Path::new(name));
        assert_eq!(of("a/b.onnx"), Some(ExportFormat::Onnx));
        assert_eq!(of("b.safetensors"), Some(ExportFormat::Safetensors));
        assert_eq!((of("onnx"), of("b.pth"), of("b.onnx/c")), (None, None, None));
        assert_eq!((of("new/"), of("b.onnx/")), (Some(ExportFormat::Hub), Some(ExportFormat::Hub)));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ExportFormat::of(dir.path()), Some(ExportFormat::Hub));
    }
}
