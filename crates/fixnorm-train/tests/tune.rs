//! A worker whose trials end in every way a process can. The trials are shell scripts: training has its own tests.
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fixnorm_train::tune::prune::Prune;
use fixnorm_train::tune::search::Halton;
use fixnorm_train::tune::space::{Axis, Space};
use fixnorm_train::tune::{
    Claim, Ended, Knobs, Metric, Place, RecipeJobs, Search, State, Store, Study, TrialRow,
    TuneObserver, Tuned, Worker, plan_text, saved_plan, tuned_recipe,
};
use fixnorm_train::{DeviceName, Plan, Provenance, RecipeBuilder, TrainError};

struct Count(usize);

impl TuneObserver for Count {
    fn changed(&mut self, _trials: &[TrialRow]) {
        self.0 += 1;
    }
}

fn plan() -> Plan {
    let recipe = RecipeBuilder::new().set("train.epochs", 8).unwrap().build().unwrap();
    let made_by = Provenance {
        version: "1".to_owned(),
        commit: "c".to_owned(),
        device: DeviceName::Cpu.into(),
    };
    Plan::resolve(recipe, made_by).unwrap().0
}

fn script(dir: &Path, body: &str) -> PathBuf {
    let path = dir.join("trainer");
    // The arguments begin with: train --while-stdin --out DIR.
    std::fs::write(&path, format!("#!/bin/sh\nout=$4\nmkdir -p \"$out\"\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A study of six trials, `s.study` in `dir`.
fn study(dir: &Path, prune: Prune) -> (Box<dyn Store>, Plan) {
    let plan = plan();
    let space = Space::new(Axis::new("lr", -4.0, 0.0), Axis::new("alpha", -2.0, 4.0)).unwrap();
    let study = Study {
        name: "test".to_owned(),
        search: Search::Halton(Halton { space, seed: 0 }).into(),
        metric: Metric::default(),
        trials: 6,
        seeds: vec![5],
        all_seeds: false,
        noise: 0.01,
        epochs: 8,
        prune,
        plan: plan_text(&plan, Knobs::LrAlpha).unwrap(),
        provenance: String::new(),
    };
    let place = Place::named(&dir.join("s.study")).unwrap();
    let (store, is_new) = place.create_or_open(&study).unwrap();
    assert!(is_new);
    (store, plan)
}

/// Works on a study with a program of `body` instead of ours.
fn work_on(
    dir: &Path,
    store: &mut dyn Store,
    plan: &Plan,
    body: &str,
) -> Result<Ended, TrainError> {
    let jobs = RecipeJobs { plan, knobs: Knobs::LrAlpha, program: script(dir, body) };
    let mut worker =
        Worker { store, jobs: &jobs, runs: dir.join("runs"), lease: Duration::from_secs(60) };
    let mut count = Count(0);
    let ended = worker.work(&mut count, &Arc::default());
    assert!(count.0 > 0);
    Ok(ended?)
}

fn work(dir: &Path, prune: Prune, body: &str) -> (Result<Ended, TrainError>, Box<dyn Store>, Plan) {
    let (mut store, plan) = study(dir, prune);
    let ended = work_on(dir, &mut *store, &plan, body);
    (ended, store, plan)
}

/// `fail KIND MESSAGE` is how a trial says why it fails.
const FAIL: &str = r#"fail() { echo "{\"kind\":\"$1\",\"error\":\"$2\"}" > "$out/failure.json"; }"#;

const RESULT: &str = r#"echo '{"model":"m","data":"d","epochs":8,"steps":8,"seed":5,"train_loss":1,"val_loss":0.5,
"val_top1":0.75,"val_top5":1,"images_per_second":1,"seconds":1,"out":"o"}' > "$out/result.json""#;

#[test]
fn killed_diverged_and_failed_runs_are_results() {
    let dir = tempfile::tempdir().unwrap();
    let body = format!(
        r#"{FAIL}
        case "$out" in
            *trial-000*) kill -9 $$ ;;
            *trial-001*) fail diverged "loss NaN at step 3"; exit 1 ;;
            *trial-002*) fail other "diverged from what a disk holds"; exit 1 ;;
            *trial-003*) exit 0 ;;
        esac
        {RESULT}"#
    );
    let (ended, store, plan) = work(dir.path(), Prune::Off, &body);
    assert!(matches!(ended.unwrap(), Ended::Done(_)));
    let trials = store.trials().unwrap();
    let jobs: Vec<_> = trials.iter().map(|trial| &trial.jobs[0]).collect();
    let reason = |i: usize| jobs[i].reason.clone().unwrap();
    assert!(reason(0).contains("killed") && !jobs[0].diverged, "{}", reason(0));
    assert!(reason(1).contains("step 3") && jobs[1].diverged);
    // Its message says nothing about its kind.
    assert_eq!(reason(2), "diverged from what a disk holds");
    assert!(!jobs[2].diverged);
    assert!(reason(3).contains("without a result"));
    assert_eq!((jobs[4].state, jobs[5].val_top1), (State::Complete, Some(0.75)));

    let tuned = Tuned::of(&*store, Knobs::LrAlpha).unwrap();
    let text = tuned_recipe(&tuned, &plan).unwrap();
    let recipe = RecipeBuilder::new().text(&text, "tuned").unwrap().build().unwrap();
    let (best, _) = tuned.best().unwrap();
    assert_eq!([recipe.optimizer.lr(), recipe.head.alpha()], best);
    assert_eq!(tuned.to_json()["trials"][0]["state"], "failed");
}

#[test]
fn a_recipe_that_cannot_be_trained_ends_the_search() {
    let dir = tempfile::tempdir().unwrap();
    let body = format!("{FAIL}\nfail usage 'no such data'; exit 2");
    let (ended, store, _) = work(dir.path(), Prune::Off, &body);
    assert_eq!(ended.unwrap_err().to_string(), "no such data");
    assert_eq!(store.trials().unwrap()[0].jobs[0].state, State::Waiting);
}

#[test]
fn where_a_dead_workers_process_still_trains_another_directory_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, plan) = study(dir.path(), Prune::Off);
    let claim = store.claim("dead", Duration::ZERO).unwrap();
    assert!(matches!(claim, Claim::Run(_)));
    // As a run directory that is locked, or in which a plan was made after it was looked for.
    let body = format!(
        r#"case "$out" in
            *trial-000-seed-5) echo "error: another process uses $out" >&2; exit 2 ;;
        esac
        {RESULT}"#
    );
    let ended = work_on(dir.path(), &mut *store, &plan, &body);
    assert!(matches!(ended.unwrap(), Ended::Done(_)));
    let trials = store.trials().unwrap();
    assert!(trials.iter().all(|trial| trial.jobs[0].state == State::Complete));
    assert_eq!(trials[0].jobs[0].attempt, 2);
    assert!(dir.path().join("runs/trial-000-seed-5-attempt-2/result.json").exists());
}

#[test]
fn hopeless_runs_are_stopped_and_cost_their_share() {
    let dir = tempfile::tempdir().unwrap();
    let epochs = r#"epoch() { echo "{\"event\":\"epoch\",\"epoch\":$1,\"train_loss\":1,\"val_loss\":1,\"val_top1\":$2}" >> "$out/metrics.jsonl"; }"#;
    let body = format!(
        r#"{epochs}
        case "$out" in
            *trial-005*) for i in 0 1; do epoch $i 0.1; done; exec sleep 60 ;;
            *) for i in 0 1 2 3 4 5 6 7; do epoch $i 0.7; done ;;
        esac
        {RESULT}"#
    );
    let (ended, store, _) = work(dir.path(), Prune::Median, &body);
    assert!(matches!(ended.unwrap(), Ended::Done(_)));
    let trials = store.trials().unwrap();
    let last = &trials[5].jobs[0];
    assert_eq!((last.state, last.cost), (State::Pruned, 0.25));
    assert_eq!(trials[0].jobs[0].curve.len(), 8);
}

#[test]
fn a_saved_plan_has_neither_knobs_nor_seed_nor_version_nor_device() {
    let mut other = plan();
    other.recipe.optimizer.lr = Some(0.7);
    other.recipe.head.alpha = Some(3.0);
    other.recipe.train.seed = 9;
    other.made_by.commit = "another".to_owned();
    other.made_by.device = "another:1".parse().unwrap();
    let text = plan_text(&plan(), Knobs::LrAlpha).unwrap();
    assert_eq!(plan_text(&other, Knobs::LrAlpha).unwrap(), text);
    other.recipe.train.epochs = 9;
    assert_ne!(plan_text(&other, Knobs::LrAlpha).unwrap(), text);
    assert_eq!(saved_plan(&text).unwrap().recipe.train.epochs, 8);
    assert!(saved_plan("model = ").is_err());
}
