//! Errors of a setup, reported before the first step.

/// A setup that would fail or silently do something else later.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum SetupError {
    /// A weight that is to be held at a norm has none to start from.
    #[error(
        "weight {path}: its norm is zero, so it has no direction to keep; initialize it, or give it the role `free`"
    )]
    ZeroNorm {
        /// Path of the weight.
        path: String,
    },
    /// No parameter fits as the head.
    #[error("head not found: {reason}; candidates: {candidates}")]
    HeadNotFound {
        /// Why the search failed.
        reason: String,
        /// Paths of the weights that can be named.
        candidates: String,
    },
    /// A pattern, of a role or a factor of the learning rate, that matches no parameter.
    #[error("the pattern `{pattern}` matches no parameter; the nearest is `{nearest}`")]
    NoSuchParameter {
        /// The pattern as given.
        pattern: String,
        /// The parameter whose path is most like it.
        nearest: String,
    },
    /// A knob outside its range.
    #[error("{name} must be {expected}, got {value}")]
    OutOfRange {
        /// Name of the knob.
        name: &'static str,
        /// Its range.
        expected: &'static str,
        /// The value given.
        value: f64,
    },
    /// Norms by output channel were asked for where the channels are not known.
    #[error(
        "weight {path}: scope `output_channel` asked for, but its layer's layout is not known; use scope `tensor` or give it the role `free`"
    )]
    NoChannelScope {
        /// Path of the weight.
        path: String,
    },
    /// The loss changes between two evaluations of the same batch.
    #[error(
        "the probe's loss is not repeatable: {first} and then {second} on the same batch; turn dropout off or seed it inside the closure"
    )]
    NotRepeatable {
        /// First evaluation.
        first: f64,
        /// Second evaluation.
        second: f64,
    },
    /// The loss is NaN or infinite before anything was scaled.
    #[error(
        "the loss is {0} before the first step; check the images and the weights that training starts from"
    )]
    NotFinite(f64),
    /// One parameter at two places of the module tree.
    #[error(
        "parameter {first} is also at {second}: Burn's optimizer would update only the first; call one layer twice instead"
    )]
    SharedParameter {
        /// The first path.
        first: String,
        /// The second path.
        second: String,
    },
    /// Roles that belong to another model.
    #[error("the roles do not fit the model: {0}")]
    RolesMismatch(String),
}
