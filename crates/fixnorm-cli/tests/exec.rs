//! `fixnorm tune --exec` around a shell script, and `fixnorm study`: shared, killed, failing and copied studies.

mod common;
#[cfg(feature = "postgres")]
mod server;

use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};

use common::{fixnorm, json, run, trials, wait_until};
use serde_json::Value;

/// Four epochs of a tenth of a second; goes on where an earlier attempt was killed, and records each epoch it has run.
const SCRIPT: &str = r#"
lr=$1 alpha=$2 out=$3
epoch=$(cat "$out/next" 2>/dev/null || echo 0)
while [ "$epoch" -lt 4 ]; do
    sleep 0.1
    echo "$epoch" >> "$out/epochs"
    awk -v e="$epoch" -v lr="$lr" -v a="$alpha" 'BEGIN {
        x = log(lr) - log(0.1); y = log(a) - log(2)
        printf "{\"epoch\": %d, \"val_top1\": %.6f}\n", e, (0.9 - 0.02 * (x * x + y * y)) * (0.7 + 0.1 * e)
    }'
    epoch=$((epoch + 1))
    echo "$epoch" > "$out/next.new" && mv "$out/next.new" "$out/next"
done
"#;

/// A search of a command over two knobs; the study follows.
fn tune<'a>(exec: &'a str, study: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["tune", "--exec", exec, "--lr", "0.01:1", "--alpha", "0.5:8"];
    arguments.extend(["--searcher", "halton", "--lease", "2", "--study", study]);
    arguments.extend(more);
    arguments
}

const RUN_SCRIPT: &str = "sh script.sh {lr} {alpha} {out}";

fn worker(dir: &Path, arguments: &[&str], name: &str) -> Child {
    let log = File::create(dir.join(format!("{name}.log"))).unwrap();
    fixnorm(dir, arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// Twelve trials by four workers, two of which are killed. What runs under `runs` began before the study is read.
fn four_workers_of_which_two_are_killed(dir: &Path, study: &str) -> Value {
    std::fs::write(dir.join("script.sh"), SCRIPT).unwrap();
    let arguments = tune(RUN_SCRIPT, study, &["--trials", "12", "--runs", "the runs"]);
    let names = ["first", "second", "third", "fourth"];
    let mut workers = names.map(|name| worker(dir, &arguments, name));
    let begun = || std::fs::read_dir(dir.join("the runs")).map_or(0, Iterator::count);
    wait_until("a run", || begun() >= 6);
    for worker in &mut workers[..2] {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    for (worker, name) in workers.iter_mut().zip(names).skip(2) {
        let status = worker.wait().unwrap();
        let log = || std::fs::read_to_string(dir.join(format!("{name}.log")));
        assert!(status.success(), "{name} worker, {status}: {:?}", log());
    }
    let shown = json(dir, &["study", "show", study]);
    assert_eq!(trials(&shown).len(), 12);
    let mut attempts = 0;
    for (number, trial) in trials(&shown).iter().enumerate() {
        assert_eq!((&trial["state"], &trial["trial"]), (&"complete".into(), &number.into()));
        let seed = &trial["seeds"][0];
        attempts += seed["attempt"].as_u64().unwrap() - 1;
        assert_eq!(seed["curve"].as_array().unwrap().len(), 4, "{seed}");
        assert_eq!(seed["curve"][3]["val_top1"], trial["val_top1"]);
        // Each epoch ran once; the one that a kill interrupted perhaps twice.
        let epochs = dir.join(format!("the runs/trial-{number:03}-seed-0/epochs"));
        let epochs = std::fs::read_to_string(epochs).unwrap().lines().count() as u64;
        assert!((4..4 + seed["attempt"].as_u64().unwrap()).contains(&epochs), "{epochs} {seed}");
    }
    assert!(attempts >= 1, "nothing was interrupted");
    shown
}

#[test]
fn a_command_is_tuned_by_workers_of_which_two_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let shown = four_workers_of_which_two_are_killed(dir.path(), "s.study");
    assert_eq!((&shown["limit"], &shown["complete"]), (&12.into(), &12.into()));
    assert!(shown["best"]["val_top1"].as_f64().unwrap() > 0.8, "{}", shown["best"]);
    // Nothing is left to do, and nothing of it has changed.
    let again = json(dir.path(), &["tune", "--study", "s.study"]);
    assert_eq!(again["trials"], shown["trials"]);
    json(dir.path(), &["report", "s.study", "-o", "page.html"]);
    let page = std::fs::read_to_string(dir.path().join("page.html")).unwrap();
    for title in ["Score by trial", "Curves of the trials"] {
        assert!(page.contains(&format!("<b>{title}</b>")), "{title}");
    }
}

#[cfg(feature = "postgres")]
#[test]
fn a_command_is_tuned_through_a_database() {
    let Some(server) = server::Server::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = server.url("tuned");
    four_workers_of_which_two_are_killed(dir.path(), &url);
    // Passwords come from the environment or a file, too, and are shown nowhere.
    let plain = url.replace(":pass%3Aw0rd@", "@");
    let listed = |name: &str, value: &str| {
        let mut command = fixnorm(dir.path(), &["--format", "json", "study", "list", &plain]);
        let output = command.env(name, value).output().unwrap();
        common::Said::from(output)
    };
    let passfile = dir.path().join("passfile");
    std::fs::write(&passfile, "127.0.0.1:*:postgres:ann:pass\\:w0rd\n").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    for (name, value) in
        [("PGPASSWORD", server::PASSWORD), ("PGPASSFILE", passfile.to_str().unwrap())]
    {
        let said = listed(name, value);
        assert!(said.code == Some(0) && said.stdout.contains("/postgres/tuned"), "{said:?}");
    }
    let refused = listed("PGPASSWORD", "wrong");
    assert!(refused.code == Some(1) && refused.stderr.contains("authentication"), "{refused:?}");
    let secret = |text: &str| text.contains("w0rd") || text.contains("wrong");
    assert!(!secret(&refused.stderr));
    for name in ["first", "second", "third", "fourth"] {
        assert!(!secret(&std::fs::read_to_string(dir.path().join(format!("{name}.log"))).unwrap()));
    }
    // To a file and back under another name.
    json(dir.path(), &["study", "copy", &url, "copy.study"]);
    json(dir.path(), &["study", "copy", "copy.study", &server.url("again")]);
    let shown = |place: &str| json(dir.path(), &["study", "show", place])["trials"].clone();
    assert_eq!(shown("copy.study"), shown(&url));
    assert_eq!(shown(&server.url("again")), shown(&url));
    json(dir.path(), &["study", "delete", &url]);
    assert_eq!(run(dir.path(), &["study", "show", &url]).code, Some(1));
}

#[test]
fn failures_are_outcomes_with_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (name, exec, more, diverged, parts) in [
        (
            "code",
            "echo {lr}; echo 'no such file' >&2; exit 3",
            &[][..],
            false,
            &["exit code 3", "no such file"][..],
        ),
        ("signal", "echo {lr}; kill -9 $$", &[], false, &["SIGKILL", "last lines"]),
        (
            "memory",
            "echo {lr}; echo 'CUDA out of memory' >&2; exit 1",
            &[],
            false,
            &["out of memory, exit"],
        ),
        (
            "nan",
            r#"echo '{{"epoch": 0, "val_top1": 0.5}}'; echo '{{"val_top1": NaN}}'; : {lr}"#,
            &[],
            true,
            &["not finite"],
        ),
        (
            "none",
            "echo working on {lr}",
            &[],
            false,
            &["without a value of val_top1", "working on"],
        ),
        ("time", "echo {lr}; sleep 100", &["--timeout", "0.3"], false, &["0.3 s"]),
    ] {
        let study = format!("{name}.study");
        let mut more = more.to_vec();
        more.extend(["--shell", "--trials", "1", "--searcher", "random"]);
        let mut arguments = vec!["tune", "--exec", exec, "--knob", "lr=0.1:1", "--study", &study];
        arguments.extend(more);
        let result = json(dir, &arguments);
        let seed = &trials(&result)[0]["seeds"][0];
        assert_eq!(seed["state"], "failed", "{name}: {seed}");
        assert_eq!(seed["diverged"], diverged, "{name}: {seed}");
        let reason = seed["reason"].as_str().unwrap();
        assert!(parts.iter().all(|part| reason.contains(part)), "{name}: {reason}");
    }
    let missing = run(
        dir,
        &["tune", "--exec", "no-such-program {lr}", "--knob", "lr=0:1", "--study", "m.study"],
    );
    assert_eq!(missing.code, Some(2), "{missing:?}");
    assert!(missing.stderr.contains("no-such-program"), "{missing:?}");
}

#[test]
fn the_smallest_value_of_three_knobs_is_found_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("knobs.toml"), "a = \"0.1:10:log\"\nb = \"-1:1\"\n").unwrap();
    let exec = "awk -v a={a} -v b={b} -v c={c} -v seed={seed} \
                'BEGIN {print \"{\\\"loss\\\": \" (log(a)^2 + b*b + c*c) \"}\" > \"{out}/log.jsonl\"}'";
    let result = json(
        dir,
        &[
            "tune",
            "--exec",
            exec,
            "--knobs",
            "knobs.toml",
            "--knob",
            "c=0:1",
            "--metric",
            "loss",
            "--goal",
            "min",
            "--read",
            "{out}/log.jsonl",
            "--trials",
            "8",
            "--seeds",
            "2",
            "--first-seed",
            "5",
            "--study",
            "l.study",
            "--export-csv",
            "l.csv",
        ],
    );
    let losses: Vec<f64> =
        trials(&result).iter().map(|trial| trial["loss"].as_f64().unwrap()).collect();
    let smallest = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!((losses.len(), result["best"]["loss"].as_f64()), (8, Some(smallest)));
    let csv = std::fs::read_to_string(dir.join("l.csv")).unwrap();
    assert!(
        csv.starts_with("trial,c,a,b,seed,loss,") || csv.starts_with("trial,a,b,c,seed,loss,"),
        "{csv}"
    );
    assert_eq!(csv.lines().count(), 17);
    let row = trials(&result)[3].clone();
    for (name, low, high) in [("a", 0.1, 10.0), ("b", -1.0, 1.0), ("c", 0.0, 1.0)] {
        let value = row[name].as_f64().unwrap();
        assert!((low..=high).contains(&value), "{name} {value}");
    }
    assert_eq!(row["seeds"][1]["seed"], 6);
}

#[test]
fn hopeless_trials_are_stopped_early() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("script.sh"), SCRIPT).unwrap();
    let more = ["--trials", "9", "--steps", "4", "--prune", "halving"];
    let result = json(dir.path(), &tune(RUN_SCRIPT, "p.study", &more));
    let pruned = trials(&result).iter().filter(|trial| trial["state"] == "pruned").count();
    let complete = trials(&result).iter().filter(|trial| trial["state"] == "complete").count();
    assert!(pruned >= 1 && complete >= 3 && pruned + complete == 9, "{pruned} {complete}");
}

#[test]
fn studies_are_listed_copied_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("runs")).unwrap();
    let exec = "echo '{\"epoch\": 0, \"val_top1\": {lr}}'";
    let arguments = ["tune", "--exec", exec, "--shell", "--knob", "lr=0.1:1"];
    // Single quotes hide a variable from the shell, so nothing is reported.
    let mut quoted = arguments.to_vec();
    quoted.extend(["--trials", "1", "--study", "runs/q.study"]);
    assert_eq!(trials(&json(dir, &quoted))[0]["state"], "failed");
    let mut plain = vec!["tune", "--exec", "echo {\"val_top1\":{lr}}", "--knob", "lr=0.1:1"];
    plain[2] = "echo '{\"val_top1\":{lr}}'";
    plain.extend(["--trials", "3", "--study", "runs/a.study"]);
    let result = json(dir, &plain);
    assert!(trials(&result).iter().all(|trial| trial["state"] == "complete"), "{result}");
    let listed = json(dir, &["study", "list"]);
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|row| row["study"].as_str().unwrap()).collect();
    assert_eq!(names, ["runs/a.study", "runs/q.study"]);
    assert_eq!((&listed[0]["complete"], &listed[1]["failed"]), (&3.into(), &1.into()));
    json(dir, &["study", "copy", "runs/a.study", "b.study"]);
    assert_eq!(json(dir, &["study", "show", "b.study"])["trials"], result["trials"]);
    let exists = run(dir, &["study", "copy", "runs/q.study", "b.study"]);
    assert!(exists.code == Some(1) && exists.stderr.contains("exists already"), "{exists:?}");
    json(dir, &["study", "delete", "b.study"]);
    assert!(!dir.join("b.study").exists());
    assert_eq!(run(dir, &["study", "show", "b.study"]).code, Some(1));
}

#[test]
fn wrong_flags_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        (&["--exec", "x {lr} {beta}", "--knob", "lr=0:1"][..], "--knob beta="),
        (&["--exec", "x", "--knob", "lr=0:1"], "knob lr"),
        (&["--exec", "x {lr}", "--knob", "lr=1:0"], "LOW below HIGH"),
        (&["--exec", "x {lr}", "--knob", "lr=0:1", "--searcher", "two-knob"], "takes two knobs"),
        (&["--exec", "x {lr}", "--knob", "lr=0:1", "--prune", "median"], "--steps"),
        (&["--exec", "x {lr}", "--knob", "lr=0:1", "--set", "model=resnet8"], "--exec"),
        (&["--knob", "lr=0:1"], "--exec"),
        (&["--study", "postgres://ann:s3cret@host"], "postgres://"),
    ] {
        let mut all = vec!["tune"];
        all.extend(arguments);
        let said = run(dir.path(), &all);
        assert_eq!(said.code, Some(2), "{arguments:?} {said:?}");
        assert!(said.stderr.contains(part) && !said.stderr.contains("s3cret"), "{said:?}");
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().flatten().filter(|e| e.path().is_file()).count(),
        0
    );
}
