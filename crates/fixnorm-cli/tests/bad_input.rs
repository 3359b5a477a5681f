//! Bad input: one clear line, the right exit code, nothing half-written.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Said, data, run, small_run};

/// One line on stderr that has `parts`, nothing on stdout, this exit code, and no run directory.
fn refused(dir: &Path, said: &Said, code: i32, parts: &[&str]) {
    assert_eq!(said.code, Some(code), "{said:?}");
    assert_eq!(said.stdout, "");
    assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    for part in parts {
        assert!(said.stderr.contains(part), "{said:?} lacks {part:?}");
    }
    assert!(!dir.join("out").exists());
}

#[test]
fn data_files_that_are_missing_or_broken() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let images = data(dir, "data").join("train-images-idx3-ubyte");
    let labels = dir.join("data/train-labels-idx1-ubyte");
    let (whole_images, whole_labels) = (fs::read(&images).unwrap(), fs::read(&labels).unwrap());
    let train = || run(dir, &small_run("out", &[]));

    fs::write(&images, &whole_images[..5000]).unwrap();
    refused(dir, &train(), 1, &["train-images-idx3-ubyte", "expected 36000 values", "found 4984"]);
    fs::remove_file(&images).unwrap();
    refused(dir, &train(), 1, &["cannot read", "train-images-idx3-ubyte"]);
    fs::write(&images, &whole_images).unwrap();

    let test_labels = dir.join("data/t10k-labels-idx1-ubyte");
    let mut bad = fs::read(&test_labels).unwrap();
    *bad.last_mut().unwrap() = 200;
    fs::write(&test_labels, &bad).unwrap();
    refused(dir, &train(), 1, &["label 200 of image 39 is out of range, there are 4 classes"]);
    fs::write(&labels, &whole_labels[..100]).unwrap();
    refused(dir, &train(), 1, &["train-labels-idx1-ubyte", "expected 360 values", "found 92"]);
    refused(
        dir,
        &run(dir, &["train", "--out", "out", "--data", "idx:nowhere"]),
        1,
        &["cannot read nowhere"],
    );
}

#[test]
fn names_that_do_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let train = |more: &[&str]| run(dir, &[&["train", "--out", "out"], more].concat());
    refused(
        dir,
        &train(&["--model", "resnet88"]),
        2,
        &["unknown model `resnet88`", "did you mean `resnet8`?"],
    );
    refused(
        dir,
        &train(&["--data", "fashion-mnist-min"]),
        2,
        &["did you mean `fashion-mnist-mini`?"],
    );
    refused(dir, &train(&["--device", "cuda:0"]), 2, &["no device `cuda:0`"]);
    refused(dir, &train(&["--devices", "cpu,abacus"]), 2, &["no device `abacus:0`"]);
    let odd = ["--devices", "cpu,cpu,cpu", "--set", "train.batch_size=16"];
    refused(dir, &train(&odd), 2, &["device cpu,cpu,cpu", "train.batch_size = 16", "3"]);
    refused(
        dir,
        &train(&["--set", "optimizer.momentun=0.8"]),
        2,
        &["did you mean `optimizer.momentum`?"],
    );
    refused(dir, &train(&["--set", "head.alpha=-1"]), 2, &["alpha must be above 0"]);
    refused(dir, &train(&["--set", "optimizer.lr=0"]), 2, &["optimizer.lr must be above 0"]);
    refused(dir, &train(&["--set", "train.dropout=1"]), 2, &["train.dropout must be at least 0"]);
    refused(
        dir,
        &train(&["--model", "shufflenet_v2_x1_0", "--set", "train.drop_path=0.1"]),
        2,
        &["train.drop_path = 0.1", "shufflenet_v2_x1_0 has no shortcuts"],
    );
    refused(dir, &train(&["--set", "roles.stage.*=free"]), 2, &["`stage.*` matches no parameter"]);
    refused(
        dir,
        &train(&["--set", "head.path=fc.wait"]),
        2,
        &["no weight has the path `fc.wait`", "fc.weight"],
    );
    fs::write(dir.join("mine.toml"), "[optimizer]\nlearning_rate = 0.1\n").unwrap();
    let said = train(&["--recipe", "mine.toml"]);
    refused(
        dir,
        &said,
        2,
        &["mine.toml", "unknown key `optimizer.learning_rate`", "`optimizer.lr`"],
    );
    refused(dir, &train(&["--recipe", "none.toml"]), 2, &["none.toml"]);
    refused(dir, &train(&["--recipe", "fashion_resnet"]), 2, &["did you mean `fashion_resnet20`"]);
    refused(dir, &train(&["--init", "none.safetensors"]), 1, &["cannot read none.safetensors"]);
    let large = ["--batch-size", "4000", "--set", "train.accumulate=2"];
    refused(dir, &train(&large), 2, &["8000 is more than the 6000 training images"]);
    // Flags that do not exist are clap's.
    assert_eq!(train(&["--no-such-flag"]).code, Some(2));
}

#[test]
fn directories_that_hold_no_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    refused(dir, &run(dir, &["train", "--resume", "--out", "out"]), 1, &["out holds no run"]);
    fs::write(dir.join("file"), "").unwrap();
    refused(dir, &run(dir, &["train", "--resume", "--out", "file"]), 1, &["file holds no run"]);
    fs::create_dir(dir.join("broken")).unwrap();
    fs::write(dir.join("broken/plan.toml"), "recipe = 3\n").unwrap();
    refused(dir, &run(dir, &["train", "--resume", "--out", "broken"]), 1, &["plan.toml"]);
    assert_eq!(run(dir, &["train", "--resume"]).code, Some(2));
    let two = ["train", "--resume", "one", "--out", "other"];
    refused(dir, &run(dir, &two), 2, &["--resume and --out name two directories"]);
    refused(dir, &run(dir, &["train", "--resume", "out"]), 1, &["out holds no run"]);
    refused(dir, &run(dir, &["train", "--out", "file/below"]), 1, &["cannot create file/below"]);
}

#[test]
fn a_list_of_devices_where_one_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for arguments in [
        &["eval", "--weights", "w", "--data", "fashion-mnist-mini"][..],
        &["predict", "--weights", "w", "a.png"],
        &["inspect", "--model", "resnet8"],
        &["export", "--weights", "w", "-o", "w.onnx"],
        &["migrate", "--wd", "5e-4", "--lr", "0.1"],
        &["bench", "step"],
    ] {
        let said = run(dir, &[arguments, &["--device", "cpu,cpu"]].concat());
        assert_eq!(said.code, Some(2), "{arguments:?} {said:?}");
        assert!(said.stderr.contains("`cpu,cpu` names several devices"), "{said:?}");
    }
    let said = run(dir, &["inspect", "--model", "resnet8", "--device", "cuda:first"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("`cuda:first` is not a device name"), "{said:?}");
}

#[test]
fn old_forms_of_a_recipe_train_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("old.toml"), "[optimizer]\nalpha = 0.8\n[train]\nema_decay = 0.0\n")
        .unwrap();
    let said = run(dir, &["--format", "json", "train", "--recipe", "old.toml", "--dry-run"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for warning in [
        "warning: old.toml: `optimizer.alpha` is now called `optimizer.rms_decay`",
        "warning: old.toml: train.ema_decay = 0.0 is an old form; write train.ema_decay = \"none\"",
    ] {
        assert!(said.stderr.lines().any(|line| line == warning), "{said:?}");
    }
    let recipe =
        &serde_json::from_str::<serde_json::Value>(&said.stdout).unwrap()["plan"]["recipe"];
    assert_eq!(recipe["optimizer"]["rms_decay"], 0.8);
    assert_eq!(recipe["train"]["ema_decay"], "none");
}

#[test]
fn full_disk_leaves_the_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    // A limit on the size of files stands in for a full disk: writing fails half-way.
    let limited = |blocks: &str, arguments: &[&str]| -> Said {
        let script = "trap '' XFSZ; ulimit -f $0; exec \"$@\"";
        let mut command = Command::new("bash");
        command.args(["-c", script, blocks, env!("CARGO_BIN_EXE_fixnorm")]).args(arguments);
        command.current_dir(dir).output().unwrap().into()
    };
    let said = limited("100", &small_run("out", &[]));
    assert_eq!(said.code, Some(1), "{said:?}");
    let error = said.stderr.lines().last().unwrap();
    assert!(error.contains("cannot write out/checkpoints/step-00000003.tmp/model.bpk"), "{said:?}");
    assert_eq!(fs::read_dir(dir.join("out/checkpoints")).unwrap().count(), 0);
    let failure = fs::read_to_string(dir.join("out/failure.json")).unwrap();
    assert!(failure.contains("cannot write") && failure.contains("\"other\""), "{failure}");
    // With room again it resumes.
    let said = run(dir, &["train", "--resume", "out"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!dir.join("out/failure.json").exists());
}

#[test]
fn divergence_names_step_and_norms() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let free = [
        "--set",
        "optimizer.constraint=free",
        "--set",
        "head.control=free",
        "--set",
        "optimizer.lr=1e30",
    ];
    let said = run(dir, &small_run("out", &free));
    assert_eq!(said.code, Some(1), "{said:?}");
    let error = said.stderr.lines().last().unwrap();
    for part in ["diverged at step", "stem.conv.weight", "fc.weight", "Try a smaller optimizer.lr"]
    {
        assert!(error.contains(part), "{error}");
    }
    let failure = fs::read_to_string(dir.join("out/failure.json")).unwrap();
    assert!(failure.contains("\"kind\": \"diverged\""), "{failure}");
    assert!(!dir.join("out/model.safetensors").exists());
    // No checkpoint holds weights of a diverged run.
    assert!(fs::read_dir(dir.join("out/checkpoints")).map_or(0, Iterator::count) == 0);

    // Its log can be read: a report shows it, and settings are not derived from it.
    let step = error.split_once("diverged at step ").unwrap().1.split(':').next().unwrap();
    let said = run(dir, &["report", "out", "-o", "page.html"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let page = fs::read_to_string(dir.join("page.html")).unwrap();
    assert!(page.contains(&format!("diverged at step {step}: the loss is")), "{page}");
    let said = run(dir, &["migrate", "--run", "out"]);
    assert!(said.code == Some(1) && said.stderr.contains("out diverged"), "{said:?}");
}

/// Sets every number of a tensor in a safetensors file.
fn fill(path: &Path, tensor: &str, value: f32) {
    let mut bytes = fs::read(path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let parsed: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let offset = |end: usize| parsed[tensor]["data_offsets"][end].as_u64().unwrap() as usize;
    for number in bytes[header + offset(0)..header + offset(1)].chunks_exact_mut(4) {
        number.copy_from_slice(&value.to_le_bytes());
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn weights_with_a_loss_that_is_not_finite_are_a_diverged_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let said = run(dir, &small_run("good", &[]));
    assert_eq!(said.code, Some(0), "{said:?}");
    fs::copy(dir.join("good/model.safetensors"), dir.join("huge.safetensors")).unwrap();
    fill(&dir.join("huge.safetensors"), "fc.weight", 3e38);
    let more = ["--init", "huge.safetensors", "--set", "head.control=free"];
    let said = run(dir, &small_run("out", &more));
    assert!(said.code == Some(1) && said.stderr.contains("before the first step"), "{said:?}");
    let failure = fs::read_to_string(dir.join("out/failure.json")).unwrap();
    assert!(failure.contains("\"kind\": \"diverged\""), "{failure}");
    let said = run(dir, &["report", "good", "out", "-o", "page.html"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let page = fs::read_to_string(dir.join("page.html")).unwrap();
    assert!(page.contains("before the first step"), "{page}");
}

#[test]
fn files_that_are_neither_images_nor_weights() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let said = run(
        dir,
        &small_run("good", &["--set", "train.epochs=1", "--set", "schedule.warmup_epochs=0"]),
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    fs::write(dir.join("notes.png"), "not an image").unwrap();
    let said = run(dir, &["predict", "--weights", "good", "notes.png"]);
    refused(dir, &said, 1, &["notes.png cannot be decoded"]);
    let said = run(dir, &["predict", "--weights", "good", "none.png"]);
    refused(dir, &said, 1, &["cannot read none.png"]);
    fs::write(dir.join("bad.safetensors"), "nothing").unwrap();
    let said = run(dir, &["eval", "--weights", "bad.safetensors", "--data", "idx:data"]);
    refused(dir, &said, 1, &["bad.safetensors", "not a safetensors file"]);
    let said =
        run(dir, &["eval", "--model", "resnet20", "--weights", "good", "--data", "idx:data"]);
    refused(dir, &said, 2, &["holds weights of resnet8, not of resnet20"]);
    let said = run(dir, &["eval", "--weights", "good", "--data", "fashion-mnist-mini"]);
    refused(dir, &said, 1, &["none of the model's 4", "classes are matched by name"]);
}

#[test]
fn what_cannot_be_written_is_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("file"), "").unwrap();
    // Even data that cannot be read is not looked at before.
    let train = |out: &str| run(dir, &["train", "--data", "idx:nowhere", "--out", out]);
    refused(dir, &train("file"), 1, &["cannot create file"]);
    refused(dir, &train("file/below"), 1, &["cannot create file/below"]);
    let tune = |more: &[&str]| {
        run(dir, &[&["tune", "--set", "data=idx:nowhere", "--trials", "1"], more].concat())
    };
    refused(dir, &tune(&["--study", "file/x.study"]), 1, &["file/x.study"]);
    for flag in ["--out", "--export-csv", "--export-optuna"] {
        let said = tune(&["--study", "x.study", flag, "nowhere/file"]);
        refused(dir, &said, 1, &["cannot write nowhere/file"]);
    }
    refused(
        dir,
        &run(dir, &["export", "--weights", "nowhere", "--out", "none/a.onnx"]),
        1,
        &["cannot write none/a.onnx"],
    );
    refused(
        dir,
        &run(dir, &["dissect", "--set", "data=idx:nowhere", "--out", "file"]),
        1,
        &["cannot create file"],
    );
    if cfg!(target_os = "linux") {
        refused(dir, &train("/proc/run"), 1, &["cannot create /proc/run"]);
        refused(dir, &tune(&["--study", "/proc/x.study"]), 1, &["/proc/x.study"]);
    }
}

#[test]
fn a_start_is_not_measured_for_a_study_that_cannot_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("file"), "").unwrap();
    let said = run(dir, &["tune", "--trials", "1", "--study", "file/x.study"]);
    refused(dir, &said, 1, &["file/x.study"]);
    assert!(!said.stderr.contains("measuring"), "{said:?}");
}

#[test]
fn seeds_beyond_what_a_plan_holds() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for seed in ["9223372036854775808", "18446744073709551615", "99999999999999999999"] {
        let said = run(dir, &["train", "--out", "out", "--seed", seed]);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains("between 0 and 9223372036854775807"), "{said:?}");
        let set = format!("train.seed={seed}");
        let said = run(dir, &["train", "--out", "out", "--set", &set]);
        refused(dir, &said, 2, &["train.seed", seed, "9223372036854775807"]);
    }
    let most = ["train", "--dry-run", "--seed", "9223372036854775807"];
    let said = run(dir, &most);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("seed = 9223372036854775807"), "{said:?}");
    let said = run(
        dir,
        &[
            "tune",
            "--study",
            "s",
            "--set",
            "train.seed=9223372036854775807",
            "--seeds",
            "2",
            "--start",
            ".1,1",
        ],
    );
    refused(dir, &said, 2, &["train.seed = 9223372036854775807", "2 runs"]);
}

#[test]
fn numbers_as_people_write_them() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (flags, part) in [
        (["--set", "optimizer.lr=.1"], "lr = 0.1"),
        (["--set", "optimizer.lr=1."], "lr = 1.0"),
        (["--set", "optimizer.lr=1.e-3"], "lr = 0.001"),
        (["--set", "train.epochs=1e2"], "epochs = 100"),
        (["--epochs", "1_000"], "epochs = 1000"),
        (["--lr", ".5"], "lr = 0.5"),
    ] {
        let said = run(dir, &[&["train", "--dry-run"], &flags[..]].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.stdout.lines().any(|line| line == part), "{part}: {said:?}");
    }
    fs::write(dir.join("r.toml"), "train = 3\n").unwrap();
    let said = run(dir, &["train", "--out", "out", "--recipe", "r.toml"]);
    refused(dir, &said, 2, &["r.toml: `train` is a section, not a key", "train."]);
}
