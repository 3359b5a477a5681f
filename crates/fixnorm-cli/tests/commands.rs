//! The command's contract: JSON keys, norms after training, and that the parts fit together.

mod common;

use std::fs;
use std::path::Path;

use common::{CLASSES, data, events, json, run, sample_pixels, small_run};
use serde_json::Value;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn write_png(path: &Path, index: usize) {
    let image = image::GrayImage::from_raw(10, 10, sample_pixels(index)).unwrap();
    image.save(path).unwrap();
}

#[test]
fn trained_model_through_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let summary = json(
        dir,
        &small_run(
            "out",
            &[
                "--set",
                "head.alpha=0.7",
                "--set",
                "augment.hflip=0",
                "--epochs",
                "8",
                "--lr",
                "0.02",
            ],
        ),
    );
    for key in [
        "model",
        "data",
        "epochs",
        "steps",
        "seed",
        "train_loss",
        "val_loss",
        "val_top1",
        "val_top5",
        "test_top1",
        "images_per_second",
        "seconds",
        "out",
    ] {
        assert!(keys(&summary).contains(&key), "{key} is missing in {summary}");
    }
    // 330 training images are 20 full batches of 16.
    assert_eq!((summary["steps"].as_u64(), summary["seed"].as_u64()), (Some(160), Some(3)));
    assert!(summary["val_top1"].as_f64().unwrap() > 0.9, "{summary}");
    assert!(summary["test_top1"].as_f64().unwrap() > 0.8, "{summary}");
    let epochs = events(&dir.join("out"), "epoch");
    assert_eq!(epochs.len(), 8);
    for epoch in &epochs {
        let waited = epoch["data_wait"].as_f64().unwrap();
        assert!(waited > 0.0 && waited < 1.0, "{epoch}");
    }

    let eval = json(dir, &["eval", "--model", "resnet8", "--weights", "out", "--data", "idx:data"]);
    assert_eq!(eval["count"], 30);
    assert_eq!(eval["val_top1"], summary["val_top1"]);
    let difference = eval["val_loss"].as_f64().unwrap() - summary["val_loss"].as_f64().unwrap();
    assert!(difference.abs() < 1e-5, "{eval} against {summary}");

    // Every scale-invariant weight at its norm, the head at alpha times the root of the classes.
    let found = json(dir, &["inspect", "--weights", "out/model.safetensors"]);
    let mut scale_invariant = 0;
    for row in found["parameters"].as_array().unwrap() {
        if row["role"] == "scale_invariant" {
            scale_invariant += 1;
            let c_out = row["shape"][0].as_f64().unwrap();
            let norm = row["norm"].as_f64().unwrap();
            assert!((norm / c_out.sqrt() - 1.0).abs() < 1e-5, "{row}");
            let expected = 0.02 / c_out;
            assert!((row["effective_lr"].as_f64().unwrap() / expected - 1.0).abs() < 1e-4, "{row}");
        }
    }
    assert_eq!(scale_invariant, 7);
    assert!((found["head"]["alpha"].as_f64().unwrap() / 0.7 - 1.0).abs() < 1e-5, "{found}");

    let files: Vec<String> = (0..CLASSES).map(|class| format!("{class}.png")).collect();
    files.iter().enumerate().for_each(|(index, file)| write_png(&dir.join(file), 400 + index));
    let mut arguments = vec!["predict", "--weights", "out", "--top", "2", "--logits"];
    arguments.extend(files.iter().map(String::as_str));
    let predictions = json(dir, &arguments);
    let mut right = 0;
    for (class, prediction) in predictions.as_array().unwrap().iter().enumerate() {
        assert_eq!(prediction["file"], format!("{class}.png"));
        assert_eq!(prediction["logits"].as_array().unwrap().len(), CLASSES);
        let top = prediction["top"].as_array().unwrap();
        assert_eq!((top.len(), keys(&top[0])), (2, vec!["class", "name", "probability"]));
        assert!(top[0]["probability"].as_f64() >= top[1]["probability"].as_f64());
        right += usize::from(top[0]["class"] == class as u64);
    }
    assert!(right >= 3, "{predictions}");

    // Fine-tuning starts from the weights.
    let more = [
        "--init",
        "out",
        "--epochs",
        "1",
        "--set",
        "optimizer.radius=init",
        "--set",
        "head.alpha=0.7",
        "--set",
        "augment.hflip=0",
        "--set",
        "optimizer.lr=0.01",
    ];
    let tuned = json(dir, &small_run("tuned", &more));
    assert!(tuned["train_loss"].as_f64() < Some(0.8), "{tuned}");
}

#[test]
fn baselines_train_through_the_same_entry() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let decayed = |kind| format!("optimizer.decay_kind={kind}");
    let (l2, decoupled) = (decayed("l2"), decayed("decoupled"));
    for (name, base, lr, kind) in [
        ("a", "optimizer.base=nesterov", "optimizer.lr=0.05", &l2),
        ("b", "optimizer.base=adamw", "optimizer.lr=0.005", &decoupled),
        ("c", "optimizer.base=rmsprop", "optimizer.lr=0.005", &l2),
    ] {
        let more = [
            "--epochs",
            "3",
            "--set",
            base,
            "--set",
            lr,
            "--set",
            kind,
            "--set",
            "optimizer.constraint=free",
            "--set",
            "head.control=free",
            "--set",
            "optimizer.weight_decay=1e-3",
        ];
        let summary = json(dir, &small_run(name, &more));
        assert!(summary["train_loss"].as_f64() < Some(1.2), "{base}: {summary}");
    }
}

#[test]
fn epochs_without_validation_train_as_those_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let every = json(dir, &small_run("every", &["--epochs", "5"]));
    let more = ["--epochs", "5", "--set", "eval.every_epochs=2"];
    let some = json(dir, &small_run("some", &more));
    for key in ["train_loss", "val_loss", "val_top1", "test_top1"] {
        assert!(some[key].is_number() && some[key] == every[key], "{key}: {some} {every}");
    }
    let epochs = events(&dir.join("some"), "epoch");
    let validated: Vec<_> =
        epochs.iter().filter(|e| e["val_top1"].is_number()).map(|e| e["epoch"].as_u64()).collect();
    assert_eq!((epochs.len(), validated), (5, vec![Some(1), Some(3), Some(4)]));
    let html = run(dir, &["report", "some", "-o", "report.html"]);
    assert_eq!(html.code, Some(0), "{html:?}");

    let never = run(dir, &small_run("never", &["--set", "eval.every_epochs=0"]));
    assert_eq!(never.code, Some(2), "{never:?}");
    assert!(never.stderr.contains("eval.every_epochs must be at least 1"), "{never:?}");
}

#[test]
fn dry_run_shows_plan_and_roles_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let arguments = small_run("out", &["--dry-run", "--set", "roles.stages.2.*.weight=free"]);
    let shown = json(dir, &arguments);
    assert_eq!(shown["plan"]["derived"]["steps"], 80);
    let roles = shown["parameters"].as_array().unwrap();
    let role = |path: &str| roles.iter().find(|row| row["path"] == path).unwrap()["role"].clone();
    assert_eq!(role("stem.conv.weight"), "scale_invariant");
    assert_eq!(role("stages.2.0.Basic.conv1.conv.weight"), "free");
    assert_eq!(role("fc.weight"), "head");
    let estimate = &shown["estimate"];
    assert_eq!(estimate["steps"], 18);
    let (ms, seconds) =
        (estimate["step_ms"].as_f64().unwrap(), estimate["seconds"].as_f64().unwrap());
    assert!(ms > 0.0 && seconds > 80.0 * ms / 1e3, "{estimate}");
    // Three checkpoints of weights and momentum, and the result.
    let params = shown["plan"]["derived"]["params"].as_u64().unwrap();
    assert_eq!(estimate["bytes"], 4 * params * 7);
    let text = run(dir, &arguments).stdout;
    assert!(text.contains("set by the user") && text.contains("steps_per_epoch = 20"), "{text}");
    assert_eq!(fs::read_dir(dir).unwrap().count(), 1);
}

#[test]
fn roles_do_not_depend_on_the_precision() {
    let dir = tempfile::tempdir().unwrap();
    for precision in ["f32", "bf16"] {
        let precision = format!("train.precision={precision}");
        let shown =
            json(dir.path(), &["train", "--dry-run", "--model", "resnet20", "--set", &precision]);
        let roles = shown["parameters"].as_array().unwrap().iter();
        let convolutions: Vec<_> =
            roles.filter(|row| row["path"].as_str().unwrap().ends_with("conv.weight")).collect();
        assert_eq!(convolutions.len(), 19);
        for row in convolutions {
            assert_eq!(row["role"], "scale_invariant", "{precision}: {row}");
        }
    }
}

#[test]
fn images_of_one_size_are_trained_at_their_size_and_evaluated_larger() {
    let dir = tempfile::tempdir().unwrap();
    let shown = json(dir.path(), &["train", "--dry-run", "--set", "eval.resolution=32"]);
    let derived = &shown["plan"]["derived"];
    assert_eq!(derived["picture"], serde_json::json!([32, 32, 1]));
    assert_eq!(shown["plan"]["recipe"]["augment"]["crop"], "padded");
}

#[test]
fn usual_names_of_flags_are_aliases() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["train", "--dry-run", "--lr", "0.3", "--batch-size", "32", "--output", "out"];
    let shown = json(dir.path(), &flags);
    let recipe = &shown["plan"]["recipe"];
    assert_eq!(
        (&recipe["optimizer"]["lr"], &recipe["train"]["batch_size"]),
        (&0.3.into(), &32.into())
    );
    let steps = ["bench", "step", "--batch-size", "8", "--resolution", "9", "--steps", "1"];
    assert_eq!(json(dir.path(), &steps)["batch"], 8);
}

#[test]
fn models_are_counted() {
    let models = json(Path::new("."), &["models"]);
    let first = &models[0];
    assert_eq!(keys(first), ["macs", "name", "params", "resolution"]);
    assert!(
        models
            .as_array()
            .unwrap()
            .iter()
            .any(|model| model["name"] == "resnet20" && model["params"] == 269_722)
    );
    assert!(run(Path::new("."), &["models"]).stdout.contains("resnet8"));
}

#[test]
fn synthetic_data_trains_another_size() {
    let dir = tempfile::tempdir().unwrap();
    let more = [
        "train",
        "--data",
        "synthetic:3x9x7",
        "--epochs",
        "1",
        "--set",
        "train.batch_size=512",
        "--out",
        "o",
    ];
    let summary = json(dir.path(), &more);
    assert_eq!(summary["steps"], 4);
    assert!(summary.get("test_top1").is_none());
}

#[test]
fn recipes_are_listed_shown_and_trained_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let listed = json(dir, &["recipes"]);
    let first = &listed.as_array().unwrap()[0];
    let name = first["name"].as_str().unwrap();
    assert!(keys(first).contains(&"summary"), "{first}");
    let shown = run(dir, &["recipes", name]);
    assert_eq!(shown.code, Some(0));
    let shown = shown.stdout;
    assert_eq!(shown.trim_end(), first["toml"].as_str().unwrap().trim_end());
    assert_eq!(run(dir, &["recipes", "none"]).code, Some(2));

    data(dir, "data");
    let planned = json(dir, &["train", "--recipe", name, "--data", "idx:data", "--dry-run"]);
    let model = planned["plan"]["recipe"]["model"].as_str().unwrap();
    assert!(shown.contains(&format!("model = \"{model}\"")), "{shown}");
    assert_eq!(planned["plan"]["recipe"]["data"], "idx:data");
}
