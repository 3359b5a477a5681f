//! From a choice of knobs and a table of roles to an optimizer for the whole model.
//! Not here: the step (`optim.rs`).

use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::optim::ModuleOptimizer;
use burn::tensor::{DType, Tensor, TensorData};
use fixnorm_kernels::update::{Groups, norms, project};
use serde::{Deserialize, Serialize};

use crate::optim::NormOptimizer;
use crate::params::{Path, follow_path, trainable};
use crate::{
    BaseUpdate, Constraint, DecayKind, ParamRole, Radius, Role, Roles, Scope, SetupError, StepRule,
    WeightDecay,
};

/// What holds the norm of the final linear layer, ‖W‖_F = α·√C for C classes: α is the RMS norm of
/// a class's row, so it carries over between class counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum HeadControl {
    /// At α·√C after every step.
    Fixed(f64),
    /// At most α·√C.
    Capped(f64),
    /// By nothing.
    Free,
    /// By weight decay of this rate on the head alone, the baseline; L2 or decoupled.
    Decayed(f64, DecayKind),
}

/// A norm-controlled optimizer, or a weight-decay baseline through the same entry.
#[derive(Clone, Debug, PartialEq)]
pub struct FixNormConfig {
    /// How a gradient becomes a direction.
    pub base: BaseUpdate,
    /// How a direction becomes a step of a scale-invariant weight; with [`StepRule::TrustRatio`] of every weight.
    pub step_rule: StepRule,
    /// What holds the norm of scale-invariant weights.
    pub constraint: Constraint,
    /// The norm they are held at.
    pub radius: Radius,
    /// What that norm is taken over.
    pub scope: Scope,
    /// What holds the head's norm.
    pub head: HeadControl,
    /// Decay, for baselines.
    pub weight_decay: Option<WeightDecay>,
}

impl FixNormConfig {
    /// FixNorm around this base update: scale-invariant weights held at √c_out, the head at α·√C.
    ///
    /// With √c_out the learning rate keeps the magnitude it has for a freshly initialized network,
    /// so gains and biases, which share it, are trained well too.
    pub fn new(base: BaseUpdate, alpha: f64) -> Self {
        Self {
            base,
            step_rule: StepRule::Raw,
            constraint: Constraint::Fixed,
            radius: Radius::SqrtCOut,
            scope: Scope::Tensor,
            head: HeadControl::Fixed(alpha),
            weight_decay: None,
        }
    }

    /// A weight-decay baseline: nothing held.
    pub fn decayed(base: BaseUpdate, weight_decay: WeightDecay) -> Self {
        Self {
            constraint: Constraint::Free,
            head: HeadControl::Free,
            weight_decay: Some(weight_decay),
            ..Self::new(base, 1.0)
        }
    }

    /// Replaces what holds the norm of scale-invariant weights.
    pub fn with_constraint(mut self, constraint: Constraint) -> Self {
        self.constraint = constraint;
        self
    }

    /// Replaces how a direction becomes a step of a scale-invariant weight.
    pub fn with_step_rule(mut self, step_rule: StepRule) -> Self {
        self.step_rule = step_rule;
        self
    }

    /// Replaces the norm that scale-invariant weights are held at.
    pub fn with_radius(mut self, radius: Radius) -> Self {
        self.radius = radius;
        self
    }

    /// Replaces what that norm is taken over.
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Replaces what holds the head's norm.
    pub fn with_head(mut self, head: HeadControl) -> Self {
        self.head = head;
        self
    }

    /// The model with every controlled weight at its norm, and its optimizer.
    ///
    /// Each parameter gets a group of its own, found by its path, so that a model and an optimizer
    /// loaded from records fit together.
    ///
    /// # Errors
    /// Knobs out of range (α ≤ 0 among them), a controlled weight of norm zero, no head where one
    /// is to be controlled, channel scope where the loss depends on the channels' ratio, roles that
    /// belong to another model.
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
        if self.head != HeadControl::Free && roles.head().is_none() {
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
        let mut optimizer = ModuleOptimizer::from(self.plain(None));
        for (path, group) in setup.optimizers {
            optimizer = optimizer.with_group(ParamGroup::from_path(path), group, None);
        }
        Ok((model, optimizer))
    }

    fn validate(&self) -> Result<(), SetupError> {
        self.base.validate()?;
        let positive = |name, value: f64| match value > 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(SetupError::OutOfRange { name, expected: "above 0 and finite", value }),
        };
        let not_negative = |name, value: f64| match value >= 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(SetupError::OutOfRange { name, expected: "at least 0 and finite", value }),
        };
        if let Radius::Value(radius) = self.radius {
            positive("radius", radius)?;
        }
        match self.head {
            HeadControl::Fixed(alpha) | HeadControl::Capped(alpha) => positive("alpha", alpha)?,
            HeadControl::Decayed(rate, _) => not_negative("head weight decay", rate)?,
            HeadControl::Free => {}
        }
        match self.weight_decay {
            Some(decay) => not_negative("weight decay", decay.rate),
            None => Ok(()),
        }
    }

    fn plain(&self, decay: Option<(f64, DecayKind)>) -> NormOptimizer {
        NormOptimizer {
            base: self.base,
            rule: StepRule::Raw,
            constraint: Constraint::Free,
            decay,
            channel_axis: None,
            radius: vec![],
        }
    }

    /// The optimizer of one parameter, but for its radius.
    fn optimizer_of(&self, param: &ParamRole) -> Result<NormOptimizer, SetupError> {
        let decay = self.weight_decay.filter(|decay| decay.target.includes(param));
        let mut optimizer = self.plain(decay.map(|decay| (decay.rate, decay.kind)));
        if self.step_rule == StepRule::TrustRatio && param.is_weight() {
            optimizer.rule = StepRule::TrustRatio;
        }
        match param.role {
            Role::Free => {}
            Role::Head => match self.head {
                HeadControl::Fixed(_) => optimizer.constraint = Constraint::Fixed,
                HeadControl::Capped(_) => optimizer.constraint = Constraint::Capped,
                HeadControl::Free => {}
                HeadControl::Decayed(rate, kind) => optimizer.decay = Some((rate, kind)),
            },
            Role::ScaleInvariant => {
                optimizer.constraint = self.constraint;
                optimizer.rule = self.step_rule;
                if self.scope == Scope::OutputChannel {
                    optimizer.channel_axis = Some(self.channel_axis(param)?);
                }
            }
        }
        Ok(optimizer)
    }

    fn channel_axis(&self, param: &ParamRole) -> Result<usize, SetupError> {
        let refuse = |reason| SetupError::NoChannelScope { path: param.path.clone(), reason };
        let axis = param.channel_axis.ok_or_else(|| refuse("its layer's layout is not known"))?;
        match param.channel_invariant || param.overridden {
            true => Ok(axis),
            false => Err(refuse("the loss depends on the ratio of its channels' norms")),
        }
    }

    /// The norm to hold each group at, given the norms it has.
    fn radii(&self, param: &ParamRole, norms: &[f64]) -> Vec<f64> {
        if param.role == Role::Head {
            let alpha = match self.head {
                HeadControl::Fixed(alpha) | HeadControl::Capped(alpha) => alpha,
                HeadControl::Free | HeadControl::Decayed(..) => return vec![],
            };
            return vec![alpha * (param.c_out() as f64).sqrt()];
        }
        let of_group = |&norm| self.radius.of_group(self.scope, param.c_out(), norm);
        norms.iter().map(of_group).collect()
    }
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
        let mut optimizer = self.config.optimizer_of(role)?;
        let mut placed = tensor;
        if optimizer.constraint != Constraint::Free {
            let (device, dtype) = (placed.device(), placed.dtype());
            let groups = match optimizer.channel_axis {
                Some(axis) => Groups::along(&role.shape, axis),
                None => Groups::whole(role.shape.iter().product()),
            };
            let data = placed.into_data().convert::<f32>();
            let mut values = data.try_into_vec::<f32>().expect("converted to f32 above");
            let norms = norms(&values, groups);
            if norms.contains(&0.0) {
                return Err(SetupError::ZeroNorm { path: role.path.clone() });
            }
            let radii = self.config.radii(role, &norms);
            let capped = optimizer.constraint == Constraint::Capped;
            project(&mut values, groups, |group, norm| {
                Some(radii[group]).filter(|&radius| !(capped && norm <= radius))
            });
            optimizer.radius = radii.into_iter().map(|radius| radius as f32).collect();
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
