//! Making a study of a command and resuming one.

use std::collections::BTreeSet;

use crate::prune::Prune;
use crate::search::{Gp, Many, Method, Search, SearchKind, Strategy, TwoKnob};
use crate::space::{Axis, Space, SpaceError, expected_slope};
use crate::store::{Metric, Place, Store, StoreError, Study};

use super::CommandError;
use super::{CommandPlan, Knob};

/// Trials of a study, unless asked for otherwise.
const TRIALS: usize = 12;

/// Standard deviation between seeds until they have measured it: that of an accuracy on some thousand images.
const NOISE: f64 = 0.005;

/// What is asked of a study of a command. What is left out has a default, or is as the saved study has it.
#[derive(Clone, Debug, Default)]
pub struct CommandOptions {
    /// The command and what is read from it; none to resume a study.
    pub plan: Option<CommandPlan>,
    /// The knobs.
    pub knobs: Vec<Knob>,
    /// The search; by default the two-knob one for the largest value over two knobs in log scale, TPE otherwise.
    pub search: Option<SearchKind>,
    /// Trials at most; by default 12.
    pub trials: Option<usize>,
    /// Runs of each trial; by default 1.
    pub seeds: Option<u64>,
    /// The first seed.
    pub first_seed: u64,
    /// Trials that the two-knob search proposes at once; by default 1.
    pub parallel: Option<usize>,
    /// Decides what a search draws; by default 0.
    pub search_seed: Option<u64>,
    /// Start of the search; by default the middle of the ranges.
    pub start: Option<[f64; 2]>,
    /// When a run is stopped early; by default never.
    pub prune: Option<Prune>,
    /// Program and commit.
    pub provenance: String,
}

/// An open study of a command.
pub struct CommandStudy {
    /// The study.
    pub store: Box<dyn Store>,
    /// What its trials run.
    pub plan: CommandPlan,
}

impl CommandStudy {
    /// The study in an open store, if its trials are a command.
    pub fn of(store: Box<dyn Store>) -> Result<Self, Box<dyn Store>> {
        match CommandPlan::from_toml(&store.study().plan) {
            Some(plan) => Ok(Self { store, plan }),
            None => Err(store),
        }
    }

    /// Opens the study at a place, or makes it there. What is given must agree with a study that is there; only the number
    /// of trials may change.
    ///
    /// # Errors
    /// Options that contradict each other or the study, a place that cannot be written.
    pub fn open_or_create(place: &Place, options: &CommandOptions) -> Result<Self, CommandError> {
        if place.exists()? {
            match place.open() {
                Ok(store) => return Self::resume(place, store, options),
                // Another process is about to fill it.
                Err(StoreError::Empty(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Some(plan) = options.plan.clone() else {
            return Err(StoreError::Empty(place.clone()).into());
        };
        let study = study(&plan, options)?;
        place.probe()?;
        let (store, _) = place.create_or_open(&study)?;
        Ok(Self { store, plan })
    }

    fn resume(
        place: &Place,
        store: Box<dyn Store>,
        options: &CommandOptions,
    ) -> Result<Self, CommandError> {
        let saved = store.study().clone();
        let Ok(Self { store, plan }) = Self::of(store) else {
            let message = "the study is one of a recipe".to_owned();
            return Err(CommandError::Command(message));
        };
        let wanted = Study { trials: options.trials.unwrap_or(saved.trials), ..saved };
        let wanted = match &options.plan {
            Some(asked) => {
                let asked = study(asked, options)?;
                Study {
                    trials: options.trials.unwrap_or(wanted.trials),
                    provenance: wanted.provenance,
                    ..asked
                }
            }
            None => wanted,
        };
        drop(store);
        let (store, _) = place.create_or_open(&wanted)?;
        Ok(Self { store, plan })
    }
}

fn study(plan: &CommandPlan, options: &CommandOptions) -> Result<Study, CommandError> {
    let names: Vec<String> = options.knobs.iter().map(|knob| knob.name.clone()).collect();
    if let Some(twice) = names.iter().find(|name| names.iter().filter(|n| n == name).count() > 1) {
        let message = format!("the knob {twice} has two ranges");
        return Err(CommandError::Command(message));
    }
    plan.check(&names)?;
    let prune = options.prune.unwrap_or_default();
    if prune != Prune::Off && plan.steps == 0 {
        let message = "--prune needs --steps, the steps of a whole trial".to_owned();
        return Err(CommandError::Command(message));
    }
    let (first, count) = (options.first_seed, options.seeds.unwrap_or(1));
    let seeds: BTreeSet<u64> = (0..count).map(|i| first.saturating_add(i)).collect();
    Ok(Study {
        name: plan.exec.clone(),
        search: search(plan, options)?,
        metric: Metric { name: plan.metric.clone(), minimize: plan.minimize },
        trials: options.trials.unwrap_or(TRIALS),
        seeds: seeds.into_iter().collect(),
        all_seeds: false,
        noise: NOISE,
        epochs: plan.steps,
        prune,
        plan: plan.to_toml(),
        provenance: options.provenance.clone(),
    })
}

fn search(plan: &CommandPlan, options: &CommandOptions) -> Result<Strategy, CommandError> {
    let axes: Vec<Axis> = options.knobs.iter().map(Knob::axis).collect();
    let seed = options.search_seed.unwrap_or(0);
    let is_pair = axes.len() == 2 && axes.iter().all(Axis::is_log);
    let default = if is_pair && !plan.minimize { SearchKind::TwoKnob } else { SearchKind::Tpe };
    let kind = options.search.unwrap_or(default);
    if options.parallel.is_some() && kind != SearchKind::TwoKnob {
        return Err(CommandError::Parallel);
    }
    let many = |method| Many::new(axes.clone(), method, seed).map(Strategy::Many);
    Ok(match kind {
        SearchKind::Random => many(Method::Random)?,
        SearchKind::Halton => many(Method::Halton)?,
        SearchKind::Tpe => many(Method::Tpe { startup: axes.len() + 2 })?,
        SearchKind::Grid => {
            let message =
                "a table of a command is not searched: use halton, random or tpe".to_owned();
            return Err(CommandError::Command(message));
        }
        SearchKind::TwoKnob | SearchKind::Gp => {
            let space = pair(&axes, kind)?;
            let start = options.start.map_or_else(|| space.centre(), |start| start.map(f64::log2));
            if kind == SearchKind::Gp {
                let first = options.start.map(|start| start.map(f64::log2));
                return Ok(Search::GpEi(Gp { space, seed, startup: 4, first }).into());
            }
            let two_knob = TwoKnob::new(space, start, NOISE);
            let parallel = options.parallel.unwrap_or(1);
            Search::TwoKnob(TwoKnob { parallel, ..two_knob }).into()
        }
    })
}

/// The space of a search that takes two knobs.
fn pair(axes: &[Axis], kind: SearchKind) -> Result<Space, CommandError> {
    match axes {
        [first, second] if first.is_log() && second.is_log() => {
            let slope = expected_slope([&first.name, &second.name]);
            Ok(Space::new(first.clone(), second.clone())?.with_slope(slope))
        }
        [_, _] => Err(CommandError::Command(format!(
            "the {} search takes two knobs in log scale (--knob NAME=LOW:HIGH:log); tpe, halton and random take others",
            kind.name()
        ))),
        [] => Err(CommandError::Space(SpaceError::Knobs { found: 0, most: 2 })),
        _ => Err(CommandError::Command(format!(
            "the {} search takes two knobs, found {}; tpe, halton and random take others",
            kind.name(),
            axes.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::tests::plan;
    use super::*;

    fn options(knobs: &[&str], search: Option<SearchKind>) -> CommandOptions {
        let knobs = knobs.iter().map(|knob| knob.parse().unwrap()).collect();
        CommandOptions { knobs, search, ..CommandOptions::default() }
    }

    #[test]
    fn searches_take_the_knobs_they_can() {
        let named = |knobs: &[&str], kind, minimize| {
            let plan = CommandPlan { minimize, ..plan("x {lr}", false) };
            search(&plan, &options(knobs, kind)).map(|search| search.name())
        };
        let pair = ["lr=0.1:1:log", "alpha=1:8:log"];
        let three = ["lr=0.1:1", "b=0:1", "c=0:1"];
        for (knobs, kind, minimize, expected) in [
            (&pair[..], None, false, "two-knob"),
            (&pair, None, true, "tpe"),
            (&pair[..1], None, false, "tpe"),
            (&three, Some(SearchKind::Halton), false, "halton"),
        ] {
            assert_eq!(named(knobs, kind, minimize).unwrap(), expected, "{knobs:?}");
        }
        for (knobs, kind) in [
            (&pair[..1], SearchKind::TwoKnob),
            (&["lr=0.1:1", "alpha=1:8:log"], SearchKind::TwoKnob),
            (&["lr=0.1:1:log", "a=1:8:log", "b=1:2:log"], SearchKind::Gp),
        ] {
            let error = named(knobs, Some(kind), false).unwrap_err().to_string();
            assert!(error.contains("takes two knobs"), "{error}");
        }
    }

    #[test]
    fn a_study_is_resumed_without_its_command_and_not_with_another() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::named(&dir.path().join("s.study")).unwrap();
        let asked = |exec: &str, trials| CommandOptions {
            plan: Some(plan(exec, false)),
            trials,
            ..options(&["lr=0.1:1:log"], None)
        };
        CommandStudy::open_or_create(&place, &asked("x {lr}", None)).unwrap();
        let resumed = CommandStudy::open_or_create(&place, &CommandOptions::default()).unwrap();
        assert_eq!((resumed.plan.exec.as_str(), resumed.store.study().trials), ("x {lr}", 12));
        let more = CommandStudy::open_or_create(&place, &asked("x {lr}", Some(20))).unwrap();
        assert_eq!(more.store.study().trials, 20);
        let kept = CommandStudy::open_or_create(&place, &asked("x {lr}", None)).unwrap();
        assert_eq!(kept.store.study().trials, 20);
        let error = CommandStudy::open_or_create(&place, &asked("y {lr}", None)).err().unwrap();
        assert!(error.is_usage() && error.to_string().contains("y {lr}"), "{error}");
    }
}
