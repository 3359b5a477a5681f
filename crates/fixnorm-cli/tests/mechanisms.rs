//! Commands that analyse weight decay: records and their replay, risk, migration, dissection, report.

mod common;

use std::fs;
use std::path::Path;

use common::{data, events, json, run};
use serde_json::Value;

/// A run of a few seconds with weight decay, every step measured, into `out`.
fn decayed<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![
        "train",
        "--data",
        "idx:data",
        "--epochs",
        "3",
        "--set",
        "train.batch_size=16",
        "--set",
        "log.every_steps=1",
        "--set",
        "log.measure_every_steps=1",
        "--set",
        "optimizer.lr=0.1",
        "--set",
        "head.control=free",
        "--out",
        out,
    ];
    arguments.extend(more);
    arguments
}

const DECAY: [&str; 8] = [
    "--set",
    "optimizer.constraint=free",
    "--set",
    "optimizer.weight_decay=0.01",
    "--set",
    "log.trajectory=true",
    "--set",
    "log.risk_every_epochs=2",
];

/// Step, path, value at `key` and role of every measured step and weight.
fn measured(run: &Path, key: &str) -> Vec<(u64, String, f64, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    events(run, "measure")
        .iter()
        .flat_map(|event| {
            let step = event["step"].as_u64().unwrap();
            let layers = event["layers"].as_array().unwrap().clone();
            layers.into_iter().filter_map(move |layer| {
                Some((step, text(&layer["path"]), layer[key].as_f64()?, text(&layer["role"])))
            })
        })
        .collect()
}

#[test]
fn record_is_followed_by_rates_and_by_norms() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    json(dir, &decayed("source", &DECAY));
    let source = dir.join("source");
    assert!(!measured(&source, "gradient_norm").is_empty());
    let theory = measured(&source, "equilibrium");
    assert!(theory.iter().all(|(.., role)| role == "scale_invariant") && !theory.is_empty());

    let rates = ["--set", "replay.run=source", "--set", "replay.head=true"];
    json(dir, &decayed("rates", &rates));
    let (wanted, found) =
        (measured(&source, "effective_lr"), measured(&dir.join("rates"), "effective_lr"));
    assert_eq!(wanted.len(), found.len());
    for (wanted, found) in wanted.iter().zip(&found) {
        assert_eq!((&wanted.0, &wanted.1), (&found.0, &found.1));
        if wanted.3 != "free" {
            assert!((found.2 / wanted.2 - 1.0).abs() < 1e-5, "{found:?} {wanted:?}");
        }
    }
    // Held, so that following is done by the learning rate alone.
    let norms = measured(&dir.join("rates"), "norm");
    let stem =
        |step: u64| norms.iter().find(|n| n.0 == step && n.3 == "scale_invariant").unwrap().2;
    assert!((stem(0) / stem(50) - 1.0).abs() < 1e-5);

    let norms = [
        "--set",
        "replay.run=source",
        "--set",
        "replay.follow=norms",
        "--set",
        "optimizer.constraint=free",
    ];
    json(dir, &decayed("norms", &norms));
    let (wanted, found) = (measured(&source, "norm"), measured(&dir.join("norms"), "norm"));
    for (wanted, found) in wanted.iter().zip(&found).filter(|(w, _)| w.3 == "scale_invariant") {
        assert!((found.2 / wanted.2 - 1.0).abs() < 1e-5, "{found:?} {wanted:?}");
    }

    let longer = decayed("longer", &["--set", "replay.run=source", "--epochs", "4"]);
    let said = run(dir, &longer);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("its record has 60 steps, and this run takes 80"), "{said:?}");
    let both = ["--set", "replay.run=source", "--set", "log.trajectory=true"];
    let said = run(dir, &decayed("both", &both));
    assert_eq!(said.code, Some(2), "{said:?}");
}

#[test]
fn record_survives_an_interruption_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let more = [&DECAY[..], &["--set", "checkpoint.every_steps=3"]].concat();
    json(dir, &decayed("straight", &more));
    let arguments = decayed("killed", &more);
    let mut child =
        common::fixnorm(dir, &arguments).stderr(std::process::Stdio::null()).spawn().unwrap();
    common::wait_for_step(&mut child, &dir.join("killed"), 25);
    child.kill().unwrap();
    child.wait().unwrap();
    json(dir, &["train", "--resume", "--out", "killed"]);
    let record = |run: &str| fs::read(dir.join(run).join("trajectory.bin")).unwrap();
    assert_eq!(record("killed"), record("straight"));
    // A line of names, then 61 rows would be one too many.
    let names = record("straight").iter().position(|&byte| byte == b'\n').unwrap() + 1;
    assert_eq!((record("straight").len() - names) % (60 * 8), 0);
}

#[test]
fn risk_is_measured_in_a_run_and_by_inspect() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let summary = json(dir, &decayed("run", &DECAY));
    let risks = events(&dir.join("run"), "risk");
    // After epochs 2 and 3, on both parts.
    let when: Vec<_> =
        risks.iter().map(|r| (r["epoch"].as_u64().unwrap(), r["part"].as_str().unwrap())).collect();
    assert_eq!(when, [(1, "train"), (1, "val"), (2, "train"), (2, "val")]);
    let val = &risks[3]["risk"];
    let wrong = 1.0 - summary["val_top1"].as_f64().unwrap();
    assert!((val["misclassified"].as_f64().unwrap() - wrong).abs() < 1e-9, "{val}");

    let found = json(dir, &["inspect", "--weights", "run", "--data", "idx:data"]);
    assert_eq!(found["risk"]["val"]["count"], val["count"]);
    for (found, logged) in
        [(&found["risk"]["val"], val), (&found["risk"]["train"], &risks[2]["risk"])]
    {
        for (found, logged) in
            found["risk"].as_array().unwrap().iter().zip(logged["risk"].as_array().unwrap())
        {
            for key in ["tau", "cbr", "lower", "upper"] {
                let apart = found[key].as_f64().unwrap() - logged[key].as_f64().unwrap();
                assert!(apart.abs() < 1e-3, "{key}: {found} {logged}");
            }
            let number = |key: &str| found[key].as_f64().unwrap();
            assert!(number("lower") <= number("cbr") + 5.0 * number("standard_error") + 1e-4);
            assert!(number("cbr") <= number("upper") + 5.0 * number("standard_error") + 1e-4);
        }
    }
    let (train, val) = (&found["separation"]["train"], &found["separation"]["val"]);
    let number = |value: &Value| value.as_f64().unwrap();
    assert!((number(&val["confidence"]["top1"]) - (1.0 - wrong)).abs() < 1e-9, "{val}");
    assert!(
        (number(&val["confidence"]["loss"]) - number(&summary["val_loss"])).abs() < 1e-3,
        "{val}"
    );
    let gap = number(&train["confidence"]["top1"]) - number(&val["confidence"]["top1"]);
    assert!((number(&found["separation"]["gap"]["top1"]) - gap).abs() < 1e-12);
    for (found, logged) in [(train, &risks[2]), (val, &risks[3])] {
        let (found, logged) = (&found["class_means"], &logged["separation"]["class_means"]);
        let apart = number(&found["head_angle"]) - number(&logged["head_angle"]);
        assert!(apart.abs() < 1e-3, "{found} {logged}");
    }
    // Classes have other shares of the two splits.
    let sigma = |of: &str| number(&found["risk"][of]["sigma"]);
    assert!((sigma("train_with_val_sigma") / sigma("val") - 1.0).abs() < 0.1, "{found}");
    let text = run(dir, &["inspect", "--weights", "run", "--data", "idx:data", "--pictures", "20"]);
    assert!(text.stdout.contains("train 20") && text.stdout.contains("distance/sigma"), "{text:?}");
}

#[test]
fn migration_from_a_run_from_weights_and_from_settings() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    json(dir, &decayed("run", &DECAY));
    let from_run = json(dir, &["migrate", "--run", "run"]);
    let from_weights = json(dir, &["migrate", "--weights", "run", "--lr", "0.1"]);
    let from_settings = json(
        dir,
        &[
            "migrate",
            "--lr",
            "0.1",
            "--wd",
            "0.01",
            "--data",
            "idx:data",
            "--set",
            "train.batch_size=16",
        ],
    );
    for migration in [&from_run, &from_weights, &from_settings] {
        assert!(migration["lr"].as_f64().unwrap() > 0.0, "{migration}");
        assert!(migration["alpha"].as_f64().unwrap() > 0.0, "{migration}");
        assert!(migration["per_layer"].as_array().unwrap().len() > 5, "{migration}");
        assert!(!migration["assumed"].as_array().unwrap().is_empty(), "{migration}");
    }
    let angle = from_settings["per_layer"][0]["angular_update"].as_f64().unwrap();
    assert!((angle / (2.0f64 * 0.1 * 0.01 / 1.9).sqrt() - 1.0).abs() < 1e-9);
    assert_eq!(from_settings["per_layer"][0]["angle"], angle);
    assert!((from_settings["angle"].as_f64().unwrap() / angle - 1.0).abs() < 1e-9);
    // Decay turns weights with the root of the learning rate.
    assert_eq!(from_settings["angle_shape"], "sqrt_cosine");
    // Measured angles differ from layer to layer, and stay within those that the run logged.
    let logged = events(&dir.join("run"), "measure");
    for layer in from_run["per_layer"].as_array().unwrap() {
        let of = |measure: &Value| {
            let layers = measure["layers"].as_array().unwrap();
            let own = layers.iter().find(|own| own["path"] == layer["path"]).unwrap();
            own["angular_update"].as_f64().unwrap()
        };
        let largest = logged.iter().map(of).fold(0.0, f64::max);
        let angle = layer["angle"].as_f64().unwrap();
        assert!(angle > 0.0 && angle < 20.0 * largest, "{layer} {largest}");
    }
    assert!(from_run["angle"].as_f64().unwrap() > 0.0, "{from_run}");
    assert!(from_weights["angle"].is_null(), "{from_weights}");
    // The recipe's own settings, of a base update whose norm does not follow from them.
    let adamw =
        ["migrate", "--recipe", "adamw.toml", "--data", "idx:data", "--set", "train.batch_size=16"];
    let recipe = "[optimizer]\nbase = \"adamw\"\nlr = 0.01\nweight_decay = 0.1\ndecay_kind = \"decoupled\"\n\
                  constraint = \"free\"\nstep_rule = \"raw\"\n";
    std::fs::write(dir.join("adamw.toml"), recipe).unwrap();
    let from_adamw = json(dir, &adamw);
    let expected = (2.0f64 * 0.01 * 0.1 * 0.1 / 1.9).sqrt();
    assert!((from_adamw["angle"].as_f64().unwrap() / expected - 1.0).abs() < 1e-9, "{from_adamw}");
    assert!(from_adamw["lr"].is_null(), "{from_adamw}");

    // What it expects of a run of angles.
    let asked = ["train", "--data", "idx:data", "--angle", "0.02", "--dry-run"];
    let optimizer = json(dir, &asked)["plan"]["recipe"]["optimizer"].clone();
    assert_eq!((&optimizer["lr"], &optimizer["step_rule"]), (&0.02.into(), &"angular".into()));
    let angular = ["optimizer.lr=0.02", "optimizer.step_rule=angular", "head.control=fixed"];
    let angular: Vec<&str> = angular.into_iter().flat_map(|set| ["--set", set]).collect();
    json(dir, &decayed("angles", &angular));
    let found = json(dir, &["inspect", "--weights", "angles"]);
    let rows = found["parameters"].as_array().unwrap();
    let of_role = |role: &str| rows.iter().filter(|row| row["role"] == role).collect::<Vec<_>>();
    assert!(of_role("scale_invariant").iter().all(|row| row["angle"] == 0.02), "{found}");
    assert!(of_role("free").iter().all(|row| row["angle"].is_null()), "{found}");
    let found = json(dir, &["inspect", "--weights", "run"]);
    let rows = found["parameters"].as_array().unwrap();
    let expected = rows.iter().filter(|row| row["role"] == "scale_invariant");
    for row in expected {
        let found = row["angle"].as_f64().unwrap();
        assert!((found / angle - 1.0).abs() < 1e-9, "{row}");
    }
    // By hand: ρ² is the number of channels, and lr/‖w‖² is what the run logged last.
    let last = events(&dir.join("run"), "measure").pop().unwrap();
    let head =
        last["layers"].as_array().unwrap().iter().find(|l| l["role"] == "head").unwrap().clone();
    let alpha = head["norm"].as_f64().unwrap() / 2.0;
    assert!((from_run["alpha"].as_f64().unwrap() / alpha - 1.0).abs() < 1e-9);

    // What it prints is a run.
    let said = run(dir, &["migrate", "--run", "run"]);
    let command = said.stdout.lines().last().unwrap().to_owned();
    let mut arguments: Vec<&str> = command.split(' ').skip(1).collect();
    arguments.extend([
        "--data",
        "idx:data",
        "--epochs",
        "1",
        "--set",
        "train.batch_size=16",
        "--out",
        "migrated",
    ]);
    json(dir, &arguments);

    // A recipe has each layer's own angle: the highest that the schedule asks for is what the layer turns by.
    json(dir, &["migrate", "--run", "run", "--out", "own.toml"]);
    let arguments = ["train", "--recipe", "own.toml", "--epochs", "1", "--out", "own"];
    json(dir, &arguments);
    let steps = events(&dir.join("own"), "measure");
    let shared = from_run["angle"].as_f64().unwrap();
    let lrs = events(&dir.join("own"), "step");
    assert!(!steps.is_empty());
    for layer in from_run["per_layer"].as_array().unwrap() {
        let factor = layer["angle"].as_f64().unwrap() / shared;
        let own = steps[0]["layers"].as_array().unwrap().iter();
        let own = own.clone().find(|own| own["path"] == layer["path"]).unwrap();
        let expected = factor * lrs[0]["lr"].as_f64().unwrap();
        let turned = own["angular_update"].as_f64().unwrap();
        assert!((turned / expected - 1.0).abs() < 0.01, "{own} {expected}");
    }
    let unknown = ["train", "--recipe", "own.toml", "--set", "lr_scale.stm.*=2", "--out", "none"];
    let said = run(dir, &unknown);
    assert!(said.stderr.contains("`stm.*` matches no parameter"), "{said:?}");
    assert_eq!(said.code, Some(2), "{said:?}");
    let negative = ["train", "--recipe", "own.toml", "--set", "lr_scale.stem.*=-1"];
    let said = run(dir, &negative);
    assert!(said.code == Some(2) && said.stderr.contains("lr_scale"), "{said:?}");

    assert_eq!(run(dir, &["migrate"]).code, Some(2));
    assert_eq!(run(dir, &["migrate", "--wd", "0.01"]).code, Some(2));
    let said = run(dir, &["migrate", "--run", "nothing"]);
    assert!(said.code == Some(1) && said.stderr.contains("nothing holds no run"), "{said:?}");
}

#[test]
fn dissection_is_resumed_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let arguments = [
        "dissect",
        "--arms",
        "replay,wn_conv,migrated,fixnorm,alpha_x4",
        "--seeds",
        "2",
        "--wd",
        "0.005",
        "--set",
        "data=idx:data",
        "--set",
        "train.batch_size=16",
        "--set",
        "train.epochs=2",
    ];
    let found = json(dir, &arguments);
    let names: Vec<_> =
        found["arms"].as_array().unwrap().iter().map(|arm| arm["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["wd_all", "wd_conv", "fixnorm", "replay", "wn_conv", "migrated", "alpha_x4"]
    );
    assert_eq!(found["reference"], "wd_all");
    for arm in found["arms"].as_array().unwrap() {
        assert_eq!(arm["val_top1"]["n"], 2, "{arm}");
        assert!(arm["val_top1"]["mean"].as_f64().unwrap() > 0.2, "{arm}");
        assert!(arm["val_top1"]["std"].is_f64() && arm["gap"]["mean"].is_f64(), "{arm}");
        assert_eq!(arm["val_difference"].is_null(), arm["name"] == "wd_all", "{arm}");
        assert_eq!(arm["risk_val"].as_array().unwrap().len(), 4, "{arm}");
    }
    assert_eq!(found["follow"].as_array().unwrap().len(), 2);
    // Of losses that begin at ln 4.
    let follow = &found["follow"][0];
    let (own, seeds) = (&follow["distance"]["mean"], &follow["between_seeds"]["mean"]);
    assert!(own.as_f64().unwrap() < 0.2 && seeds.as_f64().unwrap() > 0.0, "{follow}");

    // Again: nothing is trained, and the table is the same.
    let said = run(dir, &[&["--format", "json"], &arguments[..]].concat());
    assert!(!said.stderr.contains("run 1 of"), "{said:?}");
    assert_eq!(serde_json::from_str::<Value>(&said.stdout).unwrap(), found);

    let path = json(dir, &["report", "runs/dissect", "-o", "report.html", "--plots", "plots"]);
    assert_eq!(path["path"], "report.html");
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(page.matches("<svg").count() > 20 && page.contains("Risk against generalization gap"));
    assert!(page.contains("Accuracy on test images against wd_all"));
    // The arms share a plot of each quantity; the layers of each have their own.
    assert_eq!(page.matches("<b>Validation loss</b>").count(), 1);
    assert!(page.contains("Gradient norm of wn_conv, seed 0") && !page.contains("norm of runs"));
    assert!(!page.contains("NaN") && !page.contains("src=") && !page.contains("href=\"http"));
    let plots = fs::read_dir(dir.join("plots")).unwrap().count();
    assert_eq!(plots, 2 * page.matches("<figure").count());
    // Two runs: one section, what differs in a table, paths by what differs in them.
    let runs = ["runs/dissect/wd_all/seed-0", "runs/dissect/fixnorm/seed-0"];
    json(dir, &["report", runs[0], runs[1], "-o", "two.html"]);
    let page = fs::read_to_string(dir.join("two.html")).unwrap();
    assert_eq!(page.matches("<h2").count(), 1, "{page}");
    assert!(page.contains("<th scope=\"col\">wd_all</th><th scope=\"col\">fixnorm</th>"));
    assert!(page.contains("<td>optimizer.weight_decay</td><td>0.005</td><td>0.0</td>"));
    assert!(!page.contains("<td>train.seed</td>"));
    // A dissection that was moved still finds its runs.
    fs::rename(dir.join("runs/dissect"), dir.join("moved")).unwrap();
    json(dir, &["report", "moved", "-o", "moved.html"]);
    let said = run(dir, &["report", "data", "-o", "x.html"]);
    assert!(said.code == Some(1) && said.stderr.contains("holds no run"), "{said:?}");
    let said = run(dir, &["dissect", "--arms", "wd_al"]);
    assert!(said.code == Some(2) && said.stderr.contains("did you mean `wd_all`"), "{said:?}");
}

/// A safetensors file of F32 tensors and of I64 `labels`.
fn features_file(path: &Path, floats: &[(&str, &[usize], &[f32])], labels: &[i64]) {
    let mut data: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
    let mut header = serde_json::json!({
        "labels": {"dtype": "I64", "shape": [labels.len()], "data_offsets": [0, data.len()]},
    });
    for (name, shape, values) in floats {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        header[name] = serde_json::json!(
            {"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}
        );
    }
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], header.as_bytes(), &data].concat()).unwrap();
}

#[test]
fn risk_of_any_model_is_measured_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // Distances 1, 2, 3 from the one boundary, and 1, 4 on the other side: variances 1 and 4.5.
    let values = [1.0, 9.0, 2.0, -9.0, 3.0, 0.0, -1.0, 5.0, -4.0, 5.0];
    let features = ("features", &[5, 2][..], &values[..]);
    let weight = ("head.weight", &[2, 2][..], &[1.0, 0.0, -1.0, 0.0][..]);
    features_file(&dir.join("f.safetensors"), &[features, weight], &[0, 0, 0, 1, 1]);
    let arguments = ["risk", "--features", "f.safetensors", "--tau", "1,.5"];
    let found = json(dir, &arguments);
    assert_eq!((&found["count"], &found["misclassified"]), (&5.into(), &0.0.into()));
    let sigma = ((3.0 * 1.0 + 2.0 * 4.5) / 5.0f64).sqrt();
    assert!((found["sigma"].as_f64().unwrap() - sigma).abs() < 1e-6, "{found}");
    let taus: Vec<_> = (0..2).map(|at| found["risk"][at]["tau"].as_f64().unwrap()).collect();
    assert_eq!(taus, [1.0, 0.5]);
    for key in ["cbr", "standard_error", "lower", "upper"] {
        assert!(found["risk"][0][key].is_f64(), "{key}: {found}");
    }
    assert!(found["distance"]["quantiles"].is_array());
    assert_eq!(found["confidence"]["top1"], 1.0);
    assert!(found["confidence"]["ece"].is_f64() && found["class_means"]["head_angle"].is_f64());
    let other = json(dir, &[&arguments[..], &["--seed", "1"]].concat());
    assert_ne!(other["risk"][0]["cbr"], found["risk"][0]["cbr"]);
    let said = run(dir, &arguments);
    assert!(said.stdout.starts_with("samples  tau"), "{said:?}");

    features_file(&dir.join("g.safetensors"), &[features, weight], &[0, 0, 0, 1, 2]);
    let said = run(dir, &["risk", "--features", "g.safetensors"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""));
    let expected =
        "error: g.safetensors: tensor labels: sample 4 has label 2, and head.weight has 2 classes";
    assert!(said.stderr.starts_with(expected), "{said:?}");
    let said = run(dir, &["risk", "--features", "f.safetensors", "--tau", "0"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("expected a number above 0"), "{said:?}");
}

#[test]
fn the_gap_preset_sweeps_the_heads_norm_on_subsets_and_says_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    data(dir, "data");
    let mut arguments = vec!["dissect", "--preset", "gap", "--per-class", "8,20", "--seeds", "2"];
    arguments.extend(["--arms", "n8_alpha0.5,n8_alpha8,n20_alpha2", "--set", "data=idx:data"]);
    arguments.extend(["--set", "train.epochs=3", "--set", "train.batch_size=8", "--out", "gap"]);
    let found = json(dir, &arguments);
    let plan = fs::read_to_string(dir.join("gap/n8_alpha8/seed-1/plan.toml")).unwrap();
    for line in [
        "data = \"idx:data?per_class=8\"",
        "train_pictures = 32",
        "label_smoothing = 0.0",
        "alpha = 8.0",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    let sizes = found["gap"]["sizes"].as_array().unwrap();
    assert_eq!(sizes.len(), 2);
    assert_eq!(sizes[0]["per_class"], 8);
    assert_eq!(sizes[0]["gaps"].as_array().unwrap().len(), 2);
    let gap = |arm: usize, seed: usize| found["arms"][arm]["runs"][seed]["gap"].as_f64().unwrap();
    let effect = (gap(1, 0) - gap(0, 0) + gap(1, 1) - gap(0, 1)) / 2.0;
    assert!((sizes[0]["effect"]["estimate"].as_f64().unwrap() - effect).abs() < 1e-9, "{found}");
    let finding = found["gap"]["finding"].as_str().unwrap();
    assert!(finding.starts_with("With 8 images a class the gap changes by"), "{finding}");
    json(dir, &["report", "gap", "-o", "gap.html"]);
    let page = fs::read_to_string(dir.join("gap.html")).unwrap();
    for part in ["Gap against the head", "Gap against risk", "With 8 images a class"] {
        assert!(page.contains(part), "{part}");
    }
    let said = run(dir, &["dissect", "--per-class", "8"]);
    assert_eq!(said.code, Some(2), "{said:?}");
}
