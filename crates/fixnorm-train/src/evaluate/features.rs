//! Features of images, their labels, and the final layer that classifies them: what risk, margins and class means are
//! measured on.
//! Not here: the measures (`fixnorm_analysis`), features from a file (`analysis/features.rs`).

use burn::module::Module;
use burn::tensor::{Device, s};
use fixnorm_analysis::{
    Features, LinearHead, Risk, RiskConfig, RiskError, Separation, cross_boundary_risk,
};
use fixnorm_data::Loader;
use fixnorm_nn::Classifier;

use crate::TrainError;
use crate::evaluate::batch::padded_images;

/// Features of n images, their labels, and the linear layer that classifies them.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureSet {
    /// `[n, d]`, row-major.
    pub(crate) values: Vec<f32>,
    /// `[n]`.
    pub(crate) labels: Vec<u32>,
    /// `[C, d]`, row-major.
    pub(crate) weight: Vec<f32>,
    /// `[C]`, or empty for none.
    pub(crate) bias: Vec<f32>,
    /// C.
    pub(crate) classes: usize,
}

impl FeatureSet {
    /// Features that `model`, with running statistics, has of the first `most` images of `loader`. `device` is without
    /// autodiff.
    ///
    /// # Errors
    /// Images that cannot be read.
    pub(crate) fn of_model(
        model: &Classifier,
        loader: &Loader,
        most: usize,
        device: &Device,
    ) -> Result<Self, TrainError> {
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
        let weight = layer.weight.val().transpose().into_data().convert::<f32>().iter().collect();
        let bias = match &layer.bias {
            Some(bias) => bias.val().into_data().convert::<f32>().iter().collect(),
            None => vec![],
        };
        Ok(Self { values, labels, weight, bias, classes: layer.weight.lazy_shape()[1] })
    }

    /// The samples.
    pub fn features(&self) -> Features<'_> {
        Features { values: &self.values, labels: &self.labels }
    }

    /// The layer that classifies them.
    pub fn head(&self) -> LinearHead<'_> {
        LinearHead { weight: &self.weight, bias: &self.bias, classes: self.classes }
    }

    /// Cross-boundary risk.
    ///
    /// # Errors
    /// Features whose risk is undefined, such as those without any spread.
    pub fn risk(&self, config: &RiskConfig) -> Result<Risk, RiskError> {
        cross_boundary_risk(self.features(), self.head(), config)
    }

    /// Loss, margins, calibration and class means.
    ///
    /// # Errors
    /// Features of a single class, or class means that do not differ.
    pub fn separation(&self) -> Result<Separation, RiskError> {
        Separation::of(self.features(), self.head())
    }
}
