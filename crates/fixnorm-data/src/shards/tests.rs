//! Which shards are read, and which split each belongs to.

use super::*;

fn tree(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    dir
}

fn found(dir: &tempfile::TempDir, pattern: &str) -> [Vec<String>; 3] {
    let shards = find(&dir.path().join(pattern), ".tar").unwrap();
    shards.files.map(|files| {
        let names = files.iter().map(|file| file.strip_prefix(dir.path()).unwrap());
        names.map(|name| name.display().to_string()).collect()
    })
}

fn error(dir: &tempfile::TempDir, pattern: &str) -> String {
    find(&dir.path().join(pattern), ".tar").unwrap_err().to_string()
}

#[test]
fn names_say_what_files_are_for() {
    let names = ["a-train-01.tar", "a-train-00.tar", "a-validation-0.tar", "a-test.tar", "b.txt"];
    let dir = tree(&names);
    let expected =
        [vec!["a-train-00.tar", "a-train-01.tar"], vec!["a-validation-0.tar"], vec!["a-test.tar"]];
    assert_eq!(found(&dir, ""), expected);
    assert_eq!(found(&dir, "a-*.tar"), expected);
    let [train, val, test] = found(&dir, "a-train-00.tar");
    assert_eq!((train.len(), val.len(), test.len()), (1, 0, 0));
    let [train, val, _] = found(&dir, "a-{train,validation}-*.tar");
    assert_eq!((train.len(), val.len()), (2, 1));
}

#[test]
fn words_of_validation_and_test_never_train() {
    for (word, place) in [
        ("dev", 1),
        ("valid", 1),
        ("VAL", 1),
        ("Validation", 1),
        ("valset", 1),
        ("eval", 2),
        ("evaluation", 2),
        ("testing", 2),
        ("Test", 2),
        ("hold-out", 2),
        ("holdout", 2),
    ] {
        let name = format!("x-{word}-0.tar");
        for files in [["x-train-0.tar", &name], ["x-TRAIN-0.tar", &name], ["0.tar", &name]] {
            let found = found(&tree(&files), "");
            assert_eq!((found[0].len(), &found[place]), (1, &vec![name.clone()]), "{files:?}");
        }
    }
}

#[test]
fn directories_are_splits_too() {
    let dir = tree(&["data/Training/0.tar", "data/Training/1.TAR", "data/Testing/0.tar"]);
    let expected =
        [vec!["data/Training/0.tar", "data/Training/1.TAR"], vec![], vec!["data/Testing/0.tar"]];
    assert_eq!(found(&dir, ""), expected);
    assert_eq!(found(&dir, "data"), expected);
    assert_eq!(found(&dir, "data/Training"), expected);
    assert_eq!(found(&dir, "data/Training/0.tar")[2], expected[2]);
    assert_eq!(found(&dir, "data/*/*.tar")[2], expected[2]);
    // The directory in which all of it lies is not one of a split.
    assert_eq!(found(&tree(&["test/x-train-0.tar"]), "test")[0], ["test/x-train-0.tar"]);
    let dir = tree(&["full/train.tar", "small/train.tar"]);
    assert!(error(&dir, "").contains("several directories: full, small; name one"));
    let dir = tree(&["train.tar", "old/train.tar", ".git/x.tar", "__MACOSX/x.tar", "._train.tar"]);
    let shards = find(dir.path(), ".tar").unwrap();
    assert_eq!(shards.of(Split::Train).len(), 1);
    assert!(shards.warnings[0].contains("left out: old"), "{:?}", shards.warnings);
}

#[test]
fn names_that_mean_several_things_are_refused() {
    let dir = tree(&["x-train-0.tar", "x-val-0.tar", "x-dev-0.tar"]);
    assert!(error(&dir, "").contains("both mean validation images"), "{}", error(&dir, ""));
    assert!(error(&dir, "x-train-*.tar").contains("both mean validation images"));
    assert_eq!(found(&dir, "x-{train,dev}-0.tar")[1], ["x-dev-0.tar"]);
    let dir = tree(&["x-train-0.tar", "x-quiz-0.tar"]);
    assert!(error(&dir, "").contains("names mean no split: x-quiz-0.tar"), "{}", error(&dir, ""));
    let dir = tree(&["x-train-test-0.tar"]);
    assert!(error(&dir, "").contains("words for train and for test"), "{}", error(&dir, ""));
}

#[test]
fn the_twin_of_a_training_pattern_validates() {
    let dir = tree(&["d/train/0.tar", "d/train/1.tar", "d/val/0.tar", "d/test/0.tar", "e/0.tar"]);
    assert_eq!(found(&dir, "d/train/*.tar")[1], ["d/val/0.tar"]);
    assert_eq!(found(&dir, "d/train/*.tar")[2], ["d/test/0.tar"]);
    assert_eq!(found(&dir, "d/train")[1], ["d/val/0.tar"]);
    assert_eq!(found(&dir, "d/{train,val}/*.tar")[1], ["d/val/0.tar"]);
    assert_eq!(found(&dir, "e"), [vec!["e/0.tar".to_owned()], vec![], vec![]]);
    // Whatever the word, its letters and how many there are.
    let dir = tree(&["X-TRAIN-0.tar", "X-TRAIN-1.tar", "X-DEV-7.tar", "X-EVAL-12.tar"]);
    let [_, val, test] = found(&dir, "X-TRAIN-{0..1}.tar");
    assert_eq!((val, test), (vec!["X-DEV-7.tar".to_owned()], vec!["X-EVAL-12.tar".to_owned()]));
}

#[test]
fn patterns_that_fit_nothing_are_named() {
    let dir = tree(&["a.tar.xz"]);
    assert!(
        error(&dir, "none-*.tar").contains("none-*.tar fits no .tar file; there are .tar.xz files")
    );
    assert!(error(&dir, "").contains("unpack them"));
    assert!(error(&tree(&["a.txt"]), "").ends_with("fits no .tar file"));
    let error = find(Path::new("a***.tar"), ".tar").unwrap_err().to_string();
    assert!(error.contains("expected a pattern"), "{error}");
}

#[test]
fn every_file_of_a_range_must_be_there() {
    let dir = tree(&["x-train-000.tar", "x-train-001.tar", "x-train-003.tar", "x-val-000.tar"]);
    let said = error(&dir, "x-train-{000..003}.tar");
    assert!(said.contains("1 of 4 are missing: x-train-002.tar"), "{said}");
    let said = error(&dir, "x-{train,test}-*.tar");
    assert!(said.contains("1 of 2 are missing: x-test-*.tar"), "{said}");
    assert_eq!(found(&dir, "x-train-{000..001}.tar")[1], ["x-val-000.tar"]);
}

#[test]
fn files_that_are_missing_by_the_names_of_others_are_a_warning() {
    let dir =
        tree(&["train-00000-of-00003.tar", "train-00002-of-00003.tar", "test-00000-of-00001.tar"]);
    let warnings = find(dir.path(), ".tar").unwrap().warnings;
    assert_eq!(warnings, ["1 file missing by the names of others: train-00001-of-00003.tar"]);
    let whole = tree(&["train-00000-of-00002.tar", "train-00001-of-00002.tar"]);
    assert!(find(whole.path(), ".tar").unwrap().warnings.is_empty());
}

#[test]
fn compressed_tar_files_are_shards_unless_they_are_there_unpacked() {
    let dir = tree(&["x-train-0.tar.gz", "x-train-1.TGZ", "x-val-0.tar.zst", "x-test-0.tzst"]);
    let expected =
        [vec!["x-train-0.tar.gz", "x-train-1.TGZ"], vec!["x-val-0.tar.zst"], vec!["x-test-0.tzst"]];
    assert_eq!(found(&dir, ""), expected);
    assert_eq!(found(&dir, "x-train-*")[1], expected[1]);
    let dir = tree(&["0.tar", "0.tar.gz", "1.tar", "1.tgz", "2.tar.zst"]);
    let shards = find(dir.path(), ".tar").unwrap();
    assert_eq!(found(&dir, "")[0], ["0.tar", "1.tar", "2.tar.zst"]);
    assert_eq!(
        shards.warnings,
        ["2 compressed files left out, unpacked beside them: 0.tar.gz, 1.tgz"]
    );
    // A Parquet file's columns are compressed, not the file.
    assert!(find(&tree(&["a.parquet.gz"]).path().join(""), ".parquet").is_err());
}

#[cfg(not(feature = "object-store"))]
#[test]
fn urls_need_a_build_with_object_stores() {
    for name in ["tar:s3://bucket/x-{0..3}.tar", "parquet:https://host/x.parquet"] {
        let spec: crate::DataSpec = name.parse().unwrap();
        assert_eq!(spec.to_string(), name);
        let error = spec.load().err().unwrap();
        assert!(
            error.is_usage() && error.to_string().contains("--features object-store"),
            "{error}"
        );
    }
}
