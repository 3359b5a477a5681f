//! Faults, migrations and exports of a study in a file. What every store must do: `tests/store.rs`.

use rusqlite::OpenFlags;

use super::open::*;
use super::*;
use crate::search::{Halton, Search};
use crate::space::{Axis, Space};
use crate::store::Metric;

const LEASE: Duration = Duration::from_secs(60);

fn space() -> Space {
    Space::new(Axis::new("lr", -8.0, 0.0), Axis::new("alpha", -2.0, 4.0)).unwrap()
}

fn study(trials: usize, seeds: &[u64]) -> Study {
    Study {
        name: "test".to_owned(),
        search: Search::Halton(Halton { space: space(), seed: 1 }).into(),
        metric: Metric::default(),
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
    End::Complete { val_top1: score, val_loss: Some(1.0 - score), test_top1: Some(score - 0.01) }
}

fn job(store: &mut Sqlite, lease: Duration) -> Job {
    match store.claim("w", lease).unwrap() {
        Claim::Run(job) => job,
        other => panic!("{other:?}"),
    }
}

fn score(point: &[f64]) -> f64 {
    let (x, y) = (point[0], point[1]);
    0.9 - 0.01 * ((x + 3.0).powi(2) + (y - 1.0).powi(2))
}

/// Works until there is nothing to do.
fn work(store: &mut Sqlite) -> String {
    loop {
        match store.claim("w", LEASE).unwrap() {
            Claim::Run(job) => assert!(store.finish(&job, &complete(score(&job.point))).unwrap()),
            Claim::Wait => std::thread::sleep(Duration::from_millis(1)),
            Claim::Done(reason) => return reason,
        }
    }
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
    let other = Search::Halton(Halton { space: space(), seed: 2 }).into();
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
        .map(|epoch| Epoch { epoch, train_loss: Some(1.0), val_loss: None, val_top1: 0.5 })
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
    let later = [MIGRATIONS[0], MIGRATIONS[1], "ALTER TABLE trial ADD COLUMN note TEXT"];
    migrate(&connection, &path, &later).unwrap();
    assert_eq!(version(&connection).unwrap(), 3);
    let kept: i64 = connection
        .query_row("SELECT count(*) FROM trial WHERE note IS NULL", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, 3);
    // Again is nothing.
    migrate(&connection, &path, &later).unwrap();
}

#[test]
fn a_study_of_the_first_schema_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.study");
    let connection = Connection::open(&path).unwrap();
    migrate(&connection, &path, &MIGRATIONS[..1]).unwrap();
    insert_study(&connection, &path, &study(2, &[0])).unwrap();
    let rows = "INSERT INTO trial VALUES (0, -3.25, 1.5, 1);
        INSERT INTO job (trial, seed, state, attempt, val_top1, val_loss) VALUES (0, 0, 'complete', 1, 0.75, 0.5);
        INSERT INTO curve VALUES (1, 0, 1.5, 0.5, 0.75)";
    connection.execute_batch(rows).unwrap();
    drop(connection);
    let reader = Sqlite::open_read_only(&path).unwrap().trials().unwrap();
    let mut store = Sqlite::open(&path).unwrap();
    let trials = store.trials().unwrap();
    assert_eq!(reader, trials);
    assert_eq!((&trials[0].point[..], trials[0].jobs[0].val_top1), (&[-3.25, 1.5][..], Some(0.75)));
    let epoch = Epoch { epoch: 0, train_loss: Some(1.5), val_loss: Some(0.5), val_top1: 0.75 };
    assert_eq!(trials[0].jobs[0].curve, [epoch]);
    work(&mut store);
    assert_eq!(store.trials().unwrap().len(), 2);
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
