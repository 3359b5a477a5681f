//! Export: safetensors that timm loads strictly, or an ONNX graph.
//! Not here: the formats themselves (`fixnorm-nn`).

use std::fmt;
use std::path::Path;

use fixnorm_nn::onnx::to_onnx;
use fixnorm_nn::weights::Metadata;
use serde_json::json;

use crate::files::write_atomic;
use crate::weights::bundle::{About, save_with};
use crate::{Bundle, DeviceName, TrainError};

/// A format that weights are exported in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// Weights alone, under timm's names.
    Safetensors,
    /// The whole model, for inference.
    Onnx,
}

impl ExportFormat {
    /// The format that a file's name ends with.
    pub fn of(path: &Path) -> Option<Self> {
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
        })
    }
}

/// Writes a file's weights to `out`, all or nothing.
///
/// # Errors
/// Weights that do not fit their model or have no known preprocessing; a file that cannot be written.
pub fn export(
    bundle: &Bundle,
    model: Option<&str>,
    format: ExportFormat,
    out: &Path,
    device: &DeviceName,
) -> Result<(), TrainError> {
    let (spec, device) = (bundle.spec(model)?, device.open()?);
    let about = bundle.use_of(spec)?;
    let model = bundle.model(spec, &device)?;
    match format {
        ExportFormat::Safetensors => save_with(&model, spec, &about, out),
        ExportFormat::Onnx => {
            write_atomic(out, &to_onnx(&model, about.image, &description(&about)))
        }
    }
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
    }
}
