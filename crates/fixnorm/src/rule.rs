//! How the parameters of one role are updated: step rule × constraint × radius × scope, and their learning rate.
//! Not here: which parameter has which role (`role.rs`, `probe.rs`), the arithmetic of a step (`optim/plan.rs`).
//!
//! | family | constraint | step rule |
//! |---|---|---|
//! | FixNorm | fixed | raw, or angular |
//! | weight decay | free | raw, with decay |
//! | Hyperball ([2606.16899](https://arxiv.org/abs/2606.16899)) | fixed, radius `init` | angular |
//! | LAMB ([1904.00962](https://arxiv.org/abs/1904.00962)) | free | trust ratio, with decay, around Adam |

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::SetupError;

/// The constraint on a weight's norm ‖w‖.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// Nothing.
    Free,
    /// ‖w‖ = ρ after every step.
    Fixed,
    /// ‖w‖ ≤ ρ after every step.
    Capped,
}

/// The norm ρ that a weight is held at, set once before the first step.
///
/// In recipes `unit`, `init`, `sqrt_c_out` or a number, which is [`Radius::Value`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Radius {
    /// 1.
    Unit,
    /// The norm at setup: of the initialization, or of the pretrained weight.
    Init,
    /// √c_out for a whole tensor, hence 1 for each of its output channels on average; 1 under
    /// [`Scope::OutputChannel`].
    SqrtCOut,
    /// α·√c_out for a whole tensor, α for an output channel: an RMS norm α of the rows. The head's radius.
    RowRms {
        /// α.
        alpha: f64,
    },
    /// This norm.
    Value {
        /// ρ.
        norm: f64,
    },
}

impl Radius {
    /// The norm of one group of a weight with `c_out` output channels, whose norm is `norm` at setup.
    pub fn of_group(self, scope: Scope, c_out: usize, norm: f64) -> f64 {
        let rows = match scope {
            Scope::Tensor => (c_out as f64).sqrt(),
            Scope::OutputChannel => 1.0,
        };
        match self {
            Radius::Unit => 1.0,
            Radius::Init => norm,
            Radius::SqrtCOut => rows,
            Radius::RowRms { alpha } => alpha * rows,
            Radius::Value { norm } => norm,
        }
    }
}

/// The names and the form of [`Radius`] in a file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Named {
    RowRms(f64),
}

impl Serialize for Radius {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Radius::Unit => serializer.serialize_str("unit"),
            Radius::Init => serializer.serialize_str("init"),
            Radius::SqrtCOut => serializer.serialize_str("sqrt_c_out"),
            Radius::RowRms { alpha } => Named::RowRms(alpha).serialize(serializer),
            Radius::Value { norm } => serializer.serialize_f64(norm),
        }
    }
}

impl<'de> Deserialize<'de> for Radius {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyForm;
        impl<'de> Visitor<'de> for AnyForm {
            type Value = Radius;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`unit`, `init`, `sqrt_c_out` or a number")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Radius, E> {
                match name {
                    "unit" => Ok(Radius::Unit),
                    "init" => Ok(Radius::Init),
                    "sqrt_c_out" => Ok(Radius::SqrtCOut),
                    _ => Err(E::invalid_value(de::Unexpected::Str(name), &self)),
                }
            }

            fn visit_f64<E: de::Error>(self, norm: f64) -> Result<Radius, E> {
                Ok(Radius::Value { norm })
            }

            fn visit_i64<E: de::Error>(self, norm: i64) -> Result<Radius, E> {
                Ok(Radius::Value { norm: norm as f64 })
            }

            fn visit_u64<E: de::Error>(self, norm: u64) -> Result<Radius, E> {
                Ok(Radius::Value { norm: norm as f64 })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Radius, A::Error> {
                let Named::RowRms(alpha) =
                    Named::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Radius::RowRms { alpha })
            }
        }
        deserializer.deserialize_any(AnyForm)
    }
}

/// The elements that share a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The whole tensor.
    Tensor,
    /// Each output channel by itself. A scale-invariant weight is taken as a whole where the loss depends on the ratio of its
    /// channels' norms ([`ParamRole::channel_invariant`](crate::ParamRole::channel_invariant)).
    OutputChannel,
}

/// The step that the direction d of the base update becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepRule {
    /// −lr·d.
    Raw,
    /// The weight turns by exactly lr radians, toward the part of −d at right angles to it. d's length and
    /// its part along the weight do not matter. A direction without a part at right angles moves nothing. Angles above
    /// [`MAX_ANGLE`] are taken for it.
    #[serde(alias = "normalized")]
    Angular,
    /// −lr·√n·d/‖d‖ for n elements: the root mean square change of an element is lr.
    RmsNormalized,
    /// −lr·‖w‖·u/‖u‖ with u = d + λ·w, where λ is the decoupled decay: LAMB's step.
    TrustRatio,
}

/// The largest angle of [`StepRule::Angular`], in radians.
pub const MAX_ANGLE: f64 = 1.5;

/// The update of the parameters of one role.
///
/// ```
/// use fixnorm::{StepRule, UpdateRule};
///
/// // A held weight whose learning rate is an angle in radians.
/// let rule = UpdateRule::held().with_step(StepRule::Angular);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpdateRule {
    /// The step that a direction becomes.
    pub step: StepRule,
    /// The constraint on the norm.
    pub constraint: Constraint,
    /// The norm that `constraint` refers to.
    pub radius: Radius,
    /// The elements that share a norm.
    pub scope: Scope,
    /// Factor of the learning rate for this role.
    pub lr_scale: f64,
}

impl UpdateRule {
    /// The plain base update: raw steps, no constraint.
    pub fn free() -> Self {
        Self {
            step: StepRule::Raw,
            constraint: Constraint::Free,
            radius: Radius::SqrtCOut,
            scope: Scope::Tensor,
            lr_scale: 1.0,
        }
    }

    /// Raw steps, the norm of the whole tensor held at √c_out.
    ///
    /// With √c_out the learning rate keeps the magnitude it has for a freshly initialized network, so gains and biases,
    /// which share it, are trained well too.
    pub fn held() -> Self {
        Self { constraint: Constraint::Fixed, ..Self::free() }
    }

    /// Raw steps, the norm of the whole tensor held at α·√c_out: the head's rule.
    pub fn row_rms(alpha: f64) -> Self {
        Self { radius: Radius::RowRms { alpha }, ..Self::held() }
    }

    /// Replaces the step rule.
    pub fn with_step(self, step: StepRule) -> Self {
        Self { step, ..self }
    }

    /// Replaces the constraint.
    pub fn with_constraint(self, constraint: Constraint) -> Self {
        Self { constraint, ..self }
    }

    /// Replaces the radius.
    pub fn with_radius(self, radius: Radius) -> Self {
        Self { radius, ..self }
    }

    /// Replaces the scope.
    pub fn with_scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// Replaces the factor of the learning rate.
    pub fn with_lr_scale(self, lr_scale: f64) -> Self {
        Self { lr_scale, ..self }
    }

    /// Checks the radius and the factor of the learning rate; `keys` names them.
    pub(crate) fn validate(&self, keys: RuleKeys) -> Result<(), SetupError> {
        let positive = |name, value: f64| {
            if value > 0.0 && value.is_finite() {
                return Ok(());
            }
            Err(SetupError::OutOfRange { name, expected: "above 0 and finite", value })
        };
        match self.radius {
            Radius::Value { norm } => positive(keys.radius, norm)?,
            Radius::RowRms { alpha } => positive(keys.alpha, alpha)?,
            Radius::Unit | Radius::Init | Radius::SqrtCOut => {}
        }
        let value = self.lr_scale;
        if value >= 0.0 && value.is_finite() {
            return Ok(());
        }
        let expected = "at least 0 and finite";
        Err(SetupError::OutOfRange { name: keys.lr_scale, expected, value })
    }
}

/// The names of a rule's values in error messages: keys of a recipe.
#[derive(Clone, Copy)]
pub(crate) struct RuleKeys {
    pub(crate) radius: &'static str,
    pub(crate) alpha: &'static str,
    pub(crate) lr_scale: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_radius_is_a_name_or_a_number_in_a_file() {
        for (radius, text) in [
            (Radius::Unit, "\"unit\""),
            (Radius::Init, "\"init\""),
            (Radius::SqrtCOut, "\"sqrt_c_out\""),
            (Radius::Value { norm: 2.5 }, "2.5"),
            (Radius::RowRms { alpha: 4.0 }, "{\"row_rms\":4.0}"),
        ] {
            assert_eq!(serde_json::to_string(&radius).unwrap(), text);
            assert_eq!(serde_json::from_str::<Radius>(text).unwrap(), radius);
        }
        assert_eq!(serde_json::from_str::<Radius>("3").unwrap(), Radius::Value { norm: 3.0 });
        let error = serde_json::from_str::<Radius>("\"large\"").unwrap_err().to_string();
        assert!(error.contains("`unit`, `init`, `sqrt_c_out` or a number"), "{error}");
    }

    #[test]
    fn the_old_name_of_the_angular_rule_still_reads() {
        assert_eq!(serde_json::from_str::<StepRule>("\"normalized\"").unwrap(), StepRule::Angular);
        assert_eq!(serde_json::to_string(&StepRule::Angular).unwrap(), "\"angular\"");
    }

    #[test]
    fn radii_of_tensors_and_channels() {
        let of = |radius: Radius, scope| radius.of_group(scope, 16, 5.0);
        assert_eq!(of(Radius::SqrtCOut, Scope::Tensor), 4.0);
        assert_eq!(of(Radius::SqrtCOut, Scope::OutputChannel), 1.0);
        assert_eq!(of(Radius::RowRms { alpha: 0.5 }, Scope::Tensor), 2.0);
        assert_eq!(of(Radius::RowRms { alpha: 0.5 }, Scope::OutputChannel), 0.5);
        assert_eq!(of(Radius::Init, Scope::Tensor), 5.0);
        assert_eq!(of(Radius::Unit, Scope::Tensor), 1.0);
    }
}
