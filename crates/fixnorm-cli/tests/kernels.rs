//! The same run on other kernels: composed of Burn's operations, without vector instructions, in bf16;
//! and the command that measures them.

mod common;

use std::path::Path;

use common::{Said, data, events, fixnorm, json, small_run};
use fixnorm_kernels::Isa;

/// The losses of 200 steps, with this variable set.
fn losses(dir: &Path, out: &str, variable: Option<(&str, &str)>) -> Vec<f64> {
    let mut command =
        fixnorm(dir, &small_run(out, &["--epochs", "10", "--set", "optimizer.step_rule=raw"]));
    command.envs(variable);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let steps = events(&dir.join(out), "step");
    steps.iter().map(|step| step["loss"].as_f64().unwrap()).collect()
}

#[test]
fn kernels_do_not_change_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let fused = losses(dir, "fused", None);
    assert_eq!(fused.len(), 200);
    for (out, variable) in
        [("composed", ("FIXNORM_BLOCKS", "composed")), ("scalar", ("FIXNORM_ISA", "scalar"))]
    {
        let other = losses(dir, out, Some(variable));
        assert_eq!(other.len(), 200);
        for (step, (a, b)) in fused.iter().zip(&other).enumerate().take(20) {
            assert!((a - b).abs() <= 1e-3 * b, "{out}, step {step}: {a}, {b}");
        }
        // Later steps amplify rounding; the runs still learn the same.
        let tail = |losses: &[f64]| losses[180..].iter().sum::<f64>() / 20.0;
        assert!((tail(&fused) - tail(&other)).abs() < 0.1, "{} {}", tail(&fused), tail(&other));
    }
}

#[test]
fn unknown_kernels_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path(), "data");
    let available: Vec<_> = Isa::available().map(Isa::name).collect();
    // What no processor has, and what this one may lack.
    let names = ["mmx", "neon", "avx2", "avx512", "avx512_bf16", "amx"];
    for name in names.into_iter().filter(|name| !available.contains(name)) {
        let mut command = fixnorm(dir.path(), &small_run("out", &[]));
        let said = Said::from(command.env("FIXNORM_ISA", name).output().unwrap());
        assert_eq!(said.code, Some(2), "{said:?}");
        let expected = [format!("`{name}`"), "FIXNORM_ISA".to_owned(), available.join(", ")];
        assert!(expected.iter().all(|text| said.stderr.contains(text)), "{said:?}");
        assert!(!dir.path().join("out").exists());
    }
    let mut command = fixnorm(dir.path(), &small_run("out", &[]));
    let said = Said::from(command.env("FIXNORM_BLOCKS", "fast").output().unwrap());
    assert_eq!(said.code, Some(2), "{said:?}");
    let expected = ["FIXNORM_BLOCKS", "`fast`", "`fused`", "`composed`"];
    assert!(expected.iter().all(|text| said.stderr.contains(text)), "{said:?}");
    let mut command = fixnorm(dir.path(), &small_run("out", &[]));
    let said = Said::from(command.env("FIXNORM_TUNE", "images=cublas").output().unwrap());
    assert_eq!(said.code, Some(2), "{said:?}");
    let expected = ["FIXNORM_TUNE", "`images=cublas`", "`full`", "simple-mma"];
    assert!(expected.iter().all(|text| said.stderr.contains(text)), "{said:?}");
}

#[test]
fn bf16_trains_to_weights_in_f32() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let more = ["--epochs", "8", "--set", "train.precision=bf16", "--set", "augment.hflip=0"];
    let summary = json(dir, &small_run("out", &more));
    assert!(summary["val_top1"].as_f64().unwrap() > 0.9, "{summary}");
    // `eval` computes in f32: bf16 has not carried the weights somewhere else.
    let eval = json(dir, &["eval", "--weights", "out", "--data", "idx:data"]);
    let difference = eval["val_loss"].as_f64().unwrap() - summary["val_loss"].as_f64().unwrap();
    assert!(difference.abs() < 0.05, "{eval} against {summary}");
}

#[test]
fn bench_step_reports_speed_memory_and_operations() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [
        "bench",
        "step",
        "--batch",
        "4",
        "--res",
        "16",
        "--steps",
        "3",
        "--profile",
        "--threads",
        "1",
    ];
    let report = json(dir.path(), &arguments);
    assert!(report["images_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!((report["steps"].as_u64(), report["threads"].as_u64()), (Some(3), Some(1)));
    if cfg!(target_os = "linux") {
        assert!(report["peak_rss_mib"].as_u64().unwrap() > 0);
    }
    let operations = report["profile"].as_array().unwrap();
    let shares: f64 = operations.iter().map(|op| op["share"].as_f64().unwrap()).sum();
    assert!(shares > 0.1 && shares < 1.01, "{report}");
    assert!(operations.iter().any(|op| op["name"].as_str().unwrap().ends_with("backward")));
}

#[test]
fn bench_optim_reports_steps_beside_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let report = json(dir.path(), &["bench", "optim", "--model", "resnet8", "--steps", "3"]);
    let number = |key: &str| report[key].as_f64().unwrap();
    assert!((number("steps_per_second") - 1e3 / number("step_ms")).abs() < 1e-6, "{report}");
    assert!((number("over_copy") - number("step_ms") / number("copy_ms")).abs() < 1e-6, "{report}");
    // Weight, gradient and velocity are read, weight and velocity written.
    assert_eq!(number("bytes"), 20.0 * number("parameters"));
    let models = json(dir.path(), &["models"]);
    let resnet8 = models.as_array().unwrap().iter().find(|model| model["name"] == "resnet8");
    assert_eq!(resnet8.unwrap()["params"].as_f64().unwrap(), number("parameters"));
}
