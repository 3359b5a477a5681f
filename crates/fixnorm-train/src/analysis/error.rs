//! Settings that cannot be migrated to FixNorm.

use std::path::PathBuf;

/// Settings that cannot be migrated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// No weight whose norm could be held.
    #[error("the model has no scale-invariant weight")]
    NoScaleInvariant,
    /// No head whose norm could be read.
    #[error("the model has no head")]
    NoHead,
    /// A run without measurements.
    #[error("{} has no measurements: train it with log.measure_every_steps = 10, for example", .0.display())]
    NoMeasurements(PathBuf),
    /// A run whose measurements lack the head.
    #[error("{}: the last measurement has no head", .0.display())]
    NoMeasuredHead(PathBuf),
    /// A run whose loss or weights became NaN or infinite.
    #[error("{} diverged: its measurements do not show good settings", .0.display())]
    Diverged(PathBuf),
    /// A run measured only where the learning rate was near zero.
    #[error("{} has no measurement before the end of its schedule", .0.display())]
    OnlyLateMeasurements(PathBuf),
    /// Weights whose learning rate is unknown.
    #[error("{}: the learning rate of these weights is unknown; give --lr", .0.display())]
    NoLr(PathBuf),
    /// A weight without a known equilibrium.
    #[error(
        "no equilibrium is known for {0}: it needs decay on it, and SGD, or Adam or RMSProp with decoupled decay"
    )]
    NoEquilibrium(String),
}

impl MigrateError {
    /// Whether other flags or another recipe fix it.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::NoLr(_) | Self::NoEquilibrium(_))
    }
}
