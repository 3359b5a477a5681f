//! Runs the command, and makes small data for it.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The command with these arguments, its working directory apart from the repository.
pub(crate) fn fixnorm(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fixnorm"));
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    // Not the user's: a test leaves nothing behind, and finds nothing of another's.
    command.env("FIXNORM_CACHE", dir.join(".cache"));
    command
}

/// The output of a finished command.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Said {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Said {
    fixnorm(dir, arguments).output().unwrap().into()
}

/// The JSON document of a command that must succeed.
pub(crate) fn json(dir: &Path, arguments: &[&str]) -> Value {
    let mut all = vec!["--format", "json"];
    all.extend(arguments);
    let said = run(dir, &all);
    assert_eq!(said.code, Some(0), "{said:?}");
    serde_json::from_str(&said.stdout).unwrap()
}

fn idx(shape: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, shape.len() as u8];
    bytes.extend(shape.iter().flat_map(|d| d.to_be_bytes()));
    bytes.extend(values);
    bytes
}

pub(crate) const CLASSES: usize = 4;
const SIDE: usize = 10;

/// Pixels of an image: a bright bar, where its class says, on noise.
pub(crate) fn sample_pixels(index: usize) -> Vec<u8> {
    let class = index % CLASSES;
    let noise = |i: usize| (((index * 100 + i) as u32).wrapping_mul(2_654_435_761) >> 25) as u8;
    let lit = |x: usize, y: usize| match class {
        0 => x < 3,
        1 => x > 6,
        2 => y < 3,
        _ => y > 6,
    };
    let pixel = |i: usize| noise(i) + if lit(i % SIDE, i / SIDE) { 120 } else { 0 };
    (0..SIDE * SIDE).map(pixel).collect()
}

/// A data directory of small images: `name` in `dir`.
pub(crate) fn data(dir: &Path, name: &str) -> PathBuf {
    let dir = dir.join(name);
    fs::create_dir(&dir).unwrap();
    for (part, first, count) in [("train", 0, 360), ("t10k", 360, 40)] {
        let pixels: Vec<u8> = (first..first + count).flat_map(sample_pixels).collect();
        let labels: Vec<u8> = (first..first + count).map(|i| (i % CLASSES) as u8).collect();
        let shape = [count as u32, SIDE as u32, SIDE as u32];
        fs::write(dir.join(format!("{part}-images-idx3-ubyte")), idx(&shape, &pixels)).unwrap();
        fs::write(dir.join(format!("{part}-labels-idx1-ubyte")), idx(&[count as u32], &labels))
            .unwrap();
    }
    dir
}

/// A run of a few seconds on that data; checkpoints come often.
pub(crate) const SMALL_RUN: [&str; 16] = [
    "train",
    "--data",
    "idx:data",
    "--epochs",
    "4",
    "--seed",
    "3",
    "--set",
    "train.batch_size=16",
    "--set",
    "checkpoint.every_steps=3",
    "--set",
    "log.every_steps=1",
    "--set",
    "schedule.warmup_epochs=0.5",
    "--out",
];

/// Arguments of the small run into `out`, with `more` behind them.
pub(crate) fn small_run<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = SMALL_RUN.to_vec();
    arguments.push(out);
    arguments.extend(more);
    arguments
}

pub(crate) fn sha256(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The lines of a run's `metrics.jsonl` of one kind. A last line that a kill cut short is left out.
pub(crate) fn events(run: &Path, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|event| event["event"] == kind).collect()
}

/// The trials of a study's result.
pub(crate) fn trials(result: &Value) -> &Vec<Value> {
    result["trials"].as_array().unwrap()
}

/// Waits until it is done, and fails after two minutes.
pub(crate) fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < deadline, "{what} never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until the run has logged this step, and fails if it ends before.
pub(crate) fn wait_for_step(child: &mut Child, run: &Path, step: u64) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let last = events(run, "step").last().and_then(|event| event["step"].as_u64());
        if last.is_some_and(|last| last >= step) {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "ended before step {step}");
        assert!(Instant::now() < deadline, "step {step} never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A tree of tiny PNG images, 48 to train on and 8 to validate on, in four classes.
pub(crate) fn image_tree(root: &Path) {
    for (part, first, count) in [("train", 0, 48), ("val", 48, 8)] {
        for index in first..first + count {
            let name = format!("class{}", index % CLASSES);
            image_file(
                &root.join(part).join(name).join(format!("{:03}.png", index - first)),
                index,
            );
        }
    }
}

/// One image of [`image_tree`] as a file.
pub(crate) fn image_file(path: &Path, index: usize) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let grey = image::GrayImage::from_raw(SIDE as u32, SIDE as u32, sample_pixels(index)).unwrap();
    grey.save_with_format(path, image::ImageFormat::Png).unwrap();
}

/// A run of a second on such a tree: two epochs of three steps.
pub(crate) fn image_run<'a>(data: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["train", "--model", "resnet8", "--data", data, "--epochs", "2"];
    arguments.extend(["--set", "train.batch_size=16", "--set", "train.resolution=10"]);
    arguments.extend(["--set", "log.every_steps=1", "--set", "schedule.warmup_epochs=0"]);
    arguments.extend(["--out", out]);
    arguments.extend(more);
    arguments
}
