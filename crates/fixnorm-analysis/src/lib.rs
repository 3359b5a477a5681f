//! Measurement and analysis of training with [`fixnorm`]: what weight decay and held norms do to a model.
//!
//! | module | contents |
//! |---|---|
//! | [`measure`] | norms, effective learning rates and angular updates of a model in training |
//! | [`theory`] | the equilibrium that weight decay settles at |
//! | [`replay`] | one run's effective learning rates or norms, followed by another run |
//! | [`migrate`] | FixNorm settings equivalent to a given weight decay |
//! | [`risk`] | distances to class boundaries, cross-boundary risk |

pub mod measure;
pub mod migrate;
pub mod replay;
pub mod risk;
pub mod theory;

pub use measure::{LayerMeasure, WeightSnapshot};
pub use replay::{ReplayError, Trajectory};
pub use risk::{Features, LinearHead, Risk, RiskConfig, RiskError, cross_boundary_risk};
pub use theory::Equilibrium;
