//! Classes belong to weights by name: evaluation, initialization and resuming match names, or refuse.

mod common;

use std::fs;
use std::path::Path;

use common::{image_file, image_run, json, run};

/// Images of these classes; each class looks the same in every tree: by its `kind`, 0 to 3.
fn tree(root: &Path, splits: &[(&str, usize)], classes: &[(&str, usize)]) {
    for (split, count) in splits {
        for (name, kind) in classes {
            for i in 0..*count {
                let path = root.join(split).join(name).join(format!("{i:03}.png"));
                image_file(&path, 4 * (i + 31 * split.len()) + kind);
            }
        }
    }
}

const KNOWN: [(&str, usize); 3] = [("cat", 0), ("dog", 1), ("fox", 2)];

/// Weights in `w` that know cats, dogs and foxes; validation accuracy is high.
fn trained(dir: &Path) {
    tree(&dir.join("d"), &[("train", 24), ("val", 8)], &KNOWN);
    let summary = json(
        dir,
        &image_run("folder:d", "w", &["--epochs", "12", "--set", "optimizer.step_rule=raw"]),
    );
    assert!(summary["val_top1"].as_f64().unwrap() > 0.9, "{summary}");
}

fn top1(dir: &Path, data: &str, more: &[&str]) -> (f64, u64) {
    let found = json(dir, &[&["eval", "--weights", "w", "--data", data], more].concat());
    (found["val_top1"].as_f64().unwrap(), found["count"].as_u64().unwrap())
}

#[test]
fn evaluation_matches_classes_by_name_or_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    trained(dir);
    let (all, count) = top1(dir, "folder:d", &[]);
    assert_eq!(count, 24);

    // As many classes, and others.
    let others = [("dog", 1), ("fox", 2), ("wolf", 3)];
    tree(&dir.join("e"), &[("train", 24), ("val", 8)], &others);
    let said = run(dir, &["eval", "--weights", "w", "--data", "folder:e"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("wolf") && said.stderr.contains("matched by name"), "{said:?}");
    assert_eq!(said.stdout, "");
    let said = run(dir, &["inspect", "--weights", "w", "--data", "folder:e"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("wolf"), "{said:?}");

    // A subset, whose numbers would be others.
    tree(&dir.join("few"), &[("train", 24), ("val", 8)], &KNOWN[1..]);
    let (few, count) = top1(dir, "folder:few", &[]);
    assert_eq!(count, 16);
    assert!(few > 0.8, "{few}");
    let said = run(dir, &["eval", "--weights", "w", "--data", "folder:few"]);
    assert!(said.stderr.contains("2 of the model's 3 classes"), "{said:?}");

    // A directory of validation images alone, and one without splits.
    tree(&dir.join("only"), &[("val", 8)], &KNOWN);
    assert_eq!(top1(dir, "folder:only", &[]), (all, 24));
    assert_eq!(top1(dir, "folder:d/val", &[]), (all, 24));
    let said = run(dir, &["eval", "--weights", "w", "--data", "folder:d/val"]);
    assert!(said.stdout.contains("on 24 pictures"), "{said:?}");

    // A test set, by itself and beside the others.
    tree(&dir.join("test"), &[("test", 5)], &KNOWN);
    assert_eq!(top1(dir, "folder:test", &[]).1, 15);
    tree(&dir.join("d"), &[("test", 5)], &KNOWN);
    assert_eq!(top1(dir, "folder:d", &["--split", "test"]).1, 15);
    assert_eq!(top1(dir, "folder:d", &["--split", "train"]).1, 72);
    let said = run(dir, &["eval", "--weights", "w", "--data", "folder:d", "--split", "night"]);
    assert_eq!(said.code, Some(2), "{said:?}");
}

#[test]
fn a_final_layer_is_kept_only_for_the_same_classes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    trained(dir);
    let start = |data: &str, out: &str| {
        let said = run(dir, &image_run(data, out, &["--init", "w", "--epochs", "1"]));
        assert_eq!(said.code, Some(0), "{said:?}");
        said.stderr
    };
    assert!(!start("folder:d", "same").contains("final layer"));
    let others = [("dog", 1), ("fox", 2), ("wolf", 3)];
    tree(&dir.join("e"), &[("train", 24), ("val", 8)], &others);
    let stderr = start("folder:e", "others");
    assert!(stderr.contains("the final layer is new; the weights have other classes"), "{stderr}");
    // Fewer and more classes are others, too.
    tree(&dir.join("few"), &[("train", 24), ("val", 8)], &KNOWN[1..]);
    assert!(start("folder:few", "few").contains("the final layer is new"));
    let more = [&KNOWN[..], &[("wolf", 3)]].concat();
    tree(&dir.join("more"), &[("train", 24), ("val", 8)], &more);
    assert!(start("folder:more", "more").contains("the final layer is new"));
    // A dry run says it, too.
    let said = run(
        dir,
        &[
            "train",
            "--dry-run",
            "--data",
            "folder:e",
            "--init",
            "w",
            "--set",
            "train.batch_size=16",
            "--set",
            "train.resolution=10",
        ],
    );
    assert!(said.stderr.contains("the final layer is new"), "{said:?}");
}

#[test]
fn a_run_is_not_resumed_with_other_classes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    trained(dir);
    fs::remove_file(dir.join("w/result.json")).unwrap();
    for split in ["train", "val"] {
        fs::rename(dir.join("d").join(split).join("cat"), dir.join("d").join(split).join("wolf"))
            .unwrap();
    }
    let said = run(dir, &["train", "--resume", "w"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("the data of folder:d have changed"), "{said:?}");
}

#[test]
fn the_summary_of_the_data_is_printed_before_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tree(&dir.join("d"), &[("Training", 24), ("Validation", 8)], &KNOWN);
    let said = run(dir, &image_run("folder:d", "w", &["--epochs", "1"]));
    assert_eq!(said.code, Some(0), "{said:?}");
    let first = said.stderr.lines().next().unwrap();
    for part in [
        "72 training images (Training)",
        "24 validation images (Validation)",
        "3 classes (cat, dog, fox)",
    ] {
        assert!(first.contains(part), "{first}");
    }
}
