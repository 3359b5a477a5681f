//! Training in several processes that `mpirun` starts on this machine. A build without MPI refuses it.

mod common;

#[cfg(not(feature = "mpi"))]
#[test]
fn a_build_without_mpi_refuses_several_processes() {
    let dir = tempfile::tempdir().unwrap();
    common::data(dir.path(), "data");
    let variables = [
        ("mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
        ("mpiexec", "PMI_SIZE", "PMI_RANK"),
        ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
        ("torchrun", "WORLD_SIZE", "RANK"),
    ];
    for (launcher, count, rank) in variables {
        let mut command = common::fixnorm(dir.path(), &common::small_run("out", &[]));
        let said: common::Said = command.env(count, "4").env(rank, "0").output().unwrap().into();
        assert_eq!(said.code, Some(2), "{said:?}");
        let expected = format!("error: {launcher} started 4 processes, and this build cannot");
        assert!(said.stderr.starts_with(&expected), "{said:?}");
        assert!(said.stderr.contains("--features mpi` and start them by mpirun"), "{said:?}");
        assert!(!dir.path().join("out").exists());
    }
}

#[cfg(feature = "mpi")]
mod with_mpi {
    use std::fs;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::common::{Said, data, events, fixnorm, run, small_run, wait_for_step, wait_until};

    /// The command on so many ranks, one thread each; none where there is no `mpirun`.
    fn mpirun(dir: &Path, ranks: usize, arguments: &[&str]) -> Option<Command> {
        if Command::new("mpirun").arg("--version").output().is_err() {
            eprintln!("skipped: there is no mpirun");
            return None;
        }
        let program = fixnorm(dir, arguments);
        let mut command = Command::new("mpirun");
        command.args(["--allow-run-as-root", "--oversubscribe", "-n", &ranks.to_string()]);
        command.arg(program.get_program()).args(program.get_args());
        command.current_dir(dir).stdin(Stdio::null()).env("FIXNORM_CACHE", dir.join(".cache"));
        command.env("RAYON_NUM_THREADS", "1");
        Some(command)
    }

    fn succeeds(mut command: Command) -> Said {
        let said = Said::from(command.output().unwrap());
        assert_eq!(said.code, Some(0), "{said:?}");
        said
    }

    fn losses(run: &Path) -> Vec<f64> {
        events(run, "step").iter().map(|event| event["loss"].as_f64().unwrap()).collect()
    }

    /// The largest difference of the losses, relative.
    fn apart(some: &[f64], others: &[f64]) -> f64 {
        assert_eq!(some.len(), others.len());
        some.iter().zip(others).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max)
    }

    const TOGETHER: [&str; 2] = ["--set", "train.sync_batch_norm=true"];

    #[test]
    fn four_ranks_have_the_losses_of_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        data(dir, "data");
        // Fifty steps of a calm run: a network with ReLUs amplifies rounding, by 1e5 in fifty steps of usual length.
        let calm = ["--set", "train.batch_size=64", "--epochs", "10", "--lr", "1e-4"];
        let settings = [&TOGETHER[..], &calm].concat();
        let Some(command) = mpirun(dir, 4, &small_run("ranks", &settings)) else { return };
        let said = succeeds(command);
        // One reports.
        assert_eq!(said.stdout.matches("val top-1").count(), 1, "{said:?}");
        assert_eq!(said.stderr.matches("epoch  10/10").count(), 1, "{said:?}");
        let alone = run(dir, &small_run("alone", &settings));
        assert_eq!(alone.code, Some(0), "{alone:?}");
        let (ranks, alone) = (losses(&dir.join("ranks")), losses(&dir.join("alone")));
        assert_eq!(ranks.len(), 50);
        assert!(apart(&ranks, &alone) < 1e-5, "{ranks:?} {alone:?}");
        // Statistics of each rank's own share make another run.
        let own = succeeds(mpirun(dir, 4, &small_run("own", &calm)).unwrap());
        assert!(apart(&losses(&dir.join("own")), &alone) > 1e-3, "{own:?}");
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        files.retain(|name| name != ".cache");
        assert_eq!(files, ["alone", "data", "own", "ranks"]);
    }

    #[test]
    fn two_ranks_are_two_devices() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        data(dir, "data");
        // With usual learning rates: a sum of two is the same in any order.
        let settings = [&TOGETHER[..], &["--epochs", "2"]].concat();
        let Some(command) = mpirun(dir, 2, &small_run("ranks", &settings)) else { return };
        succeeds(command);
        let devices = [&settings[..], &["--devices", "cpu,cpu"]].concat();
        let said = run(dir, &small_run("devices", &devices));
        assert_eq!(said.code, Some(0), "{said:?}");
        let (ranks, devices) = (losses(&dir.join("ranks")), losses(&dir.join("devices")));
        assert!(ranks.len() > 30 && apart(&ranks, &devices) < 1e-6, "{ranks:?} {devices:?}");
    }

    #[test]
    fn a_killed_rank_ends_the_job_and_two_ranks_resume() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        data(dir, "data");
        let settings = ["--epochs", "10"];
        let Some(mut command) = mpirun(dir, 4, &small_run("out", &settings)) else { return };
        let mut job = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for_step(&mut job, &dir.join("out"), 7);
        let ranks = children(job.id());
        assert_eq!(ranks.len(), 4);
        let kill = Command::new("kill").args(["-9", &ranks[2].to_string()]).status().unwrap();
        assert!(kill.success());
        // The job ends by itself, with all ranks.
        assert!(!job.wait().unwrap().success());
        wait_until("the end of all ranks", || !ranks.iter().any(|rank| runs(*rank)));
        assert!(!dir.join("out/result.json").exists());

        let resumed = ["train", "--resume", "--out", "out"];
        let said = succeeds(mpirun(dir, 2, &resumed).unwrap());
        assert_eq!(said.stdout.matches("val top-1").count(), 1, "{said:?}");
        // Every step is logged once.
        let steps = events(&dir.join("out"), "step");
        let steps: Vec<_> = steps.iter().map(|step| step["step"].as_u64().unwrap()).collect();
        assert!(steps.iter().copied().eq(0..200), "{steps:?}");
    }

    /// The processes that this one started.
    fn children(id: u32) -> Vec<u32> {
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }

    /// Whether the process is there and has not ended.
    fn runs(id: u32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        state.is_some_and(|state| state != 'Z')
    }

    #[test]
    fn processes_that_mpi_does_not_know_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        data(dir.path(), "data");
        for (launcher, count, rank) in
            [("torchrun", "WORLD_SIZE", "RANK"), ("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")]
        {
            let mut command = fixnorm(dir.path(), &small_run("out", &[]));
            let said = Said::from(command.env(count, "2").env(rank, "1").output().unwrap());
            assert_eq!(said.code, Some(2), "{said:?}");
            let expected = format!("{launcher} started 2 processes, and MPI finds 1");
            assert!(said.stderr.contains(&expected), "{said:?}");
            assert!(said.stderr.contains("mpirun"), "{said:?}");
            assert!(!dir.path().join("out").exists());
        }
    }

    #[test]
    fn an_error_of_one_rank_ends_all() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        data(dir, "data");
        let uneven = ["--set", "train.batch_size=18"];
        let Some(mut command) = mpirun(dir, 4, &small_run("uneven", &uneven)) else { return };
        let said = Said::from(command.output().unwrap());
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains("train.batch_size = 18 is not divisible by 4"), "{said:?}");
        // A rank that fails while the other waits for it.
        let mut command = mpirun(dir, 1, &small_run("apart", &[])).unwrap();
        let other = fixnorm(dir, &small_run("apart", &["--seed", "4"]));
        command.args([":", "-n", "1"]).arg(other.get_program()).args(other.get_args());
        let said = Said::from(command.output().unwrap());
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.stderr.contains("rank 1 has another plan than rank 0"), "{said:?}");
        assert!(said.stderr.contains("train.seed was 3, is 4"), "{said:?}");
    }
}
