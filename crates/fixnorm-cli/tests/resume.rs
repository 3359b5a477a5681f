//! Nothing is lost: killed, interrupted and resumed runs end with the same bits.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{
    data, events, fixnorm, image_run, image_tree, json, run, sha256, small_run, wait_for_step,
};

/// The whole run without interruption: the SHA-256 of its weights, and its steps' losses.
fn uninterrupted(dir: &Path) -> (String, Vec<(u64, f64)>) {
    let said = run(dir, &small_run("whole", &[]));
    assert_eq!(said.code, Some(0), "{said:?}");
    (sha256(&dir.join("whole/model.safetensors")), losses(&dir.join("whole")))
}

fn losses(run: &Path) -> Vec<(u64, f64)> {
    let steps = events(run, "step");
    steps.iter().map(|e| (e["step"].as_u64().unwrap(), e["loss"].as_f64().unwrap())).collect()
}

fn spawn(dir: &Path, arguments: &[&str]) -> Child {
    fixnorm(dir, arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn killed_five_times_ends_with_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let (expected, expected_losses) = uninterrupted(dir);
    let out = dir.join("killed");
    // Before the first checkpoint, between two, and around the ends of epochs.
    for (attempt, step) in [1, 7, 20, 41, 70].into_iter().enumerate() {
        let first = small_run("killed", &[]);
        let resumed = ["train", "--resume", "--out", "killed"];
        let arguments = if attempt == 0 { &first[..] } else { &resumed[..] };
        let mut child = spawn(dir, arguments);
        wait_for_step(&mut child, &out, step);
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let said = run(dir, &["train", "--resume", "--out", "killed"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(sha256(&out.join("model.safetensors")), expected);
    // Every step is logged once, with the same loss.
    assert_eq!(losses(&out), expected_losses);
    assert_eq!(events(&out, "epoch").len(), 4);
}

/// A run with these settings ends with other weights than one without, and with the same after a kill.
fn resumes_with(settings: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let said = run(dir, &small_run("with", settings));
    assert_eq!(said.code, Some(0), "{said:?}");
    let expected = sha256(&dir.join("with/model.safetensors"));
    assert_ne!(uninterrupted(dir).0, expected);
    let mut child = spawn(dir, &small_run("killed", settings));
    wait_for_step(&mut child, &dir.join("killed"), 31);
    child.kill().unwrap();
    child.wait().unwrap();
    let said = run(dir, &["train", "--resume", "--out", "killed"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(sha256(&dir.join("killed/model.safetensors")), expected);
    assert_eq!(losses(&dir.join("killed")), losses(&dir.join("with")));
    assert_eq!(val_losses(&dir.join("killed")), val_losses(&dir.join("with")));
}

fn val_losses(run: &Path) -> Vec<f64> {
    events(run, "epoch").iter().map(|e| e["val_loss"].as_f64().unwrap()).collect()
}

#[test]
fn what_is_dropped_does_not_depend_on_interruptions() {
    resumes_with(&["--set", "train.dropout=0.3", "--set", "train.drop_path=0.5"]);
}

#[test]
fn accumulated_and_clipped_gradients_do_not_depend_on_interruptions() {
    resumes_with(&["--set", "train.accumulate=2", "--set", "optimizer.clip_norm=0.5"]);
}

#[test]
fn what_several_devices_share_does_not_depend_on_interruptions() {
    resumes_with(&["--devices", "cpu,cpu", "--set", "train.drop_path=0.5"]);
    resumes_with(&["--devices", "cpu,cpu", "--set", "train.sync_batch_norm=true"]);
}

#[test]
fn a_run_may_go_on_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    // Short steps: long ones amplify what each device's own batch statistics change.
    let calm = ["--angle", "0.005", "--device", "cpu"];
    json(dir, &small_run("whole", &calm));
    let expected = losses(&dir.join("whole"));
    let mut child = spawn(dir, &small_run("moved", &calm));
    wait_for_step(&mut child, &dir.join("moved"), 31);
    child.kill().unwrap();
    child.wait().unwrap();
    let said = run(dir, &["train", "--resume", "--out", "moved", "--devices", "cpu,cpu"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let plan = std::fs::read_to_string(dir.join("moved/plan.toml")).unwrap();
    assert!(plan.contains("device = \"cpu,cpu\""), "{plan}");
    let found = losses(&dir.join("moved"));
    assert_eq!(found.len(), expected.len());
    for ((step, found), (_, expected)) in found.iter().zip(expected) {
        // Each device normalizes its own half, so these are near and not the same.
        assert!((found - expected).abs() < 0.5 * expected.max(0.2), "{step}: {found} {expected}");
    }
}

#[test]
fn averaged_weights_do_not_depend_on_interruptions() {
    resumes_with(&["--set", "train.ema_decay=0.95"]);
}

#[test]
fn averaged_weights_are_what_is_validated_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    // An average that all but stands still: training goes on as without it, and results do not.
    let still = ["--set", "train.ema_decay=0.999999", "--set", "train.ema_warmup=false"];
    let said = run(dir, &small_run("still", &still));
    assert_eq!(said.code, Some(0), "{said:?}");
    let (_, expected) = uninterrupted(dir);
    assert_eq!(losses(&dir.join("still")), expected);
    let (still, whole) = (val_losses(&dir.join("still")), val_losses(&dir.join("whole")));
    assert!(still[3] > 2.0 * whole[3], "{still:?} {whole:?}");
    let eval = ["eval", "--weights", "still/model.safetensors", "--data", "idx:data"];
    let said = common::json(dir, &eval);
    let exported = said["val_loss"].as_f64().unwrap();
    assert!((exported - still[3]).abs() < 1e-6 * still[3], "{exported} {still:?}");
}

#[test]
fn signals_save_and_say_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let (expected, _) = uninterrupted(dir);
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut child = spawn(dir, &small_run(signal, &[]));
        let out = dir.join(signal);
        wait_for_step(&mut child, &out, 10);
        let sent =
            Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        let stderr = String::from_utf8(output.stderr).unwrap();
        let command = format!("fixnorm train --resume --out {signal}");
        assert!(stderr.contains(&command), "{stderr}");
        assert_eq!(events(&out, "interrupted").len(), 1);

        let said = run(dir, &["train", "--resume", "--out", signal]);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(sha256(&out.join("model.safetensors")), expected, "{signal}");
    }
}

#[test]
fn number_of_threads_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let (expected, _) = uninterrupted(dir);
    let arguments =
        small_run("other", &["--set", "loader.workers=3", "--set", "loader.prefetch=1"]);
    let done = fixnorm(dir, &arguments).env("RAYON_NUM_THREADS", "3").output().unwrap();
    assert!(done.status.success());
    assert_eq!(sha256(&dir.join("other/model.safetensors")), expected);
}

#[test]
fn changed_plan_is_refused_and_a_finished_run_returns_its_result() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    uninterrupted(dir);
    let said = run(dir, &["train", "--resume", "--out", "whole", "--set", "optimizer.lr=0.5"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("optimizer.lr was 0.02"), "{said:?}");
    assert!(said.stderr.contains(", is 0.5"), "{said:?}");
    let said = run(dir, &small_run("whole", &[]));
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("already holds a run"), "{said:?}");
    // Sections that change no weight may differ.
    let said = run(dir, &["train", "--resume", "--out", "whole", "--set", "loader.workers=2"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("val top-1"), "{said:?}");
}

#[test]
fn second_process_in_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let mut child = spawn(dir, &small_run("shared", &["--set", "train.epochs=400"]));
    wait_for_step(&mut child, &dir.join("shared"), 2);
    let said = run(dir, &["train", "--resume", "--out", "shared"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("another process is training in shared"), "{said:?}");
}

#[test]
fn resumed_run_needs_no_weights_to_start_from() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    uninterrupted(dir);
    let mut child = spawn(dir, &small_run("tuned", &["--init", "whole/model.safetensors"]));
    wait_for_step(&mut child, &dir.join("tuned"), 10);
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(dir.join("whole/model.safetensors")).unwrap();
    let said = run(dir, &["train", "--resume", "--out", "tuned"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// Directories of checkpoints, by name.
fn checkpoints(run: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.starts_with("step-"));
    names.sort();
    names
}

#[test]
fn an_epoch_is_saved_before_its_validation_can_fail() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    image_tree(&dir.join("tree"));
    let bad = dir.join("tree/val/class1/001.png");
    let whole = std::fs::read(&bad).unwrap();
    let train = |out: &str| run(dir, &image_run("folder:tree", out, &[]));
    assert_eq!(train("whole").code, Some(0));
    std::fs::write(&bad, &whole[..whole.len() / 2]).unwrap();
    let said = train("out");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("001.png"), "{said:?}");
    let out = dir.join("out");
    assert_eq!(checkpoints(&out), ["step-00000003"]);
    // With the image repaired it continues with that epoch's validation, to the same weights.
    std::fs::write(&bad, &whole).unwrap();
    let said = run(dir, &["train", "--resume", "--out", "out"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(losses(&out), losses(&dir.join("whole")));
    assert_eq!(val_losses(&out), val_losses(&dir.join("whole")));
    let weights = |run: &str| sha256(&dir.join(run).join("model.safetensors"));
    assert_eq!(weights("out"), weights("whole"));
}

#[test]
fn a_bad_validation_image_can_be_allowed_when_the_run_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    image_tree(&dir.join("tree"));
    std::fs::write(dir.join("tree/val/class1/001.png"), "").unwrap();
    assert_eq!(run(dir, &image_run("folder:tree", "out", &[])).code, Some(1));
    let said = run(dir, &["train", "--resume", "--out", "out", "--set", "loader.max_bad=.5"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(losses(&dir.join("out")).len(), 6);
}

#[test]
fn runs_started_at_once_without_a_directory_each_have_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    image_tree(&dir.join("tree"));
    let arguments = image_run("folder:tree", "unused", &["--epochs", "1"]);
    // Without --out and its value.
    let at = arguments.iter().position(|argument| *argument == "--out").unwrap();
    let arguments = [&arguments[..at], &arguments[at + 2..]].concat();
    let children: Vec<Child> = (0..6).map(|_| spawn(dir, &arguments)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for number in 1..=6 {
        assert!(dir.join(format!("runs/resnet8-folder-{number}/result.json")).exists(), "{number}");
    }
}

/// A small run that is killed in its second epoch.
fn killed(dir: &Path, out: &str) {
    let mut child = spawn(dir, &small_run(out, &[]));
    wait_for_step(&mut child, &dir.join(out), 31);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_is_resumed_where_its_data_moved() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let (expected, expected_losses) = uninterrupted(dir);
    killed(dir, "out");
    std::fs::rename(dir.join("data"), dir.join("moved")).unwrap();
    let said = run(dir, &["train", "--resume", "out"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("name them with --data"), "{said:?}");
    // Other content under that name is refused, also if it has the same sizes.
    let other = data(dir, "other");
    let images = other.join("train-images-idx3-ubyte");
    let mut bytes = std::fs::read(&images).unwrap();
    bytes[16] ^= 1;
    std::fs::write(&images, bytes).unwrap();
    let said = run(dir, &["train", "--resume", "out", "--data", "idx:other"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("data was \"idx:data\", is \"idx:other\""), "{said:?}");

    let said = run(dir, &["train", "--resume", "out", "--data", "idx:moved"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("the data of idx:data are read from idx:moved"), "{said:?}");
    assert_eq!(sha256(&dir.join("out/model.safetensors")), expected);
    assert_eq!(losses(&dir.join("out")), expected_losses);
    // The plan has the new place.
    let plan = std::fs::read_to_string(dir.join("out/plan.toml")).unwrap();
    assert!(plan.contains("data = \"idx:moved\""), "{plan}");
}

#[test]
fn a_finished_or_stopped_run_is_extended() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    // An angle that follows from the number of epochs would be another for the longer run.
    let constant = ["--set", "schedule.shape=constant", "--lr", "0.02"];
    let long = run(dir, &small_run("long", &[&constant[..], &["--epochs", "6"]].concat()));
    assert_eq!(long.code, Some(0), "{long:?}");
    assert_eq!(run(dir, &small_run("out", &constant)).code, Some(0));
    let said = run(dir, &["train", "--resume", "out", "--epochs", "6"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.stderr.contains("extended from 4 to 6 epochs; its schedule (constant)"),
        "{said:?}"
    );
    // Where the schedule does not depend on the number of epochs, it is the longer run.
    assert_eq!(losses(&dir.join("out")), losses(&dir.join("long")));
    assert_eq!(
        sha256(&dir.join("out/model.safetensors")),
        sha256(&dir.join("long/model.safetensors"))
    );
    assert_eq!(events(&dir.join("out"), "end").len(), 1);
    // Fewer epochs are another run; the same again is finished.
    let said = run(dir, &["train", "--resume", "out", "--epochs", "5"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert_eq!(run(dir, &["train", "--resume", "out"]).code, Some(0));

    killed(dir, "stopped");
    let said = run(dir, &["train", "--resume", "stopped", "--epochs", "5"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.stderr.contains("schedule (cosine)") && said.stderr.contains("learning rate of step"),
        "{said:?}"
    );
    assert_eq!(events(&dir.join("stopped"), "epoch").len(), 5);
}

#[test]
fn another_subset_of_the_data_is_another_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let on = |data: &str, more: &[&str]| {
        let data = format!("data={data}");
        run(dir, &small_run("out", &[&["--set", data.as_str()][..], more].concat()))
    };
    let subset = "idx:data?per_class=20&wrong_labels=0.25";
    assert_eq!(on(subset, &[]).code, Some(0));
    let summary = std::fs::read_to_string(dir.join("out/summary.csv")).unwrap();
    let epochs: Vec<&str> = summary.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(epochs, ["epoch", "0", "1", "2", "3"]);
    assert!(on(subset, &["--resume"]).code == Some(0));
    for other in [
        "idx:data?per_class=19&wrong_labels=0.25",
        "idx:data?per_class=20",
        "idx:data?per_class=20&wrong_labels=0.25&wrong_labels_seed=1",
        "idx:data?per_class=20&wrong_labels=0.25&subset_seed=1",
        "idx:data",
    ] {
        let said = on(other, &["--resume"]);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains("data was"), "{said:?}");
    }
    // The images that were trained on, with the labels that they were trained with.
    let found = json(dir, &["eval", "--weights", "out", "--data", subset, "--split", "train"]);
    assert_eq!(found["count"], 80);
}
