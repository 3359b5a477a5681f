//! Weights files that cannot be used as asked.

use std::path::PathBuf;

use fixnorm_nn::weights::NearestModel;

/// A weights file that cannot be used as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file names another model.
    #[error("{} holds weights of {own}, not of {named}", path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// The file's model.
        own: String,
        /// The model asked for.
        named: String,
    },
    /// The file names no model, and its tensors fit none.
    #[error(
        "{} fits none of the models to the last tensor{}; name one with --model to see what differs",
        path.display(),
        nearest.as_ref().map(|nearest| format!("; {nearest}")).unwrap_or_default()
    )]
    NoModelFits {
        /// The file.
        path: PathBuf,
        /// The model with the most tensors in common with the file.
        nearest: Option<NearestModel>,
    },
    /// The file names no model, and its tensors fit several.
    #[error("{} fits {}; name one with --model", path.display(), models.join(" and "))]
    SeveralModelsFit {
        /// The file.
        path: PathBuf,
        /// The models.
        models: Vec<&'static str>,
    },
    /// The file does not describe its preprocessing, and there is no default for it.
    #[error("{} was not written by fixnorm and is for images of {channels} channels: its preprocessing is unknown", path.display())]
    NoPreprocessing {
        /// The file.
        path: PathBuf,
        /// Channels of an image.
        channels: usize,
    },
    /// Image files have other channels than the model.
    #[error("{} is for images of {channels} channels; files have 1 or 3", path.display())]
    Channels {
        /// The file.
        path: PathBuf,
        /// Channels of an image.
        channels: usize,
    },
}

impl BundleError {
    /// Whether naming another model fixes it.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::OtherModel { .. } | Self::NoModelFits { .. } | Self::SeveralModelsFit { .. }
        )
    }
}
