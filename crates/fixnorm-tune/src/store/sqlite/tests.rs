//! Sharing, faults and exports of a study in a file.

use rusqlite::OpenFlags;

use super::open::*;
use super::*;
use crate::prune::Prune;
use crate::search::{Halton, Search, TwoKnob};
use crate::space::{Axis, Space};

const LEASE: Duration = Duration::from_secs(60);

fn space() -> Space {
    Space::new(Axis::new("lr", -8.0, 0.0), Axis::new("alpha", -2.0, 4.0)).unwrap()
}

fn study(trials: usize, seeds: &[u64]) -> Study {
    Study {
        name: "test".to_owned(),
        search: Search::Halton(Halton { space: space(), seed: 1 }),
        trials,
        seeds: seeds.to_vec(),
        all_seeds: false,
        noise: 0.002,
        epochs: 4,
        prune: Prune::Off,
        plan: "model = \"resnet8\"\nepochs = 4\n".to_owned(),
        provenance: "{}".to_owned(),
    }
}

fn open(dir: &tempfile::TempDir, study: &Study) -> Sqlite {
    Sqlite::create_or_open(&dir.path().join("s.study"), study).unwrap().0
}

fn complete(score: f64) -> End {
    End::Complete { val_top1: score, val_loss: 1.0 - score, test_top1: Some(score - 0.01) }
}

fn job(store: &mut Sqlite, lease: Duration) -> Job {
    match store.claim("w", lease).unwrap() {
        Claim::Run(job) => job,
        other => panic!("{other:?}"),
    }
}

fn score([x, y]: crate::Point) -> f64 {
    0.9 - 0.01 * ((x + 3.0).powi(2) + (y - 1.0).powi(2))
}

/// Works until there is nothing to do.
fn work(store: &mut Sqlite) -> String {
    loop {
        match store.claim("w", LEASE).unwrap() {
            Claim::Run(job) => assert!(store.finish(&job, &complete(score(job.point))).unwrap()),
            Claim::Wait => std::thread::sleep(Duration::from_millis(1)),
            Claim::Done(reason) => return reason,
        }
    }
}

#[test]
fn workers_share_the_jobs_and_none_runs_twice() {
    let dir = tempfile::tempdir().unwrap();
    let study = study(12, &[0, 1, 2]);
    let taken: Vec<(usize, u64)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut store = open(&dir, &study);
                    let mut taken = vec![];
                    loop {
                        match store.claim("w", LEASE).unwrap() {
                            Claim::Run(job) => {
                                taken.push((job.trial, job.seed));
                                assert!(store.finish(&job, &complete(0.5)).unwrap());
                            }
                            Claim::Wait => std::thread::sleep(Duration::from_millis(1)),
                            Claim::Done(_) => return taken,
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let mut sorted = taken.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!((taken.len(), sorted.len()), (36, 36));
}

#[test]
fn a_study_continued_proposes_what_it_would_have() {
    let two_knob = Search::TwoKnob(TwoKnob::new(space(), [-5.0, 0.0], 0.002));
    let whole = Study { search: two_knob, ..study(20, &[0, 1]) };
    let (alone, interrupted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let reason = work(&mut open(&alone, &whole));
    assert!(reason.contains("expected to gain"), "{reason}");
    for trials in [1, 3, 5, 20] {
        // A job given back each time.
        let mut store = open(&interrupted, &Study { trials, ..whole.clone() });
        let job = job(&mut store, LEASE);
        store.release(&job).unwrap();
        work(&mut open(&interrupted, &Study { trials, ..whole.clone() }));
    }
    let points = |dir| -> Vec<crate::Point> {
        open(dir, &whole).trials().unwrap().iter().map(|trial| trial.point).collect()
    };
    assert_eq!(points(&alone), points(&interrupted));
}

#[test]
fn a_lease_that_ran_out_passes_the_job_on_and_the_late_result_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let (mut dead, mut alive) = (open(&dir, &study(1, &[7])), open(&dir, &study(1, &[7])));
    let lost = job(&mut dead, Duration::ZERO);
    std::thread::sleep(Duration::from_millis(5));
    let found = job(&mut alive, LEASE);
    assert_eq!((found.id, found.attempt, found.seed), (lost.id, 2, 7));
    assert!(!dead.renew(&lost, LEASE, &[]).unwrap());
    assert!(!dead.finish(&lost, &complete(0.1)).unwrap());
    dead.release(&lost).unwrap();
    assert_eq!(dead.claim("w", LEASE).unwrap(), Claim::Wait);
    assert!(alive.finish(&found, &complete(0.9)).unwrap());
    assert!(!alive.finish(&found, &complete(0.2)).unwrap());
    let trials = alive.trials().unwrap();
    assert_eq!(trials[0].jobs[0].val_top1, Some(0.9));
    assert!(matches!(dead.claim("w", LEASE).unwrap(), Claim::Done(_)));
}

#[test]
fn curves_are_kept_and_a_failed_seed_skips_the_rest_unless_a_table_is_made() {
    for all_seeds in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&dir, &Study { all_seeds, ..study(1, &[0, 1, 2]) });
        let first = job(&mut store, LEASE);
        let epoch = |epoch| Epoch { epoch, train_loss: 1.0, val_loss: 0.5, val_top1: 0.25 };
        assert!(store.renew(&first, LEASE, &[epoch(0)]).unwrap());
        assert!(store.renew(&first, LEASE, &[epoch(0), epoch(1)]).unwrap());
        let failed = End::Failed { diverged: true, reason: "the loss is NaN".to_owned() };
        assert!(store.finish(&first, &failed).unwrap());
        let trial = &store.trials().unwrap()[0];
        assert_eq!(trial.jobs[0].curve.len(), 2);
        assert_eq!(trial.jobs[0].cost, 0.5);
        assert_eq!(trial.told().outcome, crate::Outcome::Failed);
        let states: Vec<State> = trial.jobs.iter().map(|job| job.state).collect();
        let others = if all_seeds { State::Waiting } else { State::Skipped };
        assert_eq!(states, [State::Failed, others, others]);
    }
}

#[test]
fn a_trial_stopped_as_hopeless_is_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir, &study(4, &[0]));
    let curve = |scores: &[f64]| -> Vec<Epoch> {
        let epoch = |(epoch, &val_top1)| Epoch { epoch, train_loss: 1.0, val_loss: 1.0, val_top1 };
        scores.iter().enumerate().map(epoch).collect()
    };
    let curves = [&[0.5, 0.6, 0.7, 0.75][..], &[0.3, 0.5, 0.6, 0.70], &[0.1, 0.2, 0.3, 0.4]];
    for scores in curves {
        let job = job(&mut store, LEASE);
        store.renew(&job, LEASE, &curve(scores)).unwrap();
        store.finish(&job, &complete(scores[3])).unwrap();
    }
    let stopped = job(&mut store, LEASE);
    store.renew(&stopped, LEASE, &curve(&[0.2, 0.3])).unwrap();
    store.finish(&stopped, &End::Pruned).unwrap();
    // Two were ahead after two epochs; the worse of them ended at 0.70.
    let outcome = store.trials().unwrap()[3].told().outcome;
    assert_eq!(outcome, crate::Outcome::Bound { at_most: 0.70 });
}

#[test]
fn many_starts_at_once_all_open_the_study() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let study = study(1, &[0]);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (dir, study) = (&dir, &study);
                scope.spawn(move || {
                    let path = dir.path().join("s.study");
                    match number % 4 {
                        // One that only looks may come too early.
                        3 => match Sqlite::open_read_only(&path) {
                            Err(StoreError::Empty(_) | StoreError::Open { .. }) => {}
                            other => drop(other.unwrap()),
                        },
                        2 => Sqlite::probe(&path).unwrap(),
                        _ => {
                            Sqlite::create_or_open(&path, study).unwrap();
                            // The last process that closes the file removes its WAL.
                            Sqlite::open(&path).unwrap();
                        }
                    }
                });
            }
        });
    }
}

#[test]
fn a_probe_refuses_a_bad_path_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/s.study");
    Sqlite::probe(&path).unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("new")).unwrap().count(), 0);
    Sqlite::create_or_open(&path, &study(1, &[0])).unwrap();
    Sqlite::probe(&path).unwrap();
    for (name, content) in [("text", "model = 1\n"), ("text/s.study", "")] {
        let path = dir.path().join(name);
        if !content.is_empty() {
            std::fs::write(&path, content.repeat(300)).unwrap();
        }
        let error = Sqlite::probe(&path).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(matches!(Sqlite::probe(&path), Err(StoreError::Newer { .. })));
}

#[test]
fn a_study_is_read_without_writing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.study");
    let mut store = open(&dir, &study(2, &[0]));
    work(&mut store);
    let mut reader = Sqlite::open_read_only(&path).unwrap();
    assert_eq!(reader.trials().unwrap(), store.trials().unwrap());
    assert!(matches!(reader.claim("w", LEASE), Err(StoreError::ReadOnly(_))));
    let missing = Sqlite::open_read_only(&dir.path().join("missing")).unwrap_err();
    assert!(matches!(missing, StoreError::Open { .. }), "{missing}");
}

/// The superuser may write whatever the mode says, which makes this test pass without testing anything.
#[cfg(unix)]
#[test]
fn a_study_is_read_in_a_read_only_directory() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.study");
    work(&mut open(&dir, &study(2, &[0])));
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&path, 0o444);
    mode(dir.path(), 0o555);
    let found = Sqlite::open_read_only(&path).map(|store| store.trials().unwrap().len());
    mode(dir.path(), 0o755);
    assert_eq!(found.unwrap(), 2);
}

#[test]
fn another_plan_or_search_is_refused_and_more_trials_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.study");
    work(&mut open(&dir, &study(2, &[0])));
    let refused = |study: &Study| Sqlite::create_or_open(&path, study).unwrap_err().to_string();
    let error =
        refused(&Study { plan: "model = \"resnet8\"\nepochs = 5\n".to_owned(), ..study(2, &[0]) });
    assert!(error.contains("epochs = 4") && error.contains("epochs = 5"), "{error}");
    let other = Search::Halton(Halton { space: space(), seed: 2 });
    assert!(refused(&Study { search: other, ..study(2, &[0]) }).contains("another search"));
    assert!(refused(&study(2, &[0, 1])).contains("another seeds"));
    work(&mut open(&dir, &study(5, &[0])));
    assert_eq!(Sqlite::open(&path).unwrap().trials().unwrap().len(), 5);
}

#[test]
fn a_full_disk_loses_nothing_and_the_study_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir, &study(4, &[0]));
    let first = job(&mut store, LEASE);
    store.finish(&first, &complete(0.8)).unwrap();
    let second = job(&mut store, LEASE);
    let pages = pragma(&store.connection, "page_count").unwrap();
    pragma(&store.connection, &format!("max_page_count = {pages}")).unwrap();
    let epochs: Vec<Epoch> = (0..20_000)
        .map(|epoch| Epoch { epoch, train_loss: 1.0, val_loss: 1.0, val_top1: 0.5 })
        .collect();
    let error = store.renew(&second, LEASE, &epochs).unwrap_err();
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    assert!(error.to_string().contains("s.study") && error.to_string().contains("no space"));
    pragma(&store.connection, "max_page_count = 1000000").unwrap();
    assert!(store.finish(&second, &complete(0.9)).unwrap());
    let trials = store.trials().unwrap();
    assert_eq!(trials[0].jobs[0].val_top1, Some(0.8));
    assert!(trials[1].jobs[0].curve.is_empty());
}

#[test]
fn a_locked_file_is_named_with_the_likely_cause() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir, &study(2, &[0]));
    let mut other = Connection::open(dir.path().join("s.study")).unwrap();
    let held = other.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    store.connection.busy_timeout(Duration::from_millis(50)).unwrap();
    let error = store.claim("w", LEASE).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    held.rollback().unwrap();
    job(&mut store, LEASE);
}

#[test]
fn damaged_foreign_and_newer_files_are_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.study");
    let refused = || {
        let before = std::fs::read(&path).unwrap();
        let error = Sqlite::create_or_open(&path, &study(2, &[0])).unwrap_err();
        assert!(error.to_string().contains("s.study"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "{error}");
        assert!(Sqlite::open(&path).is_err());
        error
    };
    std::fs::write(&path, "model = \"resnet8\"\n".repeat(300)).unwrap();
    assert!(matches!(refused(), StoreError::NotAStudy { .. }));

    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE music (title TEXT)").unwrap();
    assert!(matches!(refused(), StoreError::NotAStudy { .. }));

    std::fs::remove_file(&path).unwrap();
    work(&mut open(&dir, &study(30, &[0, 1, 2])));
    let whole = std::fs::read(&path).unwrap();
    for share in [2, 4] {
        std::fs::write(&path, &whole[..whole.len() / share]).unwrap();
        assert!(matches!(refused(), StoreError::Damaged { .. }));
    }

    std::fs::write(&path, &whole).unwrap();
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(matches!(refused(), StoreError::Newer { found: 99, .. }));

    let missing = Sqlite::open(&dir.path().join("missing")).unwrap_err();
    assert!(matches!(missing, StoreError::Open { .. }), "{missing}");
    std::fs::write(&path, "").unwrap();
    let empty = Sqlite::open(&path).unwrap_err();
    assert!(matches!(empty, StoreError::Empty(_)), "{empty}");
}

#[test]
fn an_older_schema_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.study");
    work(&mut open(&dir, &study(3, &[0])));
    let connection = Connection::open(&path).unwrap();
    let later = [MIGRATIONS[0], "ALTER TABLE trial ADD COLUMN note TEXT"];
    migrate(&connection, &path, &later).unwrap();
    assert_eq!(version(&connection).unwrap(), 2);
    let kept: i64 = connection
        .query_row("SELECT count(*) FROM trial WHERE note IS NULL", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 3);
    // Again is nothing.
    migrate(&connection, &path, &later).unwrap();
}

#[cfg(unix)]
#[test]
fn a_read_only_file_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.study");
    work(&mut open(&dir, &study(1, &[0])));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    // The superuser may write whatever the mode says; for SQLite alone a file can still be read-only.
    if std::fs::OpenOptions::new().write(true).open(&path).is_err() {
        let error = Sqlite::create_or_open(&path, &study(1, &[0])).unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly(_)), "{error}");
    }
    let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let refused = connection.execute("DELETE FROM trial", []).unwrap_err();
    assert!(matches!(wrap(&path, PATIENCE, refused), StoreError::ReadOnly(_)));
}

#[test]
fn exports_hold_every_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(&dir, &Study { all_seeds: true, ..study(2, &[0, 1]) });
    let first = job(&mut store, LEASE);
    store
        .finish(&first, &End::Failed { diverged: true, reason: "the loss is NaN, inf".to_owned() })
        .unwrap();
    work(&mut store);
    let csv = super::super::to_csv(&store).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(
        lines[0].starts_with("trial,lr,alpha,seed,val_top1,val_loss,test_top1,diverged"),
        "{csv}"
    );
    assert!(lines[1].contains(",,,true,failed"), "{csv}");
    let optuna = dir.path().join("optuna.db");
    super::super::to_optuna(&store, &optuna).unwrap();
    let connection = Connection::open(&optuna).unwrap();
    let count = |sql: &str| -> i64 { connection.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert_eq!(count("SELECT count(*) FROM trials WHERE state = 'FAIL'"), 1);
    assert_eq!(count("SELECT count(*) FROM trial_values"), 1);
    assert_eq!(count("SELECT count(*) FROM trial_params"), 4);
    assert!(super::super::to_optuna(&store, &optuna).is_err());
}
