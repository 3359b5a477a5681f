//! Trees of image files: trained on, in another form too, checked; broken files skipped, listed, and no
//! danger to memory.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{
    CLASSES, Said, events, fixnorm, image_run, image_tree, json, run, sample_pixels, sha256,
    wait_for_step,
};
use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use serde_json::Value;

const TRAIN: usize = 190;
const VAL: usize = 40;

fn jpeg(index: usize) -> Vec<u8> {
    let grey = image::GrayImage::from_raw(10, 10, sample_pixels(index)).unwrap();
    let mut bytes = vec![];
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95).encode_image(&grey).unwrap();
    bytes
}

/// A tree of small images, 190 to train on and 40 to validate on, in four classes.
fn tree(root: &Path) {
    for (part, first, count) in [("train", 0, TRAIN), ("val", TRAIN, VAL)] {
        for index in first..first + count {
            let dir = root.join(part).join(format!("class{}", index % CLASSES));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(format!("{index:03}.jpg")), jpeg(index)).unwrap();
        }
    }
}

/// Ten more files, which are 5 % of the training images, broken or strange in ten ways. Those that must be
/// skipped; one that may not be opened can be by root, and is then an image.
fn ten_strange_files(tree: &Path) -> BTreeSet<String> {
    let dir = tree.join("train/class1");
    let at = |name: &str| dir.join(name);
    let whole = jpeg(1);
    fs::write(at("truncated.jpg"), &whole[..whole.len() * 2 / 3]).unwrap();
    fs::write(at("empty.jpg"), b"").unwrap();
    fs::write(at("page.jpg"), b"<!DOCTYPE html><title>404 Not Found</title>").unwrap();
    let mut huge = whole.clone();
    let frame = huge.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    huge[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    fs::write(at("huge.jpg"), huge).unwrap();
    fs::create_dir(at("directory.jpg")).unwrap();
    fs::write(at("bomb.png"), bomb()).unwrap();
    let mut wide = vec![];
    image::codecs::jpeg::JpegEncoder::new(&mut wide)
        .encode_image(&image::RgbImage::from_pixel(40_000, 30, image::Rgb([9, 99, 200])))
        .unwrap();
    fs::write(at("wide.jpg"), wide).unwrap();
    let grey = image::GrayImage::from_raw(10, 10, sample_pixels(1)).unwrap();
    grey.save_with_format(at("a-png.jpg"), image::ImageFormat::Png).unwrap();
    fs::write(at("forbidden.jpg"), &whole).unwrap();
    let mut bad =
        ["truncated.jpg", "empty.jpg", "page.jpg", "huge.jpg", "directory.jpg", "bomb.png"]
            .to_vec();
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        symlink("nowhere.jpg", at("dangling.jpg")).unwrap();
        bad.push("dangling.jpg");
        fs::set_permissions(at("forbidden.jpg"), fs::Permissions::from_mode(0o000)).unwrap();
        if fs::File::open(at("forbidden.jpg")).is_err() {
            bad.push("forbidden.jpg");
        }
    }
    bad.into_iter().map(str::to_owned).collect()
}

/// A PNG of 200 KB whose 40,000 × 40,000 pixels would take 1.6 GB.
fn bomb() -> Vec<u8> {
    let side = 40_000u32;
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        let mut crc = Crc::new();
        crc.update(kind);
        crc.update(data);
        png.extend((data.len() as u32).to_be_bytes());
        png.extend([kind, data, &crc.sum().to_be_bytes()].concat());
    };
    let sides = [side.to_be_bytes(), side.to_be_bytes()].concat();
    // One bit a pixel, grey.
    chunk(b"IHDR", &[&sides[..], &[1, 0, 0, 0, 0]].concat());
    let mut pixels = ZlibEncoder::new(vec![], Compression::fast());
    let row = vec![0; 1 + side as usize / 8];
    (0..side).for_each(|_| pixels.write_all(&row).unwrap());
    chunk(b"IDAT", &pixels.finish().unwrap());
    chunk(b"IEND", b"");
    png
}

fn train<'a>(data: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["train", "--model", "resnet8", "--data", data, "--epochs", "4"];
    arguments.extend(["--set", "train.batch_size=16", "--set", "checkpoint.every_steps=3"]);
    arguments.extend(["--set", "log.every_steps=1", "--set", "augment.hflip=0", "--out", out]);
    arguments.extend(more);
    arguments
}

fn file_name(bad: &Value) -> String {
    let path = PathBuf::from(bad["path"].as_str().unwrap());
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn listed(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("bad_pictures.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_tree_is_trained_on_evaluated_and_predicted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tree(&dir.join("tree"));
    let summary = json(dir, &train("folder:tree", "out", &["--epochs", "8"]));
    assert_eq!((&summary["steps"], &summary["bad_pictures"]), (&88.into(), &0.into()));
    assert!(summary["val_top1"].as_f64().unwrap() > 0.8, "{summary}");
    assert!(!dir.join("out/bad_pictures.jsonl").exists());

    let eval = json(dir, &["eval", "--weights", "out", "--data", "folder:tree"]);
    assert_eq!((&eval["count"], &eval["skipped"]), (&VAL.into(), &0.into()));
    assert_eq!(eval["val_top1"], summary["val_top1"]);
    let predictions = json(dir, &["predict", "--weights", "out", "--top", "1", "tree/val"]);
    let right = predictions.as_array().unwrap().iter().filter(|prediction| {
        let class = prediction["top"][0]["name"].as_str().unwrap();
        prediction["file"].as_str().unwrap().contains(class)
    });
    assert_eq!(right.count() as f64 / VAL as f64, summary["val_top1"].as_f64().unwrap());
}

#[test]
fn shards_of_the_same_tree_give_the_same_weights_also_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tree(&dir.join("tree"));
    fs::create_dir(dir.join("shards")).unwrap();
    for part in ["train", "val"] {
        let file = fs::File::create(dir.join(format!("shards/{part}.tar"))).unwrap();
        let mut builder = tar::Builder::new(file);
        builder.append_dir_all(part, dir.join("tree").join(part)).unwrap();
        builder.finish().unwrap();
    }
    assert_eq!(run(dir, &train("folder:tree", "folder", &[])).code, Some(0));
    let said = run(dir, &train("tar:shards", "tar", &["--set", "loader.workers=2"]));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("indexing 2 files, once"), "{said:?}");
    let weights = |run: &str| sha256(&dir.join(run).join("model.safetensors"));
    assert_eq!(weights("tar"), weights("folder"));

    let arguments = train("tar:shards", "killed", &[]);
    let mut command = fixnorm(dir, &arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_step(&mut child, &dir.join("killed"), 16);
    child.kill().unwrap();
    child.wait().unwrap();
    let said = run(dir, &["train", "--resume", "--out", "killed"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    // The index is still there.
    assert!(!said.stderr.contains("indexing"), "{said:?}");
    assert_eq!(weights("killed"), weights("folder"));
}

#[test]
fn strange_files_are_found_beforehand_in_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tree(&dir.join("tree"));
    let expected = ten_strange_files(&dir.join("tree"));
    let arguments = ["--format", "json", "data", "check", "folder:tree"];
    let mut child =
        fixnorm(dir, &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut peak_kib, deadline) = (0, Instant::now() + Duration::from_secs(120));
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it hangs");
        peak_kib = peak_kib.max(peak_rss_kib(child.id()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(peak_kib < 512 * 1024, "{peak_kib} KiB");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let train = &report["parts"][0];
    assert_eq!((&train["part"], &train["pictures"]), (&"train".into(), &(TRAIN + 10).into()));
    assert_eq!(train["width"], serde_json::json!({"min": 10, "median": 10, "max": 40_000}));
    let bad = train["bad"].as_array().unwrap();
    assert_eq!(bad.iter().map(file_name).collect::<BTreeSet<_>>(), expected);
    assert!(bad.iter().all(|bad| bad["reason"].as_str().unwrap().len() > 5), "{bad:?}");
    assert_eq!(report["classes"][1]["pictures"], serde_json::json!([TRAIN.div_ceil(4) + 10, 10]));

    let said = run(dir, &["data", "check", "folder:tree"]);
    assert_eq!(said.code, Some(1));
    for part in ["bad  tree/train/class1/empty.jpg: it is empty", "mean  ", "class1"] {
        assert!(said.stdout.contains(part), "{said:?}");
    }
    let said = run(dir, &["data", "check", "folders:tree"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert_eq!(json(dir, &["data", "check", "fashion-mnist-mini"])["parts"][2]["part"], "test");
}

/// The most memory that a process has had, where the system tells.
fn peak_rss_kib(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[test]
fn strange_files_stop_a_run_or_are_skipped_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tree(&dir.join("tree"));
    let expected = ten_strange_files(&dir.join("tree"));
    fs::write(dir.join("tree/val/class2/torn.jpg"), b"\xff\xd8\xff").unwrap();

    let said = run(dir, &train("folder:tree", "out", &[]));
    assert_eq!((said.code, &said.stdout[..]), (Some(1), ""), "{said:?}");
    let error = said.stderr.lines().last().unwrap();
    for part in ["of 200 images cannot be read", "loader.max_bad = 0.001 allows 0", "data check"] {
        assert!(error.contains(part), "{error}");
    }
    let enough = ["--set", "loader.max_bad=0.05"];
    let summary = json(dir, &train("folder:tree", "whole", &enough));
    let whole = listed(&dir.join("whole"));
    let names = |part: &str| -> Vec<String> {
        whole.iter().filter(|bad| bad["part"] == part).map(file_name).collect()
    };
    let found = names("train");
    assert_eq!(
        (found.len(), found.into_iter().collect::<BTreeSet<_>>()),
        (expected.len(), expected)
    );
    assert_eq!(names("val"), ["torn.jpg"]);
    assert_eq!(summary["bad_pictures"], whole.len());
    assert!(whole.iter().all(|bad| bad["reason"].as_str().is_some()));
    let told: usize = events(&dir.join("whole"), "bad_pictures")
        .iter()
        .map(|event| event["pictures"].as_array().unwrap().len())
        .sum();
    assert_eq!(told, whole.len());

    let said = run(dir, &["eval", "--weights", "whole", "--data", "folder:tree"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let arguments = ["eval", "--weights", "whole", "--data", "folder:tree", "--max-bad", "0.05"];
    let eval = json(dir, &arguments);
    assert_eq!((&eval["count"], &eval["skipped"]), (&VAL.into(), &1.into()));
    assert_eq!(eval["val_top1"], summary["val_top1"]);

    // Killed in the second epoch, with another number of workers.
    let more = [&enough[..], &["--set", "loader.workers=3"]].concat();
    let mut command = fixnorm(dir, &train("folder:tree", "killed", &more));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_step(&mut child, &dir.join("killed"), 17);
    child.kill().unwrap();
    child.wait().unwrap();
    let resumed = json(dir, &["train", "--resume", "--out", "killed"]);
    let weights = |run: &str| sha256(&dir.join(run).join("model.safetensors"));
    assert_eq!(weights("killed"), weights("whole"));
    assert_eq!(resumed["bad_pictures"], summary["bad_pictures"]);
    let sorted = |mut list: Vec<Value>| {
        list.sort_by_key(ToString::to_string);
        list
    };
    assert_eq!(sorted(listed(&dir.join("killed"))), sorted(whole));

    // The same limit is passed at the same step, and what was found is listed.
    let said = run(dir, &train("folder:tree", "stopped", &["--set", "loader.max_bad=0.02"]));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.lines().last().unwrap().contains("allows 4"), "{said:?}");
    if dir.join("stopped").exists() {
        assert!(listed(&dir.join("stopped")).len() >= 5);
    }
}

#[test]
fn a_cache_of_decoded_images_changes_no_weight() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tree(&dir.join("tree"));
    let weights = |out: &str, more: &[&str]| {
        json(dir, &train("folder:tree", out, more));
        sha256(&dir.join(out).join("model.safetensors"))
    };
    let limited = ["--set", "augment.max_shorter_side=6"];
    let expected = weights("none", &limited);
    for (out, cache) in [("ram", "ram"), ("directory", "kept"), ("again", "kept")] {
        let cache = format!("loader.cache={cache}");
        let more = [&limited[..], &["--set", &cache]].concat();
        assert_eq!(weights(out, &more), expected, "{cache}");
    }
    assert!(dir.join("kept").is_dir());
    // A cache without a size gives one, which a run without it did not have.
    assert_ne!(weights("plain", &[]), expected);
    let resume = ["train", "--resume", "--out", "plain", "--epochs", "5", "--set"];
    let said = run(dir, &[&resume[..], &["loader.cache=ram"]].concat());
    assert!(said.code != Some(0) && said.stderr.contains("augment.max_shorter_side"), "{said:?}");
    let resume = ["train", "--resume", "--out", "ram", "--epochs", "5", "--set"];
    assert_eq!(run(dir, &[&resume[..], &["loader.cache=none"]].concat()).code, Some(0));
}

#[test]
fn fetching_checks_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = std::io::Read::read(&mut stream, &mut request);
            // As many bytes as there should be, and others.
            let body = vec![0; 26_421_880];
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    let said = run(dir, &["data", "fetch", "fashion-mnist", "--url", &url]);
    assert_eq!((said.code, &said.stdout[..]), (Some(1), ""), "{said:?}");
    assert!(
        said.stderr.contains("train-images-idx3-ubyte.gz is not what it should be"),
        "{said:?}"
    );
    assert!(said.stderr.contains("3aede38d61863908"), "{said:?}");
    assert_eq!(fs::read_dir(dir.join("data/fashion-mnist")).unwrap().count(), 0);
    let said = run(dir, &["data", "fetch", "imagenet"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("fashion-mnist, cifar10"), "{said:?}");
}

#[test]
fn predictions_name_every_file_once_also_those_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    image_tree(&dir.join("tree"));
    assert_eq!(run(dir, &image_run("folder:tree", "out", &[])).code, Some(0));
    fs::write(dir.join("bad.png"), "not an image").unwrap();
    let good = "tree/val/class0/000.png";
    let arguments = ["--format", "json", "predict", "--weights", "out", "--batch", "2"];
    let files = [good, "bad.png", "none.png", good];
    let said = run(dir, &[&arguments[..], &files].concat());
    assert_eq!(said.code, Some(1), "{said:?}");
    let answers: Value = serde_json::from_str(&said.stdout).unwrap();
    let found: Vec<_> =
        answers.as_array().unwrap().iter().map(|a| a["file"].as_str().unwrap()).collect();
    assert_eq!(found, files);
    for (answer, failed) in answers.as_array().unwrap().iter().zip([false, true, true, false]) {
        assert_eq!((answer["error"].is_string(), answer["top"].is_array()), (failed, !failed));
    }
    assert!(said.stderr.contains("2 of 4 images have no prediction"), "{said:?}");
    // One file alone.
    let said = run(dir, &[&arguments[..], &["bad.png"]].concat());
    let answers: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((said.code, answers[0]["file"].as_str()), (Some(1), Some("bad.png")));
}

#[cfg(unix)]
#[test]
fn linked_directories_are_predicted_but_not_in_a_circle() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    image_tree(&dir.join("tree"));
    assert_eq!(run(dir, &image_run("folder:tree", "out", &[])).code, Some(0));
    fs::create_dir(dir.join("mixed")).unwrap();
    fs::copy(dir.join("tree/val/class0/000.png"), dir.join("mixed/a.png")).unwrap();
    std::os::unix::fs::symlink("../tree/val/class1", dir.join("mixed/linked")).unwrap();
    std::os::unix::fs::symlink("../mixed", dir.join("mixed/circle")).unwrap();
    let predictions = json(dir, &["predict", "--weights", "out", "mixed"]);
    let files: Vec<_> =
        predictions.as_array().unwrap().iter().map(|p| p["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["mixed/a.png", "mixed/linked/001.png", "mixed/linked/005.png"]);
}

/// Names in Latin-1, as old archives hold them.
#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf8_are_trained_on_predicted_and_written() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    image_tree(&dir.join("tree"));
    let latin = |bytes: &'static [u8]| OsStr::from_bytes(bytes);
    for name in [&b"\xe9.png"[..], b"\xea.png"] {
        common::image_file(&dir.join("tree/val/class0").join(OsStr::from_bytes(name)), 0);
    }
    let mut arguments = image_run("folder:tree", "unused", &[]);
    arguments.truncate(arguments.len() - 1);
    let succeeds = |arguments: &[&str], last: &[u8]| -> Said {
        let mut command = fixnorm(dir, arguments);
        let said: Said = command.arg(OsStr::from_bytes(last)).output().unwrap().into();
        assert_eq!(said.code, Some(0), "{said:?}");
        said
    };
    arguments.splice(0..0, ["--format", "json"]);
    let said = succeeds(&arguments, b"run\xe9");
    let summary: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(summary["out"], "run\\xe9");
    assert!(dir.join(latin(b"run\xe9")).join("result.json").exists());
    // A finished run is read back.
    succeeds(&["train", "--resume"], b"run\xe9");
    succeeds(&["eval", "--data", "folder:tree", "--weights"], b"run\xe9");
    succeeds(&["inspect", "--weights"], b"run\xe9");
    fs::rename(dir.join(latin(b"run\xe9")), dir.join("run")).unwrap();
    let export = ["--format", "json", "export", "--weights", "run", "--out"];
    let said = succeeds(&export, b"\xe9.safetensors");
    assert_eq!(serde_json::from_str::<Value>(&said.stdout).unwrap()["path"], "\\xe9.safetensors");
    let said = succeeds(&["--format", "json", "report", "run", "--out"], b"\xe9.html");
    assert_eq!(serde_json::from_str::<Value>(&said.stdout).unwrap()["path"], "\\xe9.html");
    let predict = ["--format", "json", "predict", "--weights", "run"];
    let said = succeeds(&predict, b"tree/val/class0");
    let answers: Value = serde_json::from_str(&said.stdout).unwrap();
    let mut files: Vec<_> =
        answers.as_array().unwrap().iter().map(|a| a["file"].as_str().unwrap()).collect();
    files.sort_unstable();
    let expected = ["000.png", "004.png", "\\xe9.png", "\\xea.png"]
        .map(|name| format!("tree/val/class0/{name}"));
    assert_eq!(files, expected);
    let said = succeeds(&predict[2..], b"tree/val/class0/\xe9.png");
    assert!(said.stdout.starts_with("tree/val/class0/\\xe9.png: "), "{said:?}");
}
