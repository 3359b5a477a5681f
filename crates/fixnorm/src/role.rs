//! What each weight is: scale-invariant, the head, or free.
//! Not here: how that is found out (`probe.rs`).

use std::fmt;

use burn::module::ParamGroup;
use serde::{Deserialize, Serialize};

use crate::SetupError;

/// The role of a parameter in the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// L(c·w) = L(w) for every c > 0: its norm sets the effective learning rate and nothing else.
    ScaleInvariant,
    /// The final linear layer's weight.
    Head,
    /// Gains, biases and every other weight: the base optimizer alone.
    Free,
}

impl Role {
    /// The name in recipes and tables.
    pub fn name(self) -> &'static str {
        match self {
            Role::ScaleInvariant => "scale_invariant",
            Role::Head => "head",
            Role::Free => "free",
        }
    }
}

/// A parameter and its role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParamRole {
    /// Dotted path in the module tree.
    pub path: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Its role.
    pub role: Role,
    /// The dimension that counts output channels, where the layer's layout is known.
    pub channel_axis: Option<usize>,
    /// Whether each output channel is scale-invariant by itself (batch norm: yes, layer norm: no).
    pub channel_invariant: bool,
    /// Largest relative change of the loss when the tensor was scaled; `None` for gains and biases,
    /// which are not probed.
    pub deviation: Option<f64>,
    /// Whether the user set the role.
    pub overridden: bool,
}

impl ParamRole {
    /// Weights have two dimensions or more; gains and biases have one.
    pub fn is_weight(&self) -> bool {
        self.shape.len() >= 2
    }

    /// Number of output channels: rows of the head, filters of a convolution. A weight whose layout is not known counts
    /// as having them in its first dimension, as PyTorch's layouts do.
    pub fn c_out(&self) -> usize {
        self.shape[self.channel_axis.unwrap_or(0)]
    }
}

/// The table of roles of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roles {
    /// One row a trainable parameter, in the order of the module's fields.
    pub params: Vec<ParamRole>,
}

impl Roles {
    /// The row of the parameter at `path`.
    pub fn get(&self, path: &str) -> Option<&ParamRole> {
        self.params.iter().find(|param| param.path == path)
    }

    /// The head's row.
    pub fn head(&self) -> Option<&ParamRole> {
        self.params.iter().find(|param| param.role == Role::Head)
    }

    /// Paths of all weights.
    pub(crate) fn weights(&self) -> impl Iterator<Item = &str> {
        self.params.iter().filter(|param| param.is_weight()).map(|param| param.path.as_str())
    }

    /// The largest deviation among the parameters found scale-invariant.
    pub fn worst_deviation(&self) -> Option<(&str, f64)> {
        self.params
            .iter()
            .filter(|param| param.role == Role::ScaleInvariant)
            .filter_map(|param| Some((param.path.as_str(), param.deviation?)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Burn's parameter group of all parameters with this role.
    pub fn group(&self, role: Role) -> ParamGroup {
        let with_role = self.params.iter().filter(|param| param.role == role);
        ParamGroup::from_paths(with_role.map(|param| param.path.clone()).collect())
    }

    /// Sets the role of every parameter whose path matches `pattern`, where `*` stands for any text.
    ///
    /// # Errors
    /// [`SetupError::NoSuchParameter`] when none does.
    pub fn set(&mut self, pattern: &str, role: Role) -> Result<(), SetupError> {
        self.matching(pattern)?;
        let params = self.params.iter_mut().filter(|param| matches(pattern, &param.path));
        params.for_each(|param| (param.role, param.overridden) = (role, true));
        Ok(())
    }

    /// The rows whose path matches `pattern`, where `*` stands for any text.
    ///
    /// # Errors
    /// [`SetupError::NoSuchParameter`] when none does.
    pub fn matching(&self, pattern: &str) -> Result<Vec<&ParamRole>, SetupError> {
        let found: Vec<_> = self.params.iter().filter(|p| matches(pattern, &p.path)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let paths = self.params.iter().map(|param| param.path.as_str());
        Err(SetupError::NoSuchParameter {
            pattern: pattern.to_owned(),
            nearest: nearest(pattern, paths).unwrap_or_default().to_owned(),
        })
    }
}

/// One line a parameter: path, shape, role, and how far scaling it moved the loss.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.params.iter().map(|param| param.path.len()).max().unwrap_or(0);
        for param in &self.params {
            let shape: Vec<_> = param.shape.iter().map(usize::to_string).collect();
            let (path, shape, role) = (&param.path, shape.join("x"), param.role.name());
            write!(f, "{path:width$}  {shape:14}  {role:15}")?;
            match (param.overridden, param.deviation) {
                (true, _) => writeln!(f, "  set by the user")?,
                (false, Some(deviation)) => writeln!(f, "  deviation {deviation:.1e}")?,
                (false, None) => writeln!(f, "  not probed")?,
            }
        }
        Ok(())
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any text, also none.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len()).any(|i| text.is_char_boundary(i) && matches(rest, &text[i..]))
        }),
    }
}

/// The candidate that a misspelt name most likely meant.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_matches_any_text() {
        for (pattern, text, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("*.weight", "stem.conv.weight", true),
            ("*.weight", "stem.conv.bias", false),
            ("blocks.*.conv?", "blocks.0.conv1", false),
            ("blocks.*.conv*.weight", "blocks.3.conv2.conv.weight", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn override_that_matches_nothing_names_the_nearest() {
        let param = |path: &str| ParamRole {
            path: path.to_owned(),
            shape: vec![2, 2],
            role: Role::Free,
            channel_axis: None,
            channel_invariant: false,
            deviation: None,
            overridden: false,
        };
        let mut roles = Roles { params: vec![param("stem.conv.weight"), param("head.weight")] };
        let error = roles.set("head.wieght", Role::Head).unwrap_err();
        assert!(
            matches!(error, SetupError::NoSuchParameter { nearest, .. } if nearest == "head.weight")
        );
        roles.set("head.*", Role::Head).unwrap();
        assert!(roles.head().unwrap().overridden);
    }
}
