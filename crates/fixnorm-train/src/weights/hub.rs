//! A directory as the Hugging Face hub and timm expect it: `model.safetensors`, `config.json`, and a model card, README.md.
//! Not here: the card's text (`card.rs`).

use std::fs;
use std::path::Path;

use fixnorm_nn::{Classifier, Library, ModelSpec};
use serde_json::{Value, json};

use crate::files::{write_atomic, write_json};
use crate::run_dir::RunFiles;
use crate::weights::bundle::{About, save_with};
use crate::weights::card::{Card, Run};
use crate::{Bundle, TrainError};

const CONFIG: &str = "config.json";
const CARD: &str = "README.md";

/// Writes the directory, and returns what the user should know about it. A model card that is there is kept.
pub(super) fn write(
    bundle: &Bundle,
    spec: &ModelSpec,
    about: &About,
    model: &Classifier,
    out: &Path,
) -> Result<Vec<String>, TrainError> {
    let run = run_of(bundle)?;
    fs::create_dir_all(out).map_err(TrainError::io("create", out))?;
    save_with(model, spec, about, &RunFiles::new(out).weights_path())?;
    write_json(&out.join(CONFIG), &config(spec, about, model))?;
    let card = out.join(CARD);
    let mut notes: Vec<String> = loaders_note(spec).into_iter().collect();
    if card.exists() {
        notes.push(format!("kept {}, which was there", card.display()));
    } else {
        let text = Card { spec, about, model, run: run.as_ref() }.text();
        write_atomic(&card, text.as_bytes())?;
    }
    Ok(notes)
}

/// Which programs load the weights, where timm does not.
pub(super) fn loaders_note(spec: &ModelSpec) -> Option<String> {
    let name = spec.name;
    match spec.library {
        Library::Timm => None,
        Library::Torchvision => Some(format!(
            "timm has no model `{name}`: torchvision's model of this name loads model.safetensors strictly, and fixnorm does"
        )),
        Library::Fixnorm => Some(format!(
            "timm has no model `{name}`: fixnorm loads this directory, and for other programs there is `fixnorm export -o FILE.onnx`"
        )),
    }
}

/// The run that weights are of, if they lie in its directory under the name that a run gives them.
fn run_of(bundle: &Bundle) -> Result<Option<Run>, TrainError> {
    let Some(dir) = bundle.path().parent() else { return Ok(None) };
    let files = RunFiles::new(dir);
    if files.weights_path() != bundle.path() || !files.has_plan() {
        return Ok(None);
    }
    Ok(Some(Run { plan: files.plan()?, result: files.result()? }))
}

/// The configuration in timm's form, version 1.0.
fn config(spec: &ModelSpec, about: &About, model: &Classifier) -> Value {
    let [height, width, channels] = about.image;
    let features = model.final_layer().weight.lazy_shape()[0];
    let classes = about.classes.len();
    let mut config = json!({
        "architecture": spec.name,
        "num_classes": classes,
        "num_features": features,
        "global_pool": "avg",
        "label_names": about.classes,
        "pretrained_cfg": {
            "custom_load": false,
            "input_size": [channels, height, width],
            "fixed_input_size": false,
            "interpolation": about.interpolation,
            "crop_pct": about.crop_ratio,
            "crop_mode": "center",
            "mean": about.mean.iter().map(|&mean| shortest(mean)).collect::<Vec<_>>(),
            "std": about.std.iter().map(|&std| shortest(std)).collect::<Vec<_>>(),
            "num_classes": classes,
            "pool_size": null,
            "first_conv": spec.first_conv(),
            "classifier": spec.classifier(),
        },
    });
    if channels != spec.input.channels {
        config["model_args"] = json!({"in_chans": channels});
    }
    config
}

/// The number with the fewest digits that is this `f32`: 0.485, not 0.48500001430511475.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(value.into())
}

#[cfg(test)]
mod tests {
    use fixnorm_data::Interpolation;
    use fixnorm_nn::Input;

    use super::*;
    use crate::DeviceName;

    fn configured(name: &str, image: [usize; 3]) -> Value {
        let spec = ModelSpec::find(name).unwrap();
        let channels = image[2];
        let about = About {
            model: name.to_owned(),
            image,
            classes: vec!["cat".to_owned(), "dog".to_owned()],
            mean: vec![0.485; channels],
            std: vec![0.229; channels],
            crop_ratio: 0.875,
            interpolation: Interpolation::Bicubic,
            lr: None,
            updates: None,
        };
        let device = DeviceName::Cpu.open().unwrap();
        config(spec, &about, &spec.init(Input { channels, classes: 2 }, 0, &device))
    }

    #[test]
    fn the_configuration_has_timms_keys() {
        let found = configured("mobilenetv2_100", [96, 128, 3]);
        assert_eq!(found["architecture"], "mobilenetv2_100");
        assert_eq!((&found["num_classes"], &found["num_features"]), (&json!(2), &json!(1280)));
        assert_eq!(found["label_names"], json!(["cat", "dog"]));
        assert!(found["model_args"].is_null());
        let timm = &found["pretrained_cfg"];
        assert_eq!(timm["input_size"], json!([3, 96, 128]));
        assert_eq!((&timm["mean"], &timm["std"]), (&json!(vec![0.485; 3]), &json!(vec![0.229; 3])));
        assert_eq!((&timm["crop_pct"], &timm["interpolation"]), (&json!(0.875), &json!("bicubic")));
        assert_eq!(
            (&timm["first_conv"], &timm["classifier"]),
            (&json!("conv_stem"), &json!("classifier"))
        );
        // Other channels than the model has in timm are an argument of its construction.
        let grey = configured("resnet8", [28, 28, 1]);
        assert_eq!(grey["model_args"], json!({"in_chans": 1}));
        assert_eq!(grey["pretrained_cfg"]["input_size"], json!([1, 28, 28]));
    }

    #[test]
    fn programs_that_load_the_weights_are_named() {
        let note = |name| loaders_note(ModelSpec::find(name).unwrap());
        assert_eq!(note("resnet50"), None);
        assert!(note("shufflenet_v2_x1_0").unwrap().contains("torchvision"));
        assert!(note("resnet20").unwrap().contains("timm has no model `resnet20`"));
    }
}
