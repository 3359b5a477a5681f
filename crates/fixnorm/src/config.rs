//! From a configuration and a table of roles to an optimizer for the whole model.
//! Not here: the rule of one role (`rule.rs`), the step (`optim/`).

use burn::config::Config;
use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::optim::ModuleOptimizer;
use burn::tensor::{DType, Tensor, TensorData};
use fixnorm_kernels::update::{norms, project};

use crate::decay::Decay;
use crate::optim::NormOptimizer;
use crate::params::{Path, follow_path, trainable};
use crate::rule::RuleKeys;
use crate::{
    BaseUpdate, Constraint, DecayTarget, ParamRole, Role, Roles, Scope, SetupError, StepRule,
    UpdateRule, WeightDecay,
};

/// A norm-controlled optimizer, or a weight-decay baseline through the same entry: one [`UpdateRule`] for each role.
///
/// ```
/// use fixnorm::{BaseUpdate, FixNormConfig, StepRule, UpdateRule};
///
/// // Scale-invariant weights turn by lr radians a step; the rows of the head have an RMS norm of 4.
/// let config = FixNormConfig::new(BaseUpdate::sgd(0.9))
///     .with_scale_invariant(UpdateRule::held().with_step(StepRule::Angular))
///     .with_head(UpdateRule::row_rms(4.0));
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct FixNormConfig {
    /// The base update: from a gradient to a direction.
    pub base: BaseUpdate,
    /// The rule of scale-invariant weights.
    #[config(default = "UpdateRule::held()")]
    pub scale_invariant: UpdateRule,
    /// The rule of the head.
    #[config(default = "UpdateRule::row_rms(1.0)")]
    pub head: UpdateRule,
    /// The rule of all other weights: parameters of two dimensions or more.
    #[config(default = "UpdateRule::free()")]
    pub free: UpdateRule,
    /// The rule of gains and biases.
    #[config(default = "UpdateRule::free()")]
    pub gains_and_biases: UpdateRule,
    /// Decay, for baselines; where several apply to a parameter, the last one counts.
    #[config(default = "vec![]")]
    pub weight_decay: Vec<WeightDecay>,
}

impl FixNormConfig {
    /// A weight-decay baseline: no norm is held.
    pub fn decayed(base: BaseUpdate, weight_decay: WeightDecay) -> Self {
        Self::new(base)
            .with_scale_invariant(UpdateRule::free())
            .with_head(UpdateRule::free())
            .with_weight_decay(vec![weight_decay])
    }

    /// LAMB: no norm is held, and every weight takes steps of [`StepRule::TrustRatio`].
    pub fn lamb(base: BaseUpdate, weight_decay: WeightDecay) -> Self {
        let trust = UpdateRule::free().with_step(StepRule::TrustRatio);
        Self::decayed(base, weight_decay)
            .with_scale_invariant(trust)
            .with_head(trust)
            .with_free(trust)
    }

    /// The rule of a parameter.
    pub fn rule(&self, param: &ParamRole) -> UpdateRule {
        match param.role {
            Role::ScaleInvariant => self.scale_invariant,
            Role::Head => self.head,
            Role::Free if param.is_weight() => self.free,
            Role::Free => self.gains_and_biases,
        }
    }

    /// The model with every controlled weight at its norm, and its optimizer.
    ///
    /// Each parameter gets a group of its own, found by its path, so that a model and an optimizer
    /// loaded from records fit together.
    ///
    /// # Errors
    /// A value out of range (α ≤ 0 among them), a controlled weight of norm zero, no head where one
    /// is to be controlled, channel scope for a weight whose layout is not known, roles that belong to another model.
    pub fn init<M: Module>(
        &self,
        model: M,
        roles: &Roles,
    ) -> Result<(M, ModuleOptimizer), SetupError> {
        self.validate()?;
        let params = trainable(&model)?;
        let paths = params.iter().map(|param| &param.path);
        if !paths.eq(roles.params.iter().map(|role| &role.path)) {
            return Err(SetupError::RolesMismatch(format!(
                "{} trainable parameters against {} roles, or other paths",
                params.len(),
                roles.params.len()
            )));
        }
        if self.controls_head() && roles.head().is_none() {
            return Err(SetupError::HeadNotFound {
                reason: "no weight has the role `head`; name one, or set the head free".to_owned(),
                candidates: roles.weights().collect::<Vec<_>>().join(", "),
            });
        }
        let mut setup =
            Setup { path: Path::default(), config: self, roles, optimizers: vec![], error: None };
        let model = model.map(&mut setup);
        if let Some(error) = setup.error {
            return Err(error);
        }
        // The first optimizer is Burn's fallback for parameters that no group matches; there are none.
        let plain = NormOptimizer {
            base: self.base,
            rule: UpdateRule::free(),
            decay: None,
            channel_axis: None,
            c_out: 1,
        };
        let mut optimizer = ModuleOptimizer::from(plain);
        for (path, group) in setup.optimizers {
            optimizer = optimizer.with_group(ParamGroup::from_path(path), group, None);
        }
        Ok((model, optimizer))
    }

    /// Whether a head is needed.
    fn controls_head(&self) -> bool {
        let decayed = self.weight_decay.iter().any(|decay| decay.target == DecayTarget::Head);
        self.head.constraint != Constraint::Free || decayed
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`SetupError::OutOfRange`] names the value by its key in a recipe.
    pub fn validate(&self) -> Result<(), SetupError> {
        self.base.validate()?;
        let keys =
            |lr_scale| RuleKeys { radius: "optimizer.radius", alpha: "head.alpha", lr_scale };
        self.scale_invariant.validate(keys("optimizer.lr_scale"))?;
        self.head.validate(keys("head.lr_scale"))?;
        self.free.validate(keys("optimizer.free_lr_scale"))?;
        self.gains_and_biases.validate(keys("optimizer.gain_lr_scale"))?;
        for decay in &self.weight_decay {
            let value = decay.rate;
            if !(value >= 0.0 && value.is_finite()) {
                let name = match decay.target {
                    DecayTarget::Head => "head.weight_decay",
                    _ => "optimizer.weight_decay",
                };
                return Err(SetupError::OutOfRange {
                    name,
                    expected: "at least 0 and finite",
                    value,
                });
            }
        }
        Ok(())
    }

    /// The optimizer of one parameter.
    fn optimizer(&self, param: &ParamRole) -> Result<NormOptimizer, SetupError> {
        let mut rule = self.rule(param);
        let decay = self.weight_decay.iter().rfind(|decay| decay.target.includes(param));
        let channel_axis = match rule.scope {
            Scope::OutputChannel if param.is_weight() => channel_axis(param)?,
            _ => None,
        };
        if param.is_weight() && channel_axis.is_none() {
            rule.scope = Scope::Tensor;
        }
        Ok(NormOptimizer {
            base: self.base,
            rule,
            decay: decay.map(|decay| Decay { rate: decay.rate, kind: decay.kind }),
            channel_axis,
            c_out: param.c_out(),
        })
    }
}

/// The axis of the channels that are held one by one; none where the loss depends on the ratio of their norms.
fn channel_axis(param: &ParamRole) -> Result<Option<usize>, SetupError> {
    let unknown = || SetupError::NoChannelScope { path: param.path.clone() };
    let axis = param.channel_axis.ok_or_else(unknown)?;
    let as_a_whole =
        param.role == Role::ScaleInvariant && !param.channel_invariant && !param.overridden;
    Ok((!as_a_whole).then_some(axis))
}

/// Brings every controlled weight to its norm and collects the groups' optimizers.
struct Setup<'a> {
    path: Path,
    config: &'a FixNormConfig,
    roles: &'a Roles,
    optimizers: Vec<(String, NormOptimizer)>,
    error: Option<SetupError>,
}

impl Setup<'_> {
    fn place<const D: usize>(
        &mut self,
        role: &ParamRole,
        tensor: Tensor<D>,
    ) -> Result<Tensor<D>, SetupError> {
        let optimizer = self.config.optimizer(role)?;
        let mut placed = tensor;
        let UpdateRule { step, constraint, .. } = optimizer.rule;
        if constraint != Constraint::Free || step == StepRule::Angular {
            let (device, dtype) = (placed.device(), placed.dtype());
            let groups = optimizer.groups(&role.shape);
            let data = placed.into_data().convert::<f32>();
            let mut values = data.try_into_vec::<f32>().expect("converted to f32 above");
            let norms = norms(&values, groups);
            if norms.contains(&0.0) {
                return Err(SetupError::ZeroNorm { path: role.path.clone() });
            }
            let radii = optimizer.radii(&norms);
            project(&mut values, groups, |group, norm| match constraint {
                Constraint::Free => None,
                Constraint::Fixed => Some(radii[group]),
                Constraint::Capped => Some(radii[group]).filter(|&radius| norm > radius),
            });
            let data = TensorData::new(values, role.shape.clone());
            placed = Tensor::<D>::from_data(data, (&device, DType::F32)).cast(dtype);
        }
        self.optimizers.push((role.path.clone(), optimizer));
        Ok(placed)
    }
}

impl ModuleMapper for Setup<'_> {
    follow_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let roles = self.roles;
        let Some(role) = roles.get(&self.path.dotted()).filter(|_| self.error.is_none()) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let tracked = tensor.is_require_grad();
        let tensor = match self.place(role, tensor.clone().inner()) {
            Ok(placed) => Tensor::from_inner(placed).set_require_grad(tracked),
            Err(error) => {
                self.error = Some(error);
                tensor
            }
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}
