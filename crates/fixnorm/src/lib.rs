//! Trains [Burn](burn) models by controlling the norms of their weights instead of decaying them.
//!
//! Weight decay does two things at once. On a weight followed by a normalization it only sets the
//! *effective learning rate* `lr/‖w‖²`; on the last linear layer it limits how confident the
//! network can get. FixNorm ([arXiv 2103.15345](https://arxiv.org/abs/2103.15345)) drops the decay
//! and controls both directly: it holds the norm of every scale-invariant weight, and of the head.
//!
//! ```
//! use burn::{module::Module, nn, optim::GradientsParams, tensor::{Device, Distribution, Tensor}};
//! use fixnorm::{BaseUpdate, FixNormConfig, LrSchedule, Probe, ScheduleShape};
//!
//! #[derive(Module, Debug)]
//! struct Net { hidden: nn::Linear, norm: nn::LayerNorm, head: nn::Linear }
//! impl Net {
//!     fn loss(&self, x: Tensor<2>) -> Tensor<1> {
//!         let h = burn::tensor::activation::relu(self.norm.forward(self.hidden.forward(x)));
//!         self.head.forward(h).powi_scalar(2).mean()
//!     }
//! }
//!
//! let device = Device::flex().autodiff();
//! let net = Net {
//!     hidden: nn::LinearConfig::new(4, 8).with_bias(false).init(&device),
//!     norm: nn::LayerNormConfig::new(8).init(&device),
//!     head: nn::LinearConfig::new(8, 3).init(&device),
//! };
//! let x = Tensor::<2>::random([16, 4], Distribution::Default, &device);
//!
//! // 1. Find out which weights are scale-invariant, and which one is the head.
//! let roles = Probe::new().run(&net, |net| net.loss(x.clone()))?;
//! // 2. An optimizer that holds their norms; two knobs: the learning rate and the head's norm.
//! let (mut net, mut optimizer) = FixNormConfig::new(BaseUpdate::sgd(0.9)).init(net, &roles)?;
//! // 3. Train as with any Burn optimizer.
//! let schedule = LrSchedule::new(0.1, ScheduleShape::Cosine, 10.0, 1);
//! for step in 0..10 {
//!     let grads = GradientsParams::from_grads(net.loss(x.clone()).backward(), &net);
//!     net = optimizer.step(schedule.at_step(step), net, grads);
//! }
//! # Ok::<(), fixnorm::SetupError>(())
//! ```
//!
//! On a CPU (Burn's Flex; the feature `flex`, on by default) a step is two passes over memory, and on a GPU (the feature `gpu`
//! beside one of Burn's GPU backends) one or two kernel launches; on any other backend it is composed of tensor operations.
//!
//! | module | contents |
//! |---|---|
//! | [`role`], [`probe`] | the role of each weight, found by scaling it |
//! | [`rule`], [`base`], [`decay`] | the parts of an optimizer: step rule and constraint, base update, baselines |
//! | [`config`], [`optim`] | the whole optimizer, and its step |
//! | [`schedule`] | learning rate over time |
//! | [`clip_grad_norm`] | gradient clipping by the norm over all parameters |
//! | [`params`] | paths and shapes of a model's parameters |
//!
//! Measurement, theory of weight decay, replay and cross-boundary risk are in the crate `fixnorm-analysis`.

pub mod base;
mod clip;
pub mod config;
pub mod decay;
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
pub use error::SetupError;
pub use params::ParamInfo;
pub use probe::Probe;
pub use role::{ParamRole, Role, Roles};
pub use rule::{Constraint, MAX_ANGLE, Radius, Scope, StepRule, UpdateRule};
pub use schedule::{LrSchedule, ScheduleShape, StepScheduler};
