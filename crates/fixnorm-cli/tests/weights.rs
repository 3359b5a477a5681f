//! Weights that travel: foreign files in, fine-tuning with another head, folders of images, files out.

mod common;

use std::fs;
use std::path::Path;

use common::{data, events, fixnorm, json, run, sample_pixels, small_run};
use fixnorm_nn::weights::{Metadata, to_safetensors};
use fixnorm_nn::{Input, ModelSpec};
use serde_json::Value;

/// Weights as others write them: nothing in the file but tensors.
fn foreign(dir: &Path, name: &str, model: &str, input: Input, seed: u64) {
    let spec = ModelSpec::find(model).unwrap();
    let model = spec.init(input, seed, &fixnorm_train::DeviceName::Cpu.open().unwrap());
    fs::write(dir.join(name), to_safetensors(&model, spec, &Metadata::new()).unwrap()).unwrap();
}

const GREY: Input = Input { channels: 1, classes: 7 };
const COLOUR: Input = Input { channels: 3, classes: 1000 };

fn norms(found: &Value, role: &str) -> Vec<(String, f64)> {
    let rows = found["parameters"].as_array().unwrap().iter();
    let rows = rows.filter(|row| row["role"] == role);
    rows.map(|row| (row["path"].as_str().unwrap().to_owned(), row["norm"].as_f64().unwrap()))
        .collect()
}

#[test]
fn fine_tuning_replaces_the_head_says_so_and_keeps_the_norms() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    foreign(dir, "start.safetensors", "resnet8", GREY, 5);
    let more = [
        "--init",
        "start.safetensors",
        "--epochs",
        "1",
        "--set",
        "optimizer.radius=init",
        "--set",
        "schedule.warmup_epochs=0",
    ];
    let said = run(dir, &small_run("out", &more));
    assert_eq!(said.code, Some(0), "{said:?}");
    let line = said.stderr.lines().find(|line| line.contains("starts from")).unwrap();
    for part in ["the final layer is new", "fc.weight (expected [4, 64], found [7, 64])", "fc.bias"]
    {
        assert!(line.contains(part), "{line}");
    }
    let init = &events(&dir.join("out"), "init")[0];
    assert_eq!((&init["new_head"], &init["missing"]), (&true.into(), &Value::Array(vec![])));
    assert_eq!(init["misshapen"].as_array().unwrap().len(), 2);

    // ρ = init: after training, every scale-invariant weight has the norm it came with.
    let before =
        norms(&json(dir, &["inspect", "--weights", "start.safetensors"]), "scale_invariant");
    let after = norms(&json(dir, &["inspect", "--weights", "out"]), "scale_invariant");
    assert_eq!(before.len(), 7);
    for ((path, before), (other, after)) in before.iter().zip(&after) {
        assert_eq!(path, other);
        assert!((after / before - 1.0).abs() < 1e-5, "{path}: {before}, {after}");
    }
}

#[test]
fn partial_weights_are_taken_only_when_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let input = Input { channels: 1, classes: 4 };
    foreign(dir, "small.safetensors", "resnet8", input, 5);
    let with = |more: &[&str]| {
        let all = [&["--init", "small.safetensors", "--model", "resnet20", "--epochs", "1"], more];
        run(dir, &small_run("out", &all.concat()))
    };
    let said = with(&[]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("do not fit resnet20: missing: 60 tensors, "), "{said:?}");
    assert!(said.stderr.contains("the nearest model is resnet8"), "{said:?}");
    assert!(!dir.join("out").exists());
    let said = with(&["--allow-partial"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("starts from small.safetensors; missing: "), "{said:?}");
    assert_eq!(events(&dir.join("out"), "init")[0]["new_head"], false);

    let arguments =
        ["eval", "--weights", "small.safetensors", "--model", "resnet20", "--data", "idx:data"];
    let said = run(dir, &arguments);
    assert_eq!(said.code, Some(1), "{said:?}");
    let said = run(dir, &[&arguments[..], &["--allow-partial"]].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("the missing ones are random: missing: "), "{said:?}");
}

fn write_image(path: &Path, index: usize) {
    image::GrayImage::from_raw(10, 10, sample_pixels(index)).unwrap().save(path).unwrap();
}

#[test]
fn folders_are_predicted_whatever_is_wrong_with_one_image() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    foreign(dir, "w.safetensors", "resnet8", COLOUR, 5);
    fs::create_dir_all(dir.join("p/q")).unwrap();
    for (index, name) in ["b.png", "q/a.png", "c.jpg"].iter().enumerate() {
        write_image(&dir.join("p").join(name), index);
    }
    fs::write(dir.join("p/bad.png"), "not an image").unwrap();
    fs::write(dir.join("p/notes.txt"), "not looked at").unwrap();
    let arguments = ["--format", "json", "predict", "--weights", "w.safetensors", "--logits", "p"];
    let said = run(dir, &arguments);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("p/bad.png cannot be decoded"), "{said:?}");
    assert!(said.stderr.ends_with("1 of 4 images have no prediction\n"), "{said:?}");
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    let found = found.as_array().unwrap();
    let files: Vec<&str> = found.iter().map(|one| one["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["p/b.png", "p/bad.png", "p/c.jpg", "p/q/a.png"]);
    assert!(found[1]["error"].as_str().unwrap().contains("cannot be decoded"), "{found:?}");
    for one in found.iter().filter(|one| one["error"].is_null()) {
        assert_eq!(one["logits"].as_array().unwrap().len(), 1000);
        assert_eq!(one["top"].as_array().unwrap().len(), 5);
        let top = &one["top"][0];
        let class = top["class"].as_u64().unwrap() as usize;
        let names = include_str!("../../fixnorm-data/assets/imagenet/classes.txt");
        assert_eq!(top["name"].as_str(), names.lines().nth(class));
    }
    // One by one the same as together.
    let one = json(
        dir,
        &["predict", "--weights", "w.safetensors", "--logits", "--batch", "1", "p/q/a.png"],
    );
    assert_eq!(one[0], found[3]);
    fs::create_dir(dir.join("none")).unwrap();
    let said = run(dir, &["predict", "--weights", "w.safetensors", "none"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("none holds no images"), "{said:?}");
}

#[test]
fn exported_weights_say_what_they_need() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    foreign(dir, "w.safetensors", "resnet8", COLOUR, 5);
    write_image(&dir.join("a.png"), 3);
    let said = json(dir, &["export", "--weights", "w.safetensors", "-o", "x.safetensors"]);
    assert_eq!((&said["path"], &said["format"]), (&"x.safetensors".into(), &"safetensors".into()));
    let predict = |weights| json(dir, &["predict", "--logits", "--weights", weights, "a.png"]);
    assert_eq!(predict("w.safetensors"), predict("x.safetensors"));
    // Written again it is the same file.
    json(dir, &["export", "--weights", "x.safetensors", "-o", "y.safetensors"]);
    assert_eq!(
        fs::read(dir.join("x.safetensors")).unwrap(),
        fs::read(dir.join("y.safetensors")).unwrap()
    );

    let said =
        json(dir, &["export", "--weights", "w.safetensors", "--model", "resnet8", "-o", "x.onnx"]);
    assert_eq!(said["path"], "x.onnx");
    let onnx = fs::read(dir.join("x.onnx")).unwrap();
    let has = |text: &str| onnx.windows(text.len()).any(|window| window == text.as_bytes());
    for text in [
        "fixnorm",
        "pictures",
        "logits",
        "preprocessing",
        "\"interpolation\":\"bicubic\"",
        "tiger cat",
    ] {
        assert!(has(text), "{text}");
    }
    let said = run(dir, &["export", "--weights", "w.safetensors", "-o", "x.pb"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("ends in .safetensors or .onnx"), "{said:?}");
    let said = run(dir, &["export", "--weights", "w.safetensors", "-o", "none/x.onnx"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""));
    assert!(said.stderr.contains("cannot write none/x.onnx"), "{said:?}");
}

#[test]
fn files_that_do_harm_are_refused_by_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    fs::write(dir.join("empty.pth"), "").unwrap();
    let pickle = b"\x80\x02cposix\nsystem\nX\x16\0\0\0touch fixnorm-ran-code\x85R.";
    fs::write(dir.join("code.pth"), pickle).unwrap();
    write_image(&dir.join("a.png"), 3);
    for (file, part) in
        [("empty.pth", "it is empty"), ("code.pth", "its pickle would call posix.system")]
    {
        for arguments in [
            &["inspect", "--weights", file][..],
            &["predict", "--weights", file, "a.png"],
            &["eval", "--weights", file, "--data", "idx:data"],
            &["export", "--weights", file, "-o", "x.onnx"],
            &["train", "--data", "idx:data", "--init", file, "--out", "out"],
        ] {
            let said = run(dir, arguments);
            assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said:?}");
            assert!(said.stderr.contains(file) && said.stderr.contains(part), "{said:?}");
        }
    }
    assert!(!dir.join("fixnorm-ran-code").exists() && !dir.join("x.onnx").exists());

    // A file that fits nothing is told what to do, one of another model what differs.
    foreign(dir, "w.safetensors", "resnet8", COLOUR, 5);
    let said = run(dir, &["inspect", "--model", "resnet20", "--weights", "w.safetensors"]);
    assert!(
        said.stderr.contains("w.safetensors: the weights do not fit resnet20: missing: "),
        "{said:?}"
    );
    let header = br#"{"a.b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let other = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
    fs::write(dir.join("other.safetensors"), other).unwrap();
    let said = run(dir, &["inspect", "--weights", "other.safetensors"]);
    assert!(said.stderr.contains("fits none of the models"), "{said:?}");
    fs::write(dir.join("empty.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    let said = run(dir, &["inspect", "--weights", "empty.safetensors"]);
    assert!(said.stderr.contains("it holds no tensors"), "{said:?}");
    assert_eq!(fixnorm(dir, &["export"]).output().unwrap().status.code(), Some(2));
}

/// Gives the final layer of a safetensors file weights so large that logits overflow, though each weight is finite.
fn overflow(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let offsets = &header["fc.weight"]["data_offsets"];
    let [start, end] = [0, 1].map(|i| 8 + length + offsets[i].as_u64().unwrap() as usize);
    for weight in bytes[start..end].chunks_exact_mut(4) {
        weight.copy_from_slice(&3e38f32.to_le_bytes());
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn logits_that_are_not_finite_are_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    foreign(dir, "colour.safetensors", "resnet8", COLOUR, 5);
    foreign(dir, "grey.safetensors", "resnet8", Input { channels: 1, classes: 4 }, 5);
    overflow(&dir.join("colour.safetensors"));
    overflow(&dir.join("grey.safetensors"));
    write_image(&dir.join("a.png"), 3);
    let json = ["--format", "json"];
    let predict = ["predict", "--weights", "colour.safetensors", "a.png"];
    let said = run(dir, &[&json[..], &predict].concat());
    assert_eq!(said.code, Some(1), "{said:?}");
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(found[0]["file"], "a.png");
    assert!(found[0]["error"].as_str().unwrap().contains("logits hold"), "{said:?}");
    let said = run(dir, &predict);
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said:?}");
    let eval = ["eval", "--weights", "grey.safetensors", "--data", "idx:data"];
    let said = run(dir, &[&json[..], &eval].concat());
    assert_eq!(said.code, Some(1), "{said:?}");
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(found["val_loss"].is_null(), "{said:?}");
    assert!(said.stderr.contains("logits are not finite"), "{said:?}");
}

#[test]
fn a_directory_for_the_hub_has_weights_configuration_and_card() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let result = json(dir, &small_run("out", &["--epochs", "1"]));
    let said = json(dir, &["export", "--weights", "out", "-o", "hub/"]);
    assert_eq!((&said["path"], &said["format"]), (&"hub/".into(), &"hub".into()));
    let read = |name: &str| fs::read_to_string(dir.join("hub").join(name)).unwrap();
    let config: Value = serde_json::from_str(&read("config.json")).unwrap();
    assert_eq!((&config["architecture"], &config["num_classes"]), (&"resnet8".into(), &4.into()));
    assert_eq!(config["pretrained_cfg"]["input_size"], serde_json::json!([1, 10, 10]));
    let card = read("README.md");
    let accuracy = format!("{:.4} on 30 images", result["val_top1"].as_f64().unwrap());
    for part in [
        "---\ntags:\n- image-classification\n- fixnorm\n",
        "trained on `idx:data` with fixnorm",
        &accuracy,
        "Test top-1",
        "Timm has no model `resnet8`",
        "```toml\nmodel = \"resnet8\"",
        "\n[optimizer]\n",
    ] {
        assert!(card.contains(part), "{part}: {card}");
    }
    // The directory is one of weights like any other.
    image::GrayImage::from_raw(10, 10, sample_pixels(3)).unwrap().save(dir.join("a.png")).unwrap();
    let predict = |weights| json(dir, &["predict", "--logits", "--weights", weights, "a.png"]);
    assert_eq!(predict("out"), predict("hub"));

    // Weights of others: nothing is claimed about them. A card that is there is kept.
    foreign(dir, "w.safetensors", "resnet18", COLOUR, 5);
    let said = run(dir, &["export", "--weights", "w.safetensors", "-o", "other/"]);
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    let card = fs::read_to_string(dir.join("other/README.md")).unwrap();
    assert!(card.contains("timm.create_model(\"local-dir:"), "{card}");
    assert!(card.contains("is not known here") && !card.contains("## Recipe"), "{card}");
    fs::write(dir.join("other/README.md"), "mine").unwrap();
    let said = run(dir, &["export", "--weights", "w.safetensors", "-o", "other"]);
    assert!(said.stderr.contains("kept other/README.md"), "{said:?}");
    assert_eq!(fs::read_to_string(dir.join("other/README.md")).unwrap(), "mine");

    let before = fs::read(dir.join("out/model.safetensors")).unwrap();
    let said = run(dir, &["export", "--weights", "w.safetensors", "-o", "out/"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("out/ holds a run"), "{said:?}");
    assert_eq!(fs::read(dir.join("out/model.safetensors")).unwrap(), before);
    let said = run(dir, &["export", "--weights", "w.safetensors", "-o", "w.safetensors/"]);
    assert_eq!(said.code, Some(1), "{said:?}");
}
