#![doc = include_str!("../README.md")]
//!
//! | module | contents |
//! |---|---|
//! | [`role`], [`probe`] | the role of each weight, found by scaling it |
//! | [`rule`], [`base`], [`decay`] | the parts of an optimizer: step rule and constraint, base update, baselines |
//! | [`config`], [`optim`] | the whole optimizer, and its step |
//! | [`schedule`] | learning rate over time |
//! | [`clip_grad_norm`] | gradient clipping by the norm over all parameters |
//! | [`Ema`], [`average`] | moving average of a model, interpolation between two |
//! | [`params`] | paths and shapes of a model's parameters |
//!
//! Measurement, theory of weight decay, replay and cross-boundary risk are in the crate `fixnorm-analysis`.

pub mod average;
pub mod base;
mod clip;
pub mod config;
pub mod decay;
mod ema;
mod error;
pub mod optim;
pub mod params;
pub mod probe;
pub mod role;
pub mod rule;
pub mod schedule;

pub use base::BaseUpdate;
pub use clip::clip_grad_norm;
pub use config::FixNormConfig;
pub use decay::{DecayKind, DecayTarget, WeightDecay};
pub use ema::Ema;
pub use error::SetupError;
pub use params::ParamInfo;
pub use probe::Probe;
pub use role::{ParamRole, Role, Roles};
pub use rule::{Constraint, MAX_ANGLE, Radius, Scope, StepRule, UpdateRule};
pub use schedule::{LrSchedule, ScheduleShape, StepScheduler};
