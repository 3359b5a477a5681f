//! The command on a GPU beside the same command on the CPU. Built with a GPU's backend only, and fails
//! without such a device: `just gpu-check` runs it on a software one.
#![cfg(any(
    feature = "cuda",
    feature = "metal",
    feature = "rocm",
    feature = "vulkan",
    feature = "wgpu"
))]

mod common;

use std::path::Path;

use common::{data, events, json, run, small_run};
use serde_json::Value;

/// The device to test: the first, which is the CPU only where there is no GPU.
fn gpu() -> String {
    let gpu = fixnorm_train::devices().remove(0).to_string();
    assert_ne!(gpu, "cpu", "no GPU, and no software that acts as one");
    gpu
}

/// An epoch of twenty steps into `out`, with this setting: the losses, and the command's document.
fn train(dir: &Path, out: &str, device: &str, setting: &str) -> (Vec<f64>, Value) {
    let flag = if device.contains(',') { "--devices" } else { "--device" };
    // Small steps: at the default rate a ReLU whose input rounds to the other side of zero is 1e-3 of the loss ten steps later,
    // also between the CPU's own two ways.
    let more = ["--epochs", "1", flag, device, "--set", setting, "--set", "optimizer.lr=0.003"];
    let document = json(dir, &small_run(out, &more));
    let losses =
        events(&dir.join(out), "step").iter().map(|step| step["loss"].as_f64().unwrap()).collect();
    (losses, document)
}

/// Twenty losses within `tolerance` of those expected.
fn near(expected: &[f64], found: &[f64], tolerance: f64) {
    assert_eq!((expected.len(), found.len()), (20, 20));
    for (step, (expected, found)) in expected.iter().zip(found).enumerate() {
        println!("step {step}: {expected} on the CPU, {found}");
        let off = (expected - found).abs() / expected;
        // This way round, a NaN fails.
        assert!(off <= tolerance, "step {step}: {expected} on the CPU, {found}");
    }
}

fn val_loss(document: &Value) -> f64 {
    document["val_loss"].as_f64().unwrap()
}

/// Holds twenty steps on the GPU against those on the CPU.
fn compare(precision: &str, tolerance: f64) {
    let (dir, gpu) = (tempfile::tempdir().unwrap(), gpu());
    data(dir.path(), "data");
    let precision = format!("train.precision={precision}");
    let (expected, on_cpu) = train(dir.path(), "cpu", "cpu", &precision);
    let (found, on_gpu) = train(dir.path(), "gpu", &gpu, &precision);
    near(&expected, &found, tolerance);
    let (expected, found) = (val_loss(&on_cpu), val_loss(&on_gpu));
    assert!(
        (expected - found).abs() <= 10.0 * tolerance * expected,
        "validation: {expected}, {found}"
    );

    // Weights that the GPU trained, on the CPU.
    let eval =
        json(dir.path(), &["eval", "--weights", "gpu", "--data", "idx:data", "--device", "cpu"]);
    assert!((val_loss(&eval) - found).abs() <= 10.0 * tolerance * found, "{eval} {on_gpu}");
}

#[test]
fn twenty_steps_are_those_of_the_cpu() {
    compare("f32", 1e-3);
}

#[test]
fn steps_are_shared_with_the_cpu() {
    let (dir, gpu) = (tempfile::tempdir().unwrap(), gpu());
    data(dir.path(), "data");
    let both = format!("{gpu},cpu");
    // Each normalizes its half, or all together. Not against one CPU, whose blocks are others: two that normalize together are
    // 1e-3 from it after ten steps.
    for (name, setting) in
        [("halves", "train.sync_batch_norm=false"), ("together", "train.sync_batch_norm=true")]
    {
        let (expected, on_cpu) = train(dir.path(), name, "cpu,cpu", setting);
        let (found, on_both) = train(dir.path(), &format!("{name}-both"), &both, setting);
        near(&expected, &found, 1e-3);
        let (expected, found) = (val_loss(&on_cpu), val_loss(&on_both));
        assert!((expected - found).abs() <= 1e-2 * expected, "{name}: {expected}, {found}");
    }
}

#[test]
fn sixteen_bits_are_near_or_refused() {
    let (dir, gpu) = (tempfile::tempdir().unwrap(), gpu());
    data(dir.path(), "data");
    let bf16 = ["--set", "train.precision=bf16", "--device", &gpu, "--dry-run"];
    let said = run(dir.path(), &small_run("gpu", &bf16));
    match said.code {
        Some(0) => compare("bf16", 2e-2),
        code => {
            assert_eq!(code, Some(2), "{said:?}");
            assert!(said.stderr.contains(&format!("device {gpu}: it has no bf16")), "{said:?}");
        }
    }
}

#[test]
fn launches_of_a_gpu_and_their_times_are_reported() {
    let (dir, gpu) = (tempfile::tempdir().unwrap(), gpu());
    let options =
        "bench step --model mobilenetv2_100 --batch 2 --res 32 --steps 1 --profile --device";
    let options: Vec<_> = options.split(' ').chain([&gpu[..]]).collect();
    let report = json(dir.path(), &options);
    let launches = report["launches"].as_u64().unwrap();
    // There are 52 convolutions, each with two backward passes. At most 450 are wanted for the whole step.
    assert!((150..=450).contains(&launches), "{report}");
    let kernels = report["kernels"].as_array().unwrap();
    let of_kernels: u64 = kernels.iter().map(|kernel| kernel["launches"].as_u64().unwrap()).sum();
    assert_eq!(of_kernels, launches, "{report}");
    assert!(report["profile"].as_array().unwrap().is_empty(), "{report}");
}
