//! Arguments of `tune`, and the options of a study that they are.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use fixnorm_train::TrainError;
use fixnorm_train::tune::exec::{CommandError, CommandOptions, CommandPlan, Knob, knobs_from_toml};
use fixnorm_train::tune::prune::Prune;
use fixnorm_train::tune::{Knobs, Range, SearchKind, StudyOptions};

use crate::args::{DevicesArg, RecipeArgs};

// The library's types under names that clap can list: it may not implement clap's trait for them itself.

/// A search by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SearchArg(SearchKind);

impl ValueEnum for SearchArg {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [SearchArg; 6] = {
            let [a, b, c, d, e, f] = SearchKind::ALL;
            [SearchArg(a), SearchArg(b), SearchArg(c), SearchArg(d), SearchArg(e), SearchArg(f)]
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()).help(match self.0 {
            SearchKind::TwoKnob => {
                "A model of the surface from earlier tables; starts at a law or from a measurement"
            }
            SearchKind::Halton => "A low-discrepancy sequence",
            SearchKind::Random => "Uniform",
            SearchKind::Tpe => "Tree-structured Parzen estimators",
            SearchKind::Gp => "A Gaussian process with expected improvement",
            SearchKind::Grid => "Every cell of a table; needs ranges with counts",
        }))
    }
}

/// The knobs by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpaceArg(Knobs);

impl ValueEnum for SpaceArg {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [SpaceArg; 3] = {
            let [a, b, c] = Knobs::ALL;
            [SpaceArg(a), SpaceArg(b), SpaceArg(c)]
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()).help(match self.0 {
            Knobs::LrAlpha => "optimizer.lr and head.alpha",
            Knobs::AngleAlpha => {
                "The same where optimizer.step_rule is angular and optimizer.lr an angle in radians"
            }
            Knobs::LrWd => "optimizer.lr and optimizer.weight_decay",
        }))
    }
}

/// When a run is stopped early, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PruneArg(Prune);

impl ValueEnum for PruneArg {
    fn value_variants<'a>() -> &'a [Self] {
        &[PruneArg(Prune::Off), PruneArg(Prune::Median), PruneArg(Prune::Halving)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self.0 {
            Prune::Off => PossibleValue::new("off").help("Never"),
            Prune::Median => PossibleValue::new("median")
                .help("Below the median of the other runs at the same epoch"),
            Prune::Halving => PossibleValue::new("halving")
                .help("Not among the best third at 1/9 and 1/3 of the epochs"),
        })
    }
}

// A flag given twice counts as given last, so that scripts can append.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub(crate) struct TuneArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Trials at most; the two-knob search may stop earlier. A table has as many as it has cells.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    trials: Option<u32>,
    /// Search (default two-knob).
    #[arg(long, value_enum)]
    searcher: Option<SearchArg>,
    /// Knobs (default: weight decay if the recipe has some and holds no norm; otherwise alpha beside an angle if the
    /// recipe's step rule is angular, beside a learning rate if not).
    #[arg(long, value_enum)]
    space: Option<SpaceArg>,
    /// Runs of each trial, with the recipe's seed and those after it (default 1: a search learns more from other settings).
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=100))]
    seeds: Option<u32>,
    /// Trials that the two-knob search proposes at once, for as many processes; the next ones wait for all of them
    /// (default 1).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    parallel: Option<u32>,
    /// Further runs, with other seeds, of the setting that the two-knob search chooses in the end (default 2, or none where
    /// --seeds gives every trial several). They measure the noise between seeds, and the search goes on where it is less
    /// than was assumed.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(..=100))]
    repeats: Option<u32>,
    /// Seed of a random search (default 0).
    #[arg(long, value_name = "N")]
    search_seed: Option<u64>,
    /// Range of optimizer.lr, LOW:HIGH, or LOW:HIGH:COUNT for a table (default: around the start); in radians where
    /// optimizer.step_rule is angular.
    #[arg(long, value_name = "RANGE")]
    lr: Option<Range>,
    /// The same, for a study of angles alone.
    #[arg(long, value_name = "RANGE", conflicts_with = "lr")]
    angle: Option<Range>,
    /// Range of head.alpha (default: a quarter of the start to 16 times; beside an angle a 16th to 8 times).
    #[arg(long, value_name = "RANGE", conflicts_with = "wd")]
    alpha: Option<Range>,
    /// Range of optimizer.weight_decay (default: 1/32 of the start to 32 times).
    #[arg(long, value_name = "RANGE")]
    wd: Option<Range>,
    /// Start of the search as ANGLE,ALPHA, LR,ALPHA or LR,WD. By default an angle starts where the law of docs/tuning.md
    /// expects the best one of a run of this length; other learning rates start from a measurement.
    #[arg(long, value_name = "LR,VALUE", value_parser = pair)]
    start: Option<[f64; 2]>,
    /// When a run is stopped early (default off).
    #[arg(long, value_enum)]
    prune: Option<PruneArg>,
    /// The study: a file that processes of this machine share, or postgres://[USER@]HOST/DATABASE[/NAME] for those of many
    /// machines. An existing one is resumed. A new file under runs/ if left out.
    #[arg(long, value_name = "FILE|URL")]
    pub(crate) study: Option<PathBuf>,
    /// Directory of the runs (default FILE.runs, runs/NAME.runs for a database). Runs that another machine began are
    /// resumed where the machines share it.
    #[arg(long, value_name = "DIR")]
    pub(crate) runs: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) exec: ExecArgs,
    /// Write the recipe with both knobs set to FILE.
    #[arg(short, long, visible_alias = "output", value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write every run as CSV to FILE.
    #[arg(long, value_name = "FILE")]
    pub(crate) export_csv: Option<PathBuf>,
    /// Write the study as an Optuna study (SQLite) to FILE.
    #[arg(long, value_name = "FILE")]
    pub(crate) export_optuna: Option<PathBuf>,
    /// Train nothing; print and export the study.
    #[arg(long, requires = "study")]
    pub(crate) show: bool,
    /// Seconds without a sign of life after which a worker's run passes to another.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) lease: u32,
    #[command(flatten)]
    pub(crate) device: DevicesArg,
}

/// Trials that are a command.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Tune any command instead of a recipe: {lr}, {alpha} and other knobs, {seed}, {trial} and {out} (a directory of the
    /// trial's own, the same when it is tried again) are replaced.
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["recipe", "overrides", "space", "out", "device"])]
    pub(crate) exec: Option<String>,
    /// Let /bin/sh read the command; {lr} is then a variable.
    #[arg(long, requires = "exec")]
    shell: bool,
    /// A knob of the command and its range; may be repeated.
    #[arg(long = "knob", value_name = "NAME=LOW:HIGH[:log]", requires = "exec")]
    knobs: Vec<Knob>,
    /// Knobs in a TOML file, a line NAME = "LOW:HIGH[:log]" for each.
    #[arg(long = "knobs", value_name = "FILE", requires = "exec")]
    knobs_file: Option<PathBuf>,
    /// The score: a key of the JSON lines that the command prints, or a tag of TensorBoard.
    #[arg(long, value_name = "NAME", default_value = "val_top1", requires = "exec")]
    metric: String,
    /// Whether the largest or the smallest value is best.
    #[arg(long, value_enum, default_value_t = GoalArg::Max, requires = "exec")]
    goal: GoalArg,
    /// The key of the step that a value belongs to.
    #[arg(long, value_name = "NAME", default_value = "epoch", requires = "exec")]
    step: String,
    /// Steps of a whole trial, which --prune needs.
    #[arg(long, value_name = "N", requires = "exec")]
    steps: Option<usize>,
    /// Read the score from a file of JSON lines or a directory of TensorBoard events, such as {out}/log.jsonl, instead of
    /// stdout.
    #[arg(long, value_name = "PATH", requires = "exec")]
    read: Option<String>,
    /// Seconds after which a trial has failed.
    #[arg(long, value_name = "SECONDS", value_parser = super::number::float, requires = "exec")]
    timeout: Option<f64>,
    /// The first seed.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = super::number::seed, requires = "exec")]
    first_seed: u64,
}

/// Which values are best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GoalArg {
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

impl TuneArgs {
    /// What is asked of a study of a command.
    ///
    /// # Errors
    /// A file of knobs that cannot be read.
    pub(crate) fn command_options(&self, provenance: String) -> anyhow::Result<CommandOptions> {
        let exec = &self.exec;
        let plan = exec.exec.as_ref().map(|command| CommandPlan {
            exec: command.clone(),
            shell: exec.shell,
            metric: exec.metric.clone(),
            minimize: exec.goal == GoalArg::Min,
            step: exec.step.clone(),
            steps: exec.steps.unwrap_or(0),
            read: exec.read.clone(),
            timeout: exec.timeout,
        });
        let mut knobs = exec.knobs.clone();
        if let Some(file) = &exec.knobs_file {
            let refuse = |message: String| {
                let message = format!("--knobs {}: {message}", file.display());
                TrainError::from(CommandError::Command(message))
            };
            let text = std::fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
            knobs.extend(knobs_from_toml(&text).map_err(refuse)?);
        }
        for (name, range) in [("lr", self.lr), ("alpha", self.alpha), ("wd", self.wd)] {
            let knob = range.map(|range| Knob {
                name: name.to_owned(),
                low: range.low,
                high: range.high,
                log: true,
            });
            knobs.extend(knob);
        }
        Ok(CommandOptions {
            plan,
            knobs,
            search: self.searcher.map(|search| search.0),
            trials: self.trials.map(|trials| trials as usize),
            seeds: self.seeds.map(u64::from),
            first_seed: exec.first_seed,
            parallel: self.parallel.map(|parallel| parallel as usize),
            search_seed: self.search_seed,
            start: self.start,
            prune: self.prune.map(|prune| prune.0),
            provenance,
        })
    }

    /// What is asked of the study.
    pub(crate) fn options(&self) -> StudyOptions {
        StudyOptions {
            search: self.searcher.map(|search| search.0),
            knobs: self.space.map(|space| space.0),
            trials: self.trials.map(|trials| trials as usize),
            seeds: self.seeds.map(u64::from),
            parallel: self.parallel.map(|parallel| parallel as usize),
            repeats: self.repeats.map(|repeats| repeats as usize),
            search_seed: self.search_seed,
            lr: self.lr,
            angle: self.angle,
            alpha: self.alpha,
            wd: self.wd,
            start: self.start,
            prune: self.prune.map(|prune| prune.0),
        }
    }
}

fn pair(given: &str) -> Result<[f64; 2], String> {
    let number = |part: &str| part.trim().parse::<f64>().ok().filter(|x| *x > 0.0 && x.is_finite());
    let both = given.split_once(',').and_then(|(a, b)| Some([number(a)?, number(b)?]));
    both.ok_or_else(|| "expected two numbers above 0, for example 0.2,1.5".to_owned())
}
