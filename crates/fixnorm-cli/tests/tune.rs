//! `fixnorm tune` around real training: shared, killed, interrupted and continued studies.

mod common;

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{data, fixnorm, json, run, trials, wait_until};
use serde_json::Value;

/// A search over runs of a second.
const TUNE: [&str; 20] = [
    "tune",
    "--set",
    "data=idx:data",
    "--set",
    "train.epochs=2",
    "--set",
    "train.batch_size=40",
    "--set",
    "log.measure_every_steps=0",
    "--searcher",
    "halton",
    "--lr",
    "0.05:0.8",
    "--alpha",
    "0.5:4",
    "--trials",
    "6",
    "--lease",
    "2",
    "--study",
];

fn tune<'a>(study: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = TUNE.to_vec();
    arguments.push(study);
    arguments.extend(more);
    arguments
}

/// A process that shares a study; what it says goes to `NAME.log`.
fn worker(dir: &Path, study: &str, name: &str) -> Child {
    let mut command: Command = fixnorm(dir, &tune(study, &[]));
    let log = File::create(dir.join(format!("{name}.log"))).unwrap();
    command.env("RAYON_NUM_THREADS", "1").stdout(Stdio::null()).stderr(log);
    command.spawn().unwrap()
}

/// Runs that have begun.
fn begun(dir: &Path, study: &str) -> usize {
    let entries = std::fs::read_dir(dir.join(format!("{study}.runs")));
    let plans = entries.into_iter().flatten().flatten();
    plans.filter(|entry| entry.path().join("plan.toml").exists()).count()
}

#[test]
fn four_workers_of_which_two_are_killed_give_the_result_of_one() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path(), "data");
    let alone = json(dir.path(), &tune("one.study", &[]));

    let names = ["first", "second", "third", "fourth"];
    let mut workers = names.map(|name| worker(dir.path(), "four.study", name));
    wait_until("a run", || begun(dir.path(), "four.study") >= 2);
    for worker in &mut workers[..2] {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    for (worker, name) in workers.iter_mut().zip(names).skip(2) {
        let status = worker.wait().unwrap();
        let log = || std::fs::read_to_string(dir.path().join(format!("{name}.log")));
        assert!(status.success(), "{name} worker, {status}: {:?}", log());
    }
    let shared = json(dir.path(), &["tune", "--study", "four.study", "--show"]);
    assert_eq!(trials(&shared).len(), 6);
    for (ours, theirs) in trials(&shared).iter().zip(trials(&alone)) {
        assert_eq!(ours["state"], "complete", "{ours}");
        for key in ["lr", "alpha", "val_top1"] {
            assert_eq!(ours[key], theirs[key]);
        }
        assert_eq!(ours["seeds"].as_array().unwrap().len(), 1);
        assert_eq!(ours["seeds"][0]["curve"].as_array().unwrap().len(), 2);
    }
    assert_eq!(shared["best"], alone["best"]);
}

#[test]
fn a_diverged_trial_is_recorded_and_the_search_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path(), "data");
    // At this α the loss of the first steps is beyond what f32 can hold.
    let huge = ["--searcher", "grid", "--lr", "0.1:0.2:2", "--alpha", "1:1e38:2", "--trials", "4"];
    let result = json(dir.path(), &tune("d.study", &huge));
    let states: Vec<&str> = trials(&result).iter().map(|t| t["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["complete", "failed", "complete", "failed"]);
    assert!(result["best"]["alpha"].as_f64().unwrap() < 2.0);
    let failed = &trials(&result)[1]["seeds"][0];
    assert_eq!(failed["diverged"], true, "{failed}");

    json(dir.path(), &["report", "d.study", "-o", "page.html", "--plots", "plots"]);
    let page = std::fs::read_to_string(dir.path().join("page.html")).unwrap();
    for title in
        ["Path of the search", "Measured surface", "Fit along angle", "Accuracy of the trials"]
    {
        assert!(page.contains(&format!("<b>{title}</b>")), "{title}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf<"), "{page}");
    // Two of the four cells have a score.
    let surface =
        std::fs::read_to_string(dir.path().join("plots/03-measured-surface.csv")).unwrap();
    let cells = surface.lines().skip(1).flat_map(|line| line.split(',').skip(1));
    assert_eq!(
        cells.filter(|cell| cell.parse::<f64>().is_ok_and(f64::is_finite)).count(),
        2,
        "{surface}"
    );
    let said = run(dir.path(), &["report", "page.html", "-o", "x.html"]);
    assert!(said.code == Some(1) && said.stderr.contains("page.html is not a study"), "{said:?}");
}

#[test]
fn an_interrupted_study_goes_on_and_writes_a_recipe() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path(), "data");
    let mut first = worker(dir.path(), "s.study", "first");
    wait_until("a run", || begun(dir.path(), "s.study") >= 2);
    let pid = i32::try_from(first.id()).unwrap();
    let killed = Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(first.wait().unwrap().code(), Some(130));

    let other = run(dir.path(), &["tune", "--study", "s.study", "--seeds", "2"]);
    assert_eq!(other.code, Some(2), "{other:?}");
    assert!(other.stderr.contains("another number of seeds"), "{}", other.stderr);

    let more = ["--out", "tuned.toml", "--export-csv", "t.csv", "--export-optuna", "o.db"];
    let mut arguments = vec!["tune", "--study", "s.study"];
    arguments.extend(more);
    let result = json(dir.path(), &arguments);
    assert_eq!(trials(&result).len(), 6);
    assert!(trials(&result).iter().all(|trial| trial["state"] == "complete"));
    let csv = std::fs::read_to_string(dir.path().join("t.csv")).unwrap();
    assert_eq!(csv.lines().count(), 7);
    assert!(dir.path().join("o.db").exists());
    let plan = json(dir.path(), &["train", "--recipe", "tuned.toml", "--dry-run"]);
    let recipe = &plan["plan"]["recipe"];
    assert_eq!(recipe["optimizer"]["lr"], result["best"]["lr"]);
    assert_eq!(recipe["head"]["alpha"], result["best"]["alpha"]);
}

#[test]
fn each_process_of_a_study_has_its_own_device() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path(), "data");
    let device = |trials: &str, more: &[&str]| {
        let mut arguments = tune("own.study", &["--trials", trials]);
        arguments.extend(more);
        json(dir.path(), &arguments);
        let trial = trials.parse::<usize>().unwrap() - 1;
        let plan = dir.path().join(format!("own.study.runs/trial-{trial:03}-seed-0/plan.toml"));
        let plan = std::fs::read_to_string(plan).unwrap();
        let line = plan.lines().find(|line| line.starts_with("device")).unwrap();
        line.to_owned()
    };
    assert_eq!(device("1", &["--device", "cpu,cpu"]), "device = \"cpu,cpu\"");
    assert_eq!(device("2", &["--device", "cpu"]), "device = \"cpu\"");
    // The one that began it.
    assert_eq!(device("3", &[]), "device = \"cpu,cpu\"");
    let said = run(dir.path(), &tune("own.study", &["--trials", "4", "--device", "abacus"]));
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("no device `abacus:0`"), "{said:?}");
}

#[test]
fn angles_start_at_the_law_and_a_study_of_learning_rates_goes_on_as_one() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path(), "data");
    let common = [
        "tune",
        "--set",
        "data=idx:data",
        "--set",
        "train.epochs=1",
        "--set",
        "train.batch_size=40",
    ];
    let with = |more: &[&str]| {
        let mut arguments = common.to_vec();
        arguments.extend(more);
        run(dir.path(), &arguments)
    };
    let angular = ["--set", "optimizer.step_rule=angular"];
    let said = with(
        &[&angular[..], &["--trials", "1", "--study", "a.study", "--format", "json"]].concat(),
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("start: angle") && !said.stderr.contains("measuring"), "{said:?}");
    let result: Value = serde_json::from_str(&said.stdout).unwrap();
    for row in [&result["best"], &trials(&result)[0]] {
        assert_eq!(row["lr"], row["angle"], "{row}");
        assert_eq!(row["alpha"], fixnorm_tune::law::alpha(64), "{row}");
    }
    let plan = std::fs::read_to_string(dir.path().join("a.study.runs/trial-000-seed-0/plan.toml"))
        .unwrap();
    let steps: f64 =
        plan.lines().find_map(|line| line.strip_prefix("steps = ")).unwrap().parse().unwrap();
    let angle = fixnorm_tune::law::angle(steps, 40.0);
    assert!((result["best"]["angle"].as_f64().unwrap() / angle - 1.0).abs() < 1e-9, "{result}");

    // A name for both kinds of learning rates, and the other kind's study.
    let resumed = with(&[&angular[..], &["--study", "a.study", "--space", "lr-alpha"]].concat());
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    let other = with(&["--study", "a.study", "--space", "lr-wd"]);
    let part = "another pair of knobs: it has angle-alpha, this is lr-wd";
    assert!(other.code == Some(2) && other.stderr.contains(part), "{other:?}");
    for (flags, part) in [
        (&["--study", "new.study", "--space", "angle-alpha"][..], "optimizer.step_rule=angular"),
        (
            &["--study", "new.study", "--angle", "0.01:0.1"][..],
            "--angle is for --space angle-alpha",
        ),
        (&["--study", "a.study"][..], "optimizer.step_rule"),
    ] {
        let said = with(&[&["--set", "optimizer.step_rule=raw"], flags].concat());
        assert_eq!(said.code, Some(2), "{flags:?} {said:?}");
        assert!(said.stderr.contains(part), "{flags:?} {}", said.stderr);
        assert!(!said.stderr.contains("measuring"), "{flags:?} {}", said.stderr);
        assert!(!dir.path().join("new.study").exists(), "{flags:?}");
    }
}

#[test]
fn the_start_is_measured_and_wrong_flags_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path(), "data");
    let two_knob = [
        "tune",
        "--set",
        "data=idx:data",
        "--set",
        "train.epochs=1",
        "--set",
        "train.batch_size=40",
        "--set",
        "optimizer.step_rule=raw",
        "--trials",
        "2",
        "--study",
        "t.study",
    ];
    let result = json(dir.path(), &two_knob);
    assert_eq!(trials(&result).len(), 2);
    for (flags, part) in [
        (&["--lr", "2:1"][..], "LOW:HIGH"),
        (&["--searcher", "grid"][..], "--lr LOW:HIGH:COUNT"),
        (&["--wd", "1e-5:1e-3"][..], "--space lr-wd"),
        (&["--space", "lr-wd"][..], "optimizer.constraint=free"),
        (&["--set", "model=resnet9"][..], "resnet"),
        (&["--start", "1"][..], "two numbers"),
        (&["--searcher", "halton", "--parallel", "2"][..], "two-knob search"),
    ] {
        let mut arguments = two_knob[..11].to_vec();
        arguments.extend(["--study", "new.study"]);
        arguments.extend(flags);
        let said = run(dir.path(), &arguments);
        assert_eq!(said.code, Some(2), "{flags:?} {said:?}");
        assert!(said.stderr.contains(part), "{flags:?} {}", said.stderr);
    }
    std::fs::write(dir.path().join("torn.study"), "SQLite format 3\0 and then nothing").unwrap();
    let said = run(dir.path(), &["tune", "--study", "torn.study"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("torn.study"), "{}", said.stderr);
}
