//! The searches by name, as flags take them.

/// A search by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SearchKind {
    /// A line in each knob, then a quadratic in both.
    #[default]
    TwoKnob,
    /// A low-discrepancy sequence.
    Halton,
    /// Uniform.
    Random,
    /// Tree-structured Parzen estimators.
    Tpe,
    /// A Gaussian process with expected improvement.
    Gp,
    /// Every cell of a table.
    Grid,
}

impl SearchKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::TwoKnob, Self::Halton, Self::Random, Self::Tpe, Self::Gp, Self::Grid];

    /// Its name, as [`Strategy::name`](super::Strategy::name) has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoKnob => "two-knob",
            Self::Halton => "halton",
            Self::Random => "random",
            Self::Tpe => "tpe",
            Self::Gp => "gp",
            Self::Grid => "grid",
        }
    }
}
