//! Cross-boundary risk of a classifier on images.
//! Not here: its definition (`fixnorm_analysis::risk`).

use burn::module::Module;
use burn::tensor::{Device, s};
use fixnorm_analysis::{Features, LinearHead, Risk, RiskConfig, cross_boundary_risk};
use fixnorm_data::Loader;
use fixnorm_nn::Classifier;

use crate::TrainError;
use crate::evaluate::batch::padded_images;

/// Returns the risk of `model`, with running statistics, on the first `most` images of `loader`. `device` is without
/// autodiff.
///
/// # Errors
/// Images that cannot be read, features whose risk is undefined.
pub(crate) fn risk(
    model: &Classifier,
    loader: &Loader,
    most: usize,
    device: &Device,
) -> Result<Risk, TrainError> {
    let model = model.valid();
    let (mut values, mut labels, mut full) = (Vec::<f32>::new(), Vec::<u32>::new(), 0);
    for batch in loader.epoch(0) {
        if labels.len() >= most {
            break;
        }
        let mut batch = batch?;
        if batch.labels.is_empty() {
            continue;
        }
        let features = model.features(padded_images(&mut batch, &mut full, device));
        let features = features.slice(s![..batch.labels.len()]).into_data().convert::<f32>();
        values.extend(features.iter::<f32>());
        labels.extend(&batch.labels);
    }
    let dim = values.len() / labels.len().max(1);
    labels.truncate(most);
    values.truncate(labels.len() * dim);
    let layer = model.final_layer();
    // Burn's linear weight is [d, C].
    let weight: Vec<f32> =
        layer.weight.val().transpose().into_data().convert::<f32>().iter().collect();
    let bias: Vec<f32> = match &layer.bias {
        Some(bias) => bias.val().into_data().convert::<f32>().iter().collect(),
        None => vec![],
    };
    let classes = layer.weight.lazy_shape()[1];
    let head = LinearHead { weight: &weight, bias: &bias, classes };
    Ok(cross_boundary_risk(
        Features { values: &values, labels: &labels },
        head,
        &RiskConfig::default(),
    )?)
}
