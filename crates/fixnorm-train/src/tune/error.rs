//! Studies that cannot be made, resumed or carried out as asked.

use std::path::PathBuf;

use fixnorm_tune::space::SpaceError;

/// A study that cannot be made, resumed or carried out as asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StudyError {
    /// Seeds beyond what a plan can hold.
    #[error("train.seed = {first}: the seeds of {count} runs go beyond {}", i64::MAX)]
    Seeds {
        /// The first seed.
        first: u64,
        /// Number of seeds.
        count: u64,
    },
    /// Resumed with another recipe.
    #[error("the study {} was started with another plan: {}; resume it without changes, or name another file with --study", path.display(), changes.join("; "))]
    PlanChanged {
        /// The study.
        path: PathBuf,
        /// Key, old and new value.
        changes: Vec<String>,
    },
    /// A study of other knobs than fixnorm's.
    #[error("the study {} tunes other knobs than a recipe's", .0.display())]
    ForeignKnobs(PathBuf),
    /// A plan that this version cannot read.
    #[error("the study's plan: {0}")]
    Plan(String),
    /// A range for a knob that is not tuned.
    #[error("--{flag} is for --space {space}; this study tunes {tuned}")]
    OtherKnob {
        /// The flag.
        flag: &'static str,
        /// The space that has it.
        space: &'static str,
        /// The knob that is tuned.
        tuned: &'static str,
    },
    /// Rounds or repeats, asked of a search that has none.
    #[error(
        "--{0} is for the two-knob search; the others propose a new setting whenever a process asks"
    )]
    TwoKnobOnly(&'static str),
    /// A table without counts.
    #[error("a table needs --{} LOW:HIGH:COUNT and --{} LOW:HIGH:COUNT", .0[0], .0[1])]
    NoTable([&'static str; 2]),
    /// A range that no search takes.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The head's norm is not controlled.
    #[error(
        "head.alpha has no effect unless head.control is fixed or capped; tune weight decay with --space lr-wd"
    )]
    AlphaHasNoEffect,
    /// An angle is to be tuned where the learning rate is none.
    #[error(
        "the learning rate is an angle under the angular step rule alone: set optimizer.step_rule=angular, or tune the \
         learning rate as it is with --space lr-alpha"
    )]
    NoAngle,
    /// Weight decay on norms that are held.
    #[error(
        "weight decay has no effect on norms that are held: set optimizer.constraint=free and head.control=free"
    )]
    DecayHasNoEffect,
    /// Features from which no head can be sized.
    #[error(
        "the features' norm is {0}, so the head's norm cannot be estimated; name a start with --start"
    )]
    FeatureNorm(f64),
    /// A range probe without a learning rate that works.
    #[error("the range probe diverged at its smallest learning rate; name a start with --start")]
    ProbeDiverged,
}
