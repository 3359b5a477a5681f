//! Keys of `[head]`: the norm of the final linear layer.

use fixnorm::{Constraint, StepRule};
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::recipe::optional;

/// What holds the head's norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadControl {
    /// At α·√C, at most α·√C, or nothing.
    Constraint(Constraint),
    /// Weight decay on the head alone.
    Decayed,
}

impl HeadControl {
    /// The constraint on the norm; decay is none.
    pub fn constraint(self) -> Constraint {
        match self {
            HeadControl::Constraint(constraint) => constraint,
            HeadControl::Decayed => Constraint::Free,
        }
    }
}

impl Serialize for HeadControl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            HeadControl::Constraint(constraint) => constraint.serialize(serializer),
            HeadControl::Decayed => serializer.serialize_str("decayed"),
        }
    }
}

impl<'de> Deserialize<'de> for HeadControl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name == "decayed" {
            return Ok(HeadControl::Decayed);
        }
        let constraint = Constraint::deserialize(StrDeserializer::<de::value::Error>::new(&name));
        constraint
            .map(HeadControl::Constraint)
            .map_err(|_| de::Error::unknown_variant(&name, &["fixed", "capped", "free", "decayed"]))
    }
}

/// Norm of the final linear layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Head {
    /// `fixed`, `capped`, `free` or `decayed`.
    pub control: HeadControl,
    /// RMS norm of a class's row, for `fixed` and `capped`; `auto` is 32/√F for a layer of F inputs under
    /// `optimizer.step_rule = "angular"`, and 1 under the other rules.
    #[serde(with = "optional::derived")]
    pub alpha: Option<f64>,
    /// For `decayed`.
    pub weight_decay: f64,
    /// Step rule: `raw`, `angular`, `rms_normalized` or `trust_ratio`.
    pub step_rule: StepRule,
    /// Factor of its learning rate.
    pub lr_scale: f64,
    /// Path of its weight; `auto` is the last linear layer.
    #[serde(with = "optional::auto")]
    pub path: Option<String>,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            control: HeadControl::Constraint(Constraint::Fixed),
            alpha: None,
            weight_decay: 0.0,
            step_rule: StepRule::Raw,
            lr_scale: 1.0,
            path: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_is_a_constraint_or_decay() {
        for (name, control, constraint) in [
            ("fixed", HeadControl::Constraint(Constraint::Fixed), Constraint::Fixed),
            ("capped", HeadControl::Constraint(Constraint::Capped), Constraint::Capped),
            ("free", HeadControl::Constraint(Constraint::Free), Constraint::Free),
            ("decayed", HeadControl::Decayed, Constraint::Free),
        ] {
            assert_eq!(control.constraint(), constraint);
            let head = Head { control, ..Head::default() };
            let text = toml::to_string(&head).unwrap();
            assert!(text.starts_with(&format!("control = \"{name}\"\n")), "{text}");
            assert_eq!(toml::from_str::<Head>(&text).unwrap(), head);
        }
        let error = toml::from_str::<Head>("control = \"loose\"").unwrap_err().to_string();
        let expected =
            "unknown variant `loose`, expected one of `fixed`, `capped`, `free`, `decayed`";
        assert!(error.contains(expected), "{error}");
    }
}
