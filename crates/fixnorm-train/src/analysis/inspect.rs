//! Roles, norms and effective learning rates of a model's parameters.

use burn::tensor::{Tensor, TensorData};
use fixnorm::Role;
use fixnorm_analysis::measure::weight_norms;
use fixnorm_analysis::migrate::alpha_of;
use fixnorm_analysis::{Gap, Risk, RiskConfig, Separation, cross_boundary_risk_with_sigma_of};
use fixnorm_data::{LoadOptions, Split};
use fixnorm_nn::{ModelSpec, cross_entropy};
use serde::Serialize;

use crate::evaluate::FeatureSet;
use crate::evaluate::loader::{Order, loader};
use crate::session::prepare::{PROBE_IMAGES, PROBE_SIDE};
use crate::weights::bundle::{About, View};
use crate::{Bundle, DeviceName, TrainError, recipe};

/// A model, parameter by parameter.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// One row a parameter.
    pub parameters: Vec<Row>,
    /// The final linear layer.
    pub head: HeadRow,
    /// Cross-boundary risk, if it was measured on images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risks>,
    /// Loss, margins, calibration and class means, if they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separation: Option<Separations>,
}

/// Cross-boundary risk on both splits of a data set.
#[derive(Clone, Debug, Serialize)]
pub struct Risks {
    /// On training images, not augmented.
    pub train: Risk,
    /// On validation images.
    pub val: Risk,
    /// On training images, with each class's σ from validation images.
    pub train_with_val_sigma: Risk,
}

/// Loss, margins, calibration and class means on both splits of a data set.
#[derive(Clone, Debug, Serialize)]
pub struct Separations {
    /// On training images, not augmented.
    pub train: Separation,
    /// On validation images.
    pub val: Separation,
    /// Validation against training images.
    pub gap: Gap,
}

/// Measures weights on at most `most` images of each split of a data set.
///
/// # Errors
/// Weights that do not fit the data, data that cannot be read, features whose risk is undefined.
pub fn measure(
    bundle: &Bundle,
    model: Option<&str>,
    data: &str,
    most: usize,
    device: &DeviceName,
) -> Result<(Risks, Separations), TrainError> {
    let (spec, device) = (bundle.spec(model)?, device.open()?);
    let model = bundle.model(spec, &device)?;
    let of = |split| {
        let set = bundle.open(spec, data, Some(split), &LoadOptions::default())?;
        let View { shape, preprocessing } = bundle.view(spec, &set)?;
        let settings = recipe::Loader::default();
        let loader =
            loader(set.source, shape, preprocessing, 128, &settings, Order::Shuffled, None)?;
        FeatureSet::of_model(&model, &loader, most, &device)
    };
    let (train, val) = (of(Split::Train)?, of(Split::Val)?);
    let (known, new, head) = (train.features(), val.features(), train.head());
    let config = RiskConfig::default();
    let risks = Risks {
        train: train.risk(&config)?,
        val: val.risk(&config)?,
        train_with_val_sigma: cross_boundary_risk_with_sigma_of(new, known, head, &config)?,
    };
    let separations = Separations {
        train: train.separation()?,
        val: val.separation()?,
        gap: Gap::between(known, new, head)?,
    };
    Ok((risks, separations))
}

/// One parameter.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Dotted path.
    pub path: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Its role.
    pub role: Role,
    /// The dimension that counts output channels, where the layer's layout is known.
    pub channel_axis: Option<usize>,
    /// The scope its norm can be taken over: `output_channel`, `tensor`, or none where a norm means nothing.
    pub scope: Option<&'static str>,
    /// Its norm, for weights.
    pub norm: Option<f64>,
    /// lr/‖w‖² at the run's peak learning rate, where it is known.
    pub effective_lr: Option<f64>,
    /// The angle in radians by which a step of the run is expected to turn it at the peak learning rate, where that is known.
    pub angle: Option<f64>,
    /// Largest relative change of the loss when it was scaled.
    pub deviation: Option<f64>,
}

/// The final linear layer.
#[derive(Clone, Debug, Serialize)]
pub struct HeadRow {
    /// Path of its weight.
    pub path: Option<String>,
    /// ‖W‖_F/√C, the RMS norm of a class's row.
    pub alpha: Option<f64>,
}

/// The model to inspect.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A freshly initialized one, by its id.
    Fresh(&'a str),
    /// One with the weights of a file; its id where the file does not name it.
    Weights(&'a Bundle, Option<&'a str>),
}

/// Inspects a model.
///
/// # Errors
/// Unknown model, weights that do not fit.
pub fn inspect(subject: Subject<'_>, device: &DeviceName) -> Result<Inspection, TrainError> {
    let (spec, weights) = match subject {
        Subject::Fresh(model) => (ModelSpec::find(model)?, None),
        Subject::Weights(bundle, model) => (bundle.spec(model)?, Some(bundle)),
    };
    let device = device.open()?.autodiff();
    let about = weights.and_then(Bundle::about);
    let input = weights.map_or(spec.input, |bundle| bundle.input(spec));
    let shape = match about {
        Some(about) => about.image,
        None => [spec.resolution, spec.resolution, input.channels],
    };
    let model = match weights {
        Some(bundle) => bundle.model(spec, &device)?,
        None => spec.init(input, 0, &device),
    };
    // Roles do not depend on the images' content, only on the model's structure.
    let [h, w, c] = [shape[0].min(PROBE_SIDE), shape[1].min(PROBE_SIDE), shape[2]];
    let noise =
        |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    let pixels: Vec<f32> = (0..PROBE_IMAGES * h * w * c).map(noise).collect();
    let x = Tensor::<4>::from_data(TensorData::new(pixels, [PROBE_IMAGES, h, w, c]), &device);
    let labels: Vec<i64> = (0..PROBE_IMAGES).map(|i| (i % input.classes) as i64).collect();
    let labels = Tensor::from_data(TensorData::new(labels, [PROBE_IMAGES]), &device);
    let probe = fixnorm::Probe::new();
    let roles =
        probe.run(&model, |model| cross_entropy(model.forward(x.clone()), labels.clone(), 0.0))?;

    let (norms, recipe) = (weight_norms(&model, &roles), about.and_then(About::recipe));
    let norm_of = |path: &str| norms.iter().find(|(known, _)| known == path).map(|(_, norm)| *norm);
    let rows = roles.params.iter().map(|param| {
        let norm = norm_of(&param.path);
        Row {
            path: param.path.clone(),
            shape: param.shape.clone(),
            role: param.role,
            channel_axis: param.channel_axis,
            scope: match (param.role, param.channel_invariant) {
                (Role::ScaleInvariant, true) => Some("output_channel"),
                (Role::ScaleInvariant, false) | (Role::Head, _) => Some("tensor"),
                (Role::Free, _) => None,
            },
            norm,
            effective_lr: about
                .and_then(|about| about.lr)
                .zip(norm)
                .map(|(lr, norm)| lr / (norm * norm)),
            angle: recipe.as_ref().and_then(|run| run.expected_angle(param, run.optimizer.lr?)),
            deviation: param.deviation,
        }
    });
    let head = roles.head().map(|head| head.path.clone());
    Ok(Inspection {
        parameters: rows.collect(),
        head: HeadRow {
            alpha: head.as_deref().and_then(norm_of).map(|norm| alpha_of(norm, input.classes)),
            path: head,
        },
        risk: None,
        separation: None,
    })
}
