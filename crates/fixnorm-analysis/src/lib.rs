//! Measurement and analysis of training with [`fixnorm`]: what weight decay and held norms do to a model.
//!
//! | module | contents |
//! |---|---|
//! | [`measure`] | norms, effective learning rates and angular updates of a model in training |
//! | [`theory`] | the equilibrium that weight decay settles at |
//! | [`replay`] | one run's effective learning rates or norms, followed by another run |
//! | [`migrate`] | FixNorm settings equivalent to a given weight decay |
//! | [`risk`] | distances to class boundaries, cross-boundary risk |
//! | [`confidence`] | loss, margins, calibration |
//! | [`class_means`] | class means in feature space and the head beside them: measures of neural collapse |
//! | [`separation`] | both of these in one; the gap between training images and others |

pub mod class_means;
pub mod confidence;
pub mod measure;
pub mod migrate;
pub mod replay;
pub mod risk;
pub mod separation;
pub mod theory;

pub use class_means::ClassMeans;
pub use confidence::{Confidence, Logits};
pub use measure::{LayerMeasure, WeightSnapshot};
pub use replay::{ReplayError, Trajectory};
pub use risk::{
    Features, LinearHead, Risk, RiskConfig, RiskError, cross_boundary_risk,
    cross_boundary_risk_with_sigma_of,
};
pub use separation::{Gap, Separation};
pub use theory::Equilibrium;
