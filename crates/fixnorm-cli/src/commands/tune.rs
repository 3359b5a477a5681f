//! `fixnorm tune`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use fixnorm_train::run_dir::write_atomic;
use fixnorm_train::tune::search::{Gp, Grid, Halton, Random, Tpe, TwoKnob};
use fixnorm_train::tune::space::{ALPHA_SLOPE, Axis, Point, Space};
use fixnorm_train::tune::{
    Ended, Knobs, Range, Search, Sqlite, Start, Store, StoreError, Study, Tuned, Worker, plan_text,
    prune::Prune, saved_plan, to_csv, to_optuna, tuned_recipe,
};
use fixnorm_train::{
    Plan, Provenance, Recipe, RecipeBuilder, Stop, TrainError, device, device_name,
};

use crate::args::{Format, PruneArg, SearcherArg, SpaceArg, TuneArgs};
use crate::output;
use crate::run::{interrupted, made_by, recipe, stop_on_signals};
use crate::trials::{self, TrialTable};

/// Trials of a study that does not say.
const TRIALS: usize = 12;

/// Trials at random before a model proposes; with a budget of few trials the usual ten would leave it none.
const STARTUP: usize = 3;

/// A study that is open, and what its trials share.
struct Open {
    store: Sqlite,
    plan: Plan,
    knobs: Knobs,
}

pub(crate) fn run(args: &TuneArgs, format: Format) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signals()?;
    let exists = args.study.as_deref().is_some_and(|path| path.exists());
    let path = args.study.clone().unwrap_or_else(free_study);
    let existing = match exists || args.show {
        true => match reopen(args, &path) {
            // Another process is about to fill it.
            Err(TrainError::Store(StoreError::Empty(_))) if !args.show => None,
            other => Some(other?),
        },
        false => None,
    };
    let opened = match existing {
        Some(open) => Some(open),
        None => create(args, &path, &stop)?,
    };
    let Some(mut open) = opened else {
        eprintln!("stopped before the first trial");
        return Ok(interrupted(&stop));
    };
    let ended = match args.show {
        true => Ended::Done("nothing was trained".to_owned()),
        false => work(&mut open, args, &path, &stop)?,
    };
    finish(&open, args, format)?;
    match ended {
        Ended::Done(reason) => {
            eprintln!("{reason}");
            Ok(ExitCode::SUCCESS)
        }
        Ended::Interrupted => {
            eprintln!("stopped and saved; go on with:\n  fixnorm tune --study {}", path.display());
            Ok(interrupted(&stop))
        }
    }
}

/// The first of runs/tune-1.study, -2, … that is not there yet.
fn free_study() -> PathBuf {
    let name = |number: usize| PathBuf::from(format!("runs/tune-{number}.study"));
    (1..).map(name).find(|path| !path.exists()).expect("there are more numbers than files")
}

/// Where this process trains, unless the study says.
fn device_of(args: &TuneArgs) -> &str {
    args.device.as_deref().unwrap_or("auto")
}

/// The recipe that flags describe.
fn choices(args: &TuneArgs) -> Result<Recipe, TrainError> {
    recipe(RecipeBuilder::new(), args.recipe.as_deref(), Ok, &args.overrides)
}

/// A study that is there: what flags say must be what it has.
fn reopen(args: &TuneArgs, path: &Path) -> Result<Open, TrainError> {
    let store = Sqlite::open(path)?;
    let saved = store.study().clone();
    let knobs = Knobs::of_study(path, &saved)?;
    let mut plan = saved_plan(&saved.plan)?;
    // Seeds are the study's; the plan says everything else.
    plan.recipe.train.seed = saved.seeds.first().copied().unwrap_or(0);
    // Each process has its own device, by default the one that began the study.
    let began = serde_json::from_str::<Provenance>(&saved.provenance);
    let began = began.map_or_else(|_| "auto".to_owned(), |began| began.device);
    plan.made_by.device = device_name(args.device.as_ref().unwrap_or(&began));
    if !args.show {
        device(&plan.made_by.device)?;
    }
    if args.recipe.is_some() || !args.overrides.is_empty() {
        let asked = choices(args)?;
        let (asked, _) = Plan::resolve(asked, made_by(device_of(args)))?;
        let asked = saved_plan(&plan_text(&asked, knobs)?)?;
        let changes = saved_plan(&saved.plan)?.changes(&asked);
        if !changes.is_empty() {
            return Err(TrainError::Knobs(format!(
                "the study {} was started with another plan: {}; go on without changes, or name another file with \
                 --study",
                path.display(),
                changes.join("; ")
            )));
        }
    }
    check_flags(args, path, &saved, knobs)?;
    let trials = args.trials.map_or(saved.trials, |trials| trials as usize);
    drop(store);
    let (store, _) = Sqlite::create_or_open(path, &Study { trials, ..saved })?;
    Ok(Open { store, plan, knobs })
}

fn check_flags(
    args: &TuneArgs,
    path: &Path,
    saved: &Study,
    knobs: Knobs,
) -> Result<(), StoreError> {
    let check = |what, old: String, new: Option<String>| match new {
        Some(new) if new != old => Err(StoreError::Other { path: path.to_owned(), what, old, new }),
        _ => Ok(()),
    };
    let asked = args.searcher.map(|searcher| searcher_name(searcher).to_owned());
    check("searcher", saved.search.name().to_owned(), asked)?;
    check("number of seeds", saved.seeds.len().to_string(), args.seeds.map(|k| k.to_string()))?;
    if let Search::TwoKnob(TwoKnob { parallel, .. }) = &saved.search {
        check("trials at once", parallel.to_string(), args.parallel.map(|n| n.to_string()))?;
    }
    let prune = args.prune.map(|prune| format!("{:?}", to_prune(prune)));
    check("pruning", format!("{:?}", saved.prune), prune)?;
    let space = args.space.map(|space| format!("{:?}", to_knobs(space)));
    check("pair of knobs", format!("{knobs:?}"), space)?;
    let [first, second] = &saved.search.space().axes;
    let axis =
        |range: Option<Range>, name: &str| range.map(|range| format!("{:?}", range.axis(name)));
    check("range of lr", format!("{first:?}"), axis(args.lr, "lr"))?;
    let range = args.alpha.map(|range| (range, "alpha")).or(args.wd.map(|range| (range, "wd")));
    let range = range.map(|(range, name)| format!("{:?}", range.axis(name)));
    check("range of the second knob", format!("{second:?}"), range)
}

fn searcher_name(searcher: SearcherArg) -> &'static str {
    match searcher {
        SearcherArg::TwoKnob => "two-knob",
        SearcherArg::Halton => "halton",
        SearcherArg::Random => "random",
        SearcherArg::Tpe => "tpe",
        SearcherArg::Gp => "gp",
        SearcherArg::Grid => "grid",
    }
}

fn to_prune(prune: PruneArg) -> Prune {
    match prune {
        PruneArg::Off => Prune::Off,
        PruneArg::Median => Prune::Median,
        PruneArg::Halving => Prune::Halving,
    }
}

fn to_knobs(space: SpaceArg) -> Knobs {
    match space {
        SpaceArg::LrAlpha => Knobs::LrAlpha,
        SpaceArg::LrWd => Knobs::LrWd,
    }
}

/// A new study; none if stopped while its start was measured.
fn create(args: &TuneArgs, path: &Path, stop: &Stop) -> anyhow::Result<Option<Open>> {
    let recipe = choices(args)?;
    let knobs = args.space.map_or_else(|| Knobs::of(&recipe), to_knobs);
    knobs.check(&recipe)?;
    let (plan, data) = Plan::resolve(recipe, made_by(device_of(args)))?;
    let searcher = args.searcher.unwrap_or(SearcherArg::TwoKnob);
    let second = second_range(args, knobs)?;
    if args.parallel.is_some() && searcher != SearcherArg::TwoKnob {
        let message =
            "--parallel is for the two-knob search; the others propose whenever a process asks";
        return Err(TrainError::Knobs(message.to_owned()).into());
    }
    let start = match (args.start, args.lr, second, searcher) {
        (Some(start), ..) => Some(start),
        // Nothing of what is measured would be used.
        (None, Some(_), Some(_), searcher) if searcher != SearcherArg::TwoKnob => None,
        _ => {
            eprintln!("measuring where to start");
            let Some(start) = Start::measure(&plan, &data, knobs, stop)? else { return Ok(None) };
            eprintln!("{}", trials::start_line(&start, knobs));
            Some([start.lr, start.second])
        }
    };
    let space = space(args, knobs, second, start)?;
    let search = to_search(args, searcher, space, start.map(|start| start.map(f64::log2)), &plan);
    let is_grid = searcher == SearcherArg::Grid;
    let cells = if is_grid { search.space().lattice(f64::INFINITY).len() } else { TRIALS };
    let first = plan.recipe.train.seed;
    let study = Study {
        name: format!("{} on {}", plan.recipe.model, plan.recipe.data),
        search,
        trials: args.trials.map_or(cells, |trials| trials as usize),
        seeds: (0..u64::from(args.seeds.unwrap_or(1))).map(|i| first + i).collect(),
        all_seeds: is_grid,
        noise: binomial_noise(&plan),
        epochs: plan.recipe.train.epochs,
        prune: args.prune.map_or(Prune::Off, to_prune),
        plan: plan_text(&plan, knobs)?,
        provenance: serde_json::to_string(&plan.made_by)?,
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Another process may have made the same one meanwhile.
    let (store, _) = Sqlite::create_or_open(path, &study).map_err(TrainError::from)?;
    Ok(Some(Open { store, plan, knobs }))
}

/// What the choice of validation pictures alone makes of an accuracy of 0.9. Seeds that share the pictures differ by
/// less or more; trials with several seeds tell.
fn binomial_noise(plan: &Plan) -> f64 {
    (0.9 * 0.1 / plan.derived.val_pictures.max(1) as f64).sqrt()
}

fn second_range(args: &TuneArgs, knobs: Knobs) -> Result<Option<Range>, TrainError> {
    match (knobs, args.alpha, args.wd) {
        (Knobs::LrAlpha, range, None) | (Knobs::LrWd, None, range) => Ok(range),
        (Knobs::LrAlpha, _, Some(_)) => {
            Err(TrainError::Knobs("--wd is for --space lr-wd; this tunes alpha".to_owned()))
        }
        (Knobs::LrWd, Some(_), _) => {
            Err(TrainError::Knobs("--alpha is for --space lr-alpha; this tunes wd".to_owned()))
        }
    }
}

fn space(
    args: &TuneArgs,
    knobs: Knobs,
    second: Option<Range>,
    start: Option<[f64; 2]>,
) -> Result<Space, TrainError> {
    let [first_name, second_name] = knobs.names();
    let around = |index: usize, below: f64, above: f64, name: &str| {
        let at = start.map_or(0.0, |start| start[index].log2());
        Axis::new(name, at - below, at + above)
    };
    let first = match args.lr {
        Some(range) => range.axis(first_name),
        None => around(0, 5.0, 4.0, first_name),
    };
    let second = match (second, knobs) {
        (Some(range), _) => range.axis(second_name),
        (None, Knobs::LrAlpha) => around(1, 2.0, 4.0, second_name),
        (None, Knobs::LrWd) => around(1, 5.0, 5.0, second_name),
    };
    let is_table = first.step.is_some() && second.step.is_some();
    if args.searcher == Some(SearcherArg::Grid) && !is_table {
        return Err(TrainError::Knobs(format!(
            "a table needs --lr LOW:HIGH:COUNT and --{second_name} LOW:HIGH:COUNT"
        )));
    }
    let space = Space::new(first, second).map_err(|error| TrainError::Knobs(error.to_string()))?;
    Ok(match knobs {
        Knobs::LrAlpha => space.with_slope(ALPHA_SLOPE),
        Knobs::LrWd => space,
    })
}

fn to_search(
    args: &TuneArgs,
    searcher: SearcherArg,
    space: Space,
    start: Option<Point>,
    plan: &Plan,
) -> Search {
    let seed = args.search_seed.unwrap_or(0);
    let first = args.start.map(|start| start.map(f64::log2));
    match searcher {
        SearcherArg::TwoKnob => {
            let start = start.unwrap_or_else(|| space.centre());
            let parallel = args.parallel.unwrap_or(1) as usize;
            Search::TwoKnob(TwoKnob {
                parallel,
                ..TwoKnob::new(space, start, binomial_noise(plan))
            })
        }
        SearcherArg::Halton => Search::Halton(Halton { space, seed }),
        SearcherArg::Random => Search::Random(Random { space, seed }),
        SearcherArg::Tpe => Search::Tpe(Tpe { space, seed, startup: STARTUP, first }),
        SearcherArg::Gp => Search::GpEi(Gp { space, seed, startup: STARTUP, first }),
        SearcherArg::Grid => Search::Grid(Grid { space }),
    }
}

fn work(open: &mut Open, args: &TuneArgs, path: &Path, stop: &Stop) -> anyhow::Result<Ended> {
    let mut runs = path.as_os_str().to_owned();
    runs.push(".runs");
    let mut table = TrialTable::new(open.knobs, open.store.study().epochs);
    eprintln!("study {}, runs in {}", path.display(), Path::new(&runs).display());
    let mut worker = Worker {
        store: &mut open.store,
        plan: &open.plan,
        knobs: open.knobs,
        program: std::env::current_exe()?,
        runs: PathBuf::from(runs),
        lease: Duration::from_secs(u64::from(args.lease)),
    };
    Ok(worker.work(&mut table, stop)?)
}

fn finish(open: &Open, args: &TuneArgs, format: Format) -> anyhow::Result<()> {
    let tuned = Tuned::of(&open.store, open.knobs).map_err(TrainError::from)?;
    match format {
        Format::Json => output::json(&tuned.to_json())?,
        Format::Text => trials::print(&tuned)?,
    }
    if let Some(out) = &args.out {
        write_atomic(out, tuned_recipe(&tuned, &open.plan)?.as_bytes())?;
        eprintln!("wrote {}", out.display());
    }
    if let Some(out) = &args.export_csv {
        write_atomic(out, to_csv(&open.store).map_err(TrainError::from)?.as_bytes())?;
        eprintln!("wrote {}", out.display());
    }
    if let Some(out) = &args.export_optuna {
        to_optuna(&open.store, out).map_err(TrainError::from)?;
        eprintln!("wrote {}", out.display());
    }
    Ok(())
}
