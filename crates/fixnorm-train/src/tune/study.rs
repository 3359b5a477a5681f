//! Making a study and resuming one: which search, which ranges, and what may change between processes.
//! Not here: carrying it out (`worker.rs`), the study's file (`fixnorm-tune`).

use std::path::{Path, PathBuf};

use fixnorm_tune::Search;
use fixnorm_tune::law;
use fixnorm_tune::prune::Prune;
use fixnorm_tune::search::{Gp, Grid, Halton, Random, SearchKind, Strategy, Tpe, TwoKnob};
use fixnorm_tune::space::{Axis, Point, Space, expected_slope};
use fixnorm_tune::store::{Metric, Place, Store, StoreError, Study};

use crate::device::Devices;
use crate::session::Stop;
use crate::tune::StudyError;
use crate::tune::knobs::{Knobs, Range};
use crate::tune::plan::{plan_text, saved_plan};
use crate::tune::start::Start;
use crate::{Plan, Provenance, Recipe, TrainError};

/// Trials of a study, unless asked for otherwise.
const TRIALS: usize = 12;

/// Further runs of the setting that a two-knob search chooses, where a trial has one.
const REPEATS: usize = 2;

/// Random trials before a model proposes; in a budget of few trials the usual ten would leave it none.
const STARTUP: usize = 3;

/// What is asked of a study. What is left out has a default, or is as the saved study has it.
#[derive(Clone, Debug, Default)]
pub struct StudyOptions {
    /// The search; by default the two-knob one.
    pub search: Option<SearchKind>,
    /// The knobs; by default those that the recipe calls for.
    pub knobs: Option<Knobs>,
    /// Trials at most; by default 12, or the cells of a table.
    pub trials: Option<usize>,
    /// Runs of each trial; by default 1.
    pub seeds: Option<u64>,
    /// Trials that the two-knob search proposes at once; by default 1.
    pub parallel: Option<usize>,
    /// Further runs of the setting that the two-knob search chooses; by default 2 where a trial has one, otherwise none.
    pub repeats: Option<usize>,
    /// Decides what a search draws; by default 0.
    pub search_seed: Option<u64>,
    /// Range of the learning rate, in radians where it is an angle; by default around the start.
    pub lr: Option<Range>,
    /// The same, of an angle alone.
    pub angle: Option<Range>,
    /// Range of the head's norm.
    pub alpha: Option<Range>,
    /// Range of weight decay.
    pub wd: Option<Range>,
    /// Start of the search, instead of the law's for an angle, and of measuring it for other learning rates.
    pub start: Option<[f64; 2]>,
    /// When a run is stopped early; by default never.
    pub prune: Option<Prune>,
}

/// The process that asks for a study, and where it trains.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The recipe, if one is named or changed.
    pub recipe: Option<Recipe>,
    /// This program.
    pub made_by: Provenance,
    /// The devices, if named; by default those that began the study, or the best present.
    pub device: Option<Devices>,
    /// Whether runs are to be trained: if not, the devices need not exist.
    pub trains: bool,
}

/// A step on the way to a study.
#[derive(Clone, Copy, Debug)]
pub enum Setup<'a> {
    /// The start of the search is about to be measured.
    Measuring,
    /// The start of the search was measured.
    Measured(&'a Start, Knobs),
    /// The start of the search is the law's.
    Law {
        /// Angle in radians, and α.
        start: [f64; 2],
        /// Optimizer steps of a run.
        steps: usize,
        /// Images of a step.
        batch: usize,
    },
}

/// An open study, with the plan that its trials share.
pub struct OpenStudy {
    /// The study.
    pub store: Box<dyn Store>,
    /// The plan that its trials share.
    pub plan: Plan,
    /// Which keys it tunes.
    pub knobs: Knobs,
}

impl OpenStudy {
    /// Resumes the study in the file `path`. Options and a recipe that are given must agree with the study's; only the number
    /// of trials may change.
    ///
    /// # Errors
    /// No study there, another one, or one that cannot be read.
    pub fn resume(path: &Path, options: &StudyOptions, asker: &Asker) -> Result<Self, TrainError> {
        let place = Place::named(path)?;
        let store = if asker.trains { place.open()? } else { place.open_read_only()? };
        // As it is shown: without a password.
        let path = &PathBuf::from(place.to_string());
        let saved = store.study().clone();
        let knobs = Knobs::of_study(path, &saved)?;
        let mut plan = saved_plan(&saved.plan)?;
        // Seeds are the study's; the plan has everything else.
        plan.recipe.train.seed = saved.seeds.first().copied().unwrap_or(0);
        let began = serde_json::from_str::<Provenance>(&saved.provenance).ok();
        let device = asker.device.clone().or(began.map(|began| began.device));
        plan.made_by.device = device.unwrap_or_default().resolved();
        if asker.trains {
            plan.made_by.device.open()?;
        }
        if let Some(recipe) = &asker.recipe {
            let (asked, _) = Plan::resolve(recipe.clone(), asker.made_by.clone())?;
            let asked = saved_plan(&plan_text(&asked, knobs)?)?;
            let changes = saved_plan(&saved.plan)?.changes(&asked);
            if !changes.is_empty() {
                return Err(StudyError::PlanChanged { path: path.to_owned(), changes }.into());
            }
        }
        check_options(options, &place, &saved, knobs)?;
        if !asker.trains {
            return Ok(Self { store, plan, knobs });
        }
        let trials = options.trials.unwrap_or(saved.trials);
        drop(store);
        let (store, _) = place.create_or_open(&Study { trials, ..saved })?;
        Ok(Self { store, plan, knobs })
    }

    /// Makes a new study in the file `path`; none if stopped while its start was measured.
    ///
    /// # Errors
    /// Options that contradict each other or the recipe, a recipe that cannot be trained, a file that cannot be written.
    pub fn create(
        path: &Path,
        options: &StudyOptions,
        asker: &Asker,
        progress: &mut dyn FnMut(Setup<'_>),
        stop: &Stop,
    ) -> Result<Option<Self>, TrainError> {
        let recipe = asker.recipe.clone().unwrap_or_default();
        let knobs = options.knobs.map_or_else(|| Knobs::of(&recipe), |k| k.under(&recipe));
        knobs.check(&recipe)?;
        // Before the start is measured, which may take minutes.
        let place = Place::named(path)?;
        place.probe()?;
        let (plan, data) = Plan::resolve(recipe, asker.made_by.clone())?;
        let kind = options.search.unwrap_or_default();
        let ranges = [first_range(options, knobs)?, second_range(options, knobs)?];
        if kind != SearchKind::TwoKnob {
            let only = [("parallel", options.parallel), ("repeats", options.repeats)];
            if let Some((flag, _)) = only.into_iter().find(|(_, value)| value.is_some()) {
                return Err(StudyError::TwoKnobOnly(flag).into());
            }
        }
        // Another search than the two-knob one uses the start only for ranges that are not given.
        let is_used = kind == SearchKind::TwoKnob || ranges.contains(&None);
        let start = match options.start {
            Some(start) => Some(start),
            None if !is_used => None,
            None if knobs == Knobs::AngleAlpha => {
                let (steps, batch) = (plan.derived.steps, plan.recipe.train.step_size());
                let features = plan.spec()?.num_features;
                let start = law::start(steps as f64, batch as f64, features).map(f64::exp2);
                progress(Setup::Law { start, steps, batch });
                Some(start)
            }
            None => {
                progress(Setup::Measuring);
                let Some(start) = Start::measure(&plan, &data, knobs, stop)? else {
                    return Ok(None);
                };
                progress(Setup::Measured(&start, knobs));
                Some([start.lr, start.second])
            }
        };
        let space = space(kind, knobs, ranges, start)?;
        let search = search(options, kind, space, start.map(|start| start.map(f64::log2)), &plan);
        let study = study(options, search, &plan, knobs)?;
        // Another process may have made the same one meanwhile.
        let (store, _) = place.create_or_open(&study)?;
        Ok(Some(Self { store, plan, knobs }))
    }
}

fn study(
    options: &StudyOptions,
    search: Search,
    plan: &Plan,
    knobs: Knobs,
) -> Result<Study, TrainError> {
    let is_grid = matches!(search, Search::Grid(_));
    let trials = if is_grid { search.space().lattice(f64::INFINITY).len() } else { TRIALS };
    let (first, count) = (plan.recipe.train.seed, options.seeds.unwrap_or(1));
    // What a plan can hold.
    if first.saturating_add(count.saturating_sub(1)) > i64::MAX as u64 {
        return Err(StudyError::Seeds { first, count }.into());
    }
    let provenance = serde_json::to_string(&plan.made_by).expect("a provenance is plain text");
    Ok(Study {
        name: format!("{} on {}", plan.recipe.model, plan.recipe.data),
        search: search.into(),
        metric: Metric::default(),
        trials: options.trials.unwrap_or(trials),
        seeds: (0..count).map(|i| first + i).collect(),
        all_seeds: is_grid,
        noise: binomial_noise(plan),
        epochs: plan.recipe.train.epochs,
        prune: options.prune.unwrap_or_default(),
        plan: plan_text(plan, knobs)?,
        provenance,
    })
}

/// Standard deviation of an accuracy of 0.9 by the choice of validation images alone. Seeds that share the images differ by
/// less or more; trials with several seeds measure it.
fn binomial_noise(plan: &Plan) -> f64 {
    (0.9 * 0.1 / plan.derived.val_images.max(1) as f64).sqrt()
}

fn check_options(
    options: &StudyOptions,
    place: &Place,
    saved: &Study,
    knobs: Knobs,
) -> Result<(), StoreError> {
    let check = |what, old: String, new: Option<String>| match new {
        Some(new) if new != old => Err(StoreError::Other { place: place.clone(), what, old, new }),
        _ => Ok(()),
    };
    let asked = options.search.map(|kind| kind.name().to_owned());
    check("searcher", saved.search.name().to_owned(), asked)?;
    let seeds = options.seeds.map(|seeds| seeds.to_string());
    check("number of seeds", saved.seeds.len().to_string(), seeds)?;
    if let Strategy::Two(Search::TwoKnob(TwoKnob { parallel, repeats, .. })) = &saved.search {
        check("number of repeats", repeats.to_string(), options.repeats.map(|n| n.to_string()))?;
        check("trials at once", parallel.to_string(), options.parallel.map(|n| n.to_string()))?;
    }
    let prune = options.prune.map(|prune| format!("{prune:?}"));
    check("pruning", format!("{:?}", saved.prune), prune)?;
    // An angle is a learning rate, too.
    let asked =
        options.knobs.filter(|&asked| (asked, knobs) != (Knobs::LrAlpha, Knobs::AngleAlpha));
    check("pair of knobs", knobs.name().to_owned(), asked.map(|asked| asked.name().to_owned()))?;
    let [first, second] = saved.search.axes() else {
        unreachable!("a recipe's study has two knobs")
    };
    let axis =
        |range: Option<Range>, name: &str| range.map(|range| format!("{:?}", range.axis(name)));
    let asked = axis(options.lr, &first.name).or(axis(options.angle, "angle"));
    check("range of the first knob", format!("{first:?}"), asked)?;
    let asked = axis(options.alpha, "alpha").or(axis(options.wd, "wd"));
    check("range of the second knob", format!("{second:?}"), asked)
}

fn first_range(options: &StudyOptions, knobs: Knobs) -> Result<Option<Range>, StudyError> {
    match (knobs, options.angle) {
        (Knobs::AngleAlpha, angle) => Ok(angle.or(options.lr)),
        (_, None) => Ok(options.lr),
        (_, Some(_)) => {
            Err(StudyError::OtherKnob { flag: "angle", space: "angle-alpha", tuned: "lr" })
        }
    }
}

fn second_range(options: &StudyOptions, knobs: Knobs) -> Result<Option<Range>, StudyError> {
    match (knobs, options.alpha, options.wd) {
        (Knobs::LrAlpha | Knobs::AngleAlpha, range, None) | (Knobs::LrWd, None, range) => Ok(range),
        (Knobs::LrAlpha | Knobs::AngleAlpha, _, Some(_)) => {
            Err(StudyError::OtherKnob { flag: "wd", space: "lr-wd", tuned: "alpha" })
        }
        (Knobs::LrWd, Some(_), _) => {
            Err(StudyError::OtherKnob { flag: "alpha", space: "lr-alpha", tuned: "wd" })
        }
    }
}

/// Octaves below and above the start that both knobs are searched over.
fn default_ranges(knobs: Knobs) -> [(f64, f64); 2] {
    match knobs {
        Knobs::LrAlpha => [(5.0, 4.0), (2.0, 4.0)],
        Knobs::AngleAlpha => [(4.0, 4.0), (4.0, 3.0)],
        Knobs::LrWd => [(5.0, 4.0), (5.0, 5.0)],
    }
}

fn space(
    kind: SearchKind,
    knobs: Knobs,
    ranges: [Option<Range>; 2],
    start: Option<[f64; 2]>,
) -> Result<Space, StudyError> {
    let names = knobs.names();
    let [first, second] = [0, 1].map(|i| match ranges[i] {
        Some(range) => range.axis(names[i]),
        None => {
            let at = start.map_or(0.0, |start| start[i].log2());
            let (below, above) = default_ranges(knobs)[i];
            Axis::new(names[i], at - below, at + above)
        }
    });
    let is_table = first.step.is_some() && second.step.is_some();
    if kind == SearchKind::Grid && !is_table {
        return Err(StudyError::NoTable(names));
    }
    Ok(Space::new(first, second)?.with_slope(expected_slope(names)))
}

fn search(
    options: &StudyOptions,
    kind: SearchKind,
    space: Space,
    start: Option<Point>,
    plan: &Plan,
) -> Search {
    let seed = options.search_seed.unwrap_or(0);
    let first = options.start.map(|start| start.map(f64::log2));
    match kind {
        SearchKind::TwoKnob => {
            let start = start.unwrap_or_else(|| space.centre());
            let two_knob = TwoKnob::new(space, start, binomial_noise(plan));
            let repeats = if options.seeds.unwrap_or(1) > 1 { 0 } else { REPEATS };
            Search::TwoKnob(TwoKnob {
                parallel: options.parallel.unwrap_or(1),
                repeats: options.repeats.unwrap_or(repeats),
                ..two_knob
            })
        }
        SearchKind::Halton => Search::Halton(Halton { space, seed }),
        SearchKind::Random => Search::Random(Random { space, seed }),
        SearchKind::Tpe => Search::Tpe(Tpe { space, seed, startup: STARTUP, first }),
        SearchKind::Gp => Search::GpEi(Gp { space, seed, startup: STARTUP, first }),
        SearchKind::Grid => Search::Grid(Grid { space }),
    }
}
