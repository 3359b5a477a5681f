//! What every store promises, on a file and on a database; and what a database's adds: lost connections, crashes, TLS.

#[cfg(feature = "postgres")]
mod server;

use std::time::Duration;

use fixnorm_tune::prune::Prune;
use fixnorm_tune::search::{Halton, Many, Method, Search, TwoKnob};
use fixnorm_tune::space::{Axis, Space};
use fixnorm_tune::store::{Claim, End, Epoch, Job, Metric, Place, State, Store, StoreError, Study};
use fixnorm_tune::{Outcome, Point};

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

fn complete(score: f64) -> End {
    End::Complete { val_top1: score, val_loss: Some(1.0 - score), test_top1: Some(score - 0.01) }
}

fn job(store: &mut dyn Store, lease: Duration) -> Job {
    match store.claim("w", lease).unwrap() {
        Claim::Run(job) => job,
        other => panic!("{other:?}"),
    }
}

fn score(point: &[f64]) -> f64 {
    0.9 - 0.01 * ((point[0] + 3.0).powi(2) + (point[1] - 1.0).powi(2))
}

/// Works until there is nothing to do, and returns what it took and why it ended.
fn work(store: &mut dyn Store) -> (Vec<(usize, u64)>, String) {
    let mut taken = vec![];
    loop {
        match store.claim("w", LEASE).unwrap() {
            Claim::Run(job) => {
                taken.push((job.trial, job.seed));
                assert!(store.finish(&job, &complete(score(&job.point))).unwrap());
            }
            Claim::Wait => std::thread::sleep(Duration::from_millis(5)),
            Claim::Done(reason) => return (taken, reason),
        }
    }
}

fn opened(place: &Place, study: &Study) -> Box<dyn Store> {
    place.create_or_open(study).unwrap().0
}

/// Everything that a store promises. `place` gives places without a study by name.
fn contract(place: &dyn Fn(&str) -> Place) {
    workers_share_the_jobs_and_none_runs_twice(&place("shared"));
    a_study_continued_proposes_what_it_would_have(&place("alone"), &place("interrupted"));
    a_setting_that_runs_again_has_other_seeds(&place("again"));
    a_lease_that_ran_out_passes_the_job_on(&place("lease"));
    curves_are_kept_and_a_failed_seed_skips_the_rest(&place("skips"), &place("table"));
    a_trial_stopped_as_hopeless_is_a_bound(&place("bound"));
    another_study_is_refused_and_more_trials_are_not(&place("other"));
    studies_are_copied_and_deleted(&place("origin"), &place("copy"));
    any_number_of_knobs_is_kept(place);
}

fn workers_share_the_jobs_and_none_runs_twice(place: &Place) {
    let study = study(12, &[0, 1, 2]);
    let taken: Vec<(usize, u64)> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| work(&mut *opened(place, &study)).0)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let mut sorted = taken.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!((taken.len(), sorted.len()), (36, 36));
}

fn a_study_continued_proposes_what_it_would_have(alone: &Place, interrupted: &Place) {
    let two_knob = Search::TwoKnob(TwoKnob::new(space(), [-5.0, 0.0], 0.002));
    let whole = Study { search: two_knob.into(), ..study(20, &[0, 1]) };
    let (_, reason) = work(&mut *opened(alone, &whole));
    assert!(reason.contains("expected to gain"), "{reason}");
    for trials in [1, 3, 5, 20] {
        // A job given back each time.
        let mut store = opened(interrupted, &Study { trials, ..whole.clone() });
        let job = job(&mut *store, LEASE);
        store.release(&job).unwrap();
        work(&mut *opened(interrupted, &Study { trials, ..whole.clone() }));
    }
    let points = |place: &Place| -> Vec<Vec<f64>> {
        opened(place, &whole).trials().unwrap().iter().map(|trial| trial.point.clone()).collect()
    };
    assert_eq!(points(alone), points(interrupted));
}

fn a_setting_that_runs_again_has_other_seeds(place: &Place) {
    let two_knob = TwoKnob { repeats: 2, ..TwoKnob::new(space(), [-3.0, 1.0], 0.03) };
    let search = Search::TwoKnob(two_knob);
    // Studies from before there were repetitions have none.
    let text = serde_json::to_string(&search).unwrap().replace(",\"repeats\":2", "");
    let Search::TwoKnob(old) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
    assert_eq!(old.repeats, 0);
    let mut store = opened(place, &Study { search: search.into(), ..study(40, &[5]) });
    work(&mut *store);
    let trials = store.trials().unwrap();
    let last = &trials.last().unwrap().point;
    let same: Vec<u64> =
        trials.iter().filter(|trial| trial.point == *last).map(|t| t.jobs[0].seed).collect();
    assert_eq!(same, [5, 6, 7]);
}

fn a_lease_that_ran_out_passes_the_job_on(place: &Place) {
    let (mut dead, mut alive) = (opened(place, &study(1, &[7])), opened(place, &study(1, &[7])));
    let lost = job(&mut *dead, Duration::ZERO);
    std::thread::sleep(Duration::from_millis(5));
    let found = job(&mut *alive, LEASE);
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

fn epoch(epoch: usize, val_top1: f64) -> Epoch {
    Epoch { epoch, train_loss: Some(1.0), val_loss: None, val_top1 }
}

fn curves_are_kept_and_a_failed_seed_skips_the_rest(skips: &Place, table: &Place) {
    for (place, all_seeds) in [(skips, false), (table, true)] {
        let mut store = opened(place, &Study { all_seeds, ..study(1, &[0, 1, 2]) });
        let first = job(&mut *store, LEASE);
        assert!(
            store.renew(&first, LEASE, &[epoch(0, 0.2), epoch(1, 0.3), epoch(2, 0.4)]).unwrap()
        );
        // Begun again by a command that does not resume.
        assert!(store.renew(&first, LEASE, &[epoch(0, 0.25)]).unwrap());
        assert!(store.renew(&first, LEASE, &[epoch(0, 0.25), epoch(1, 0.35)]).unwrap());
        let failed = End::Failed { diverged: true, reason: "the loss is NaN\0".to_owned() };
        assert!(store.finish(&first, &failed).unwrap());
        let trial = &store.trials().unwrap()[0];
        assert_eq!(trial.jobs[0].curve, [epoch(0, 0.25), epoch(1, 0.35)]);
        assert_eq!(trial.jobs[0].cost, 0.5);
        assert!(trial.jobs[0].reason.as_ref().unwrap().starts_with("the loss is NaN"));
        assert_eq!(trial.outcome(), Outcome::Failed);
        let states: Vec<State> = trial.jobs.iter().map(|job| job.state).collect();
        let others = if all_seeds { State::Waiting } else { State::Skipped };
        assert_eq!(states, [State::Failed, others, others]);
    }
}

fn a_trial_stopped_as_hopeless_is_a_bound(place: &Place) {
    let mut store = opened(place, &study(4, &[0]));
    let curve = |scores: &[f64]| -> Vec<Epoch> {
        scores.iter().enumerate().map(|(number, &score)| epoch(number, score)).collect()
    };
    let curves = [&[0.5, 0.6, 0.7, 0.75][..], &[0.3, 0.5, 0.6, 0.70], &[0.1, 0.2, 0.3, 0.4]];
    for scores in curves {
        let job = job(&mut *store, LEASE);
        store.renew(&job, LEASE, &curve(scores)).unwrap();
        store.finish(&job, &complete(scores[3])).unwrap();
    }
    let stopped = job(&mut *store, LEASE);
    store.renew(&stopped, LEASE, &curve(&[0.2, 0.3])).unwrap();
    store.finish(&stopped, &End::Pruned).unwrap();
    // Two were ahead after two epochs; the worse of them ended at 0.70.
    assert_eq!(store.trials().unwrap()[3].outcome(), Outcome::Bound { at_most: 0.70 });
}

fn another_study_is_refused_and_more_trials_are_not(place: &Place) {
    assert!(matches!(place.open(), Err(StoreError::Open { .. } | StoreError::Empty(_))));
    assert!(!place.exists().unwrap());
    place.probe().unwrap();
    assert!(place.create_or_open(&study(2, &[0])).unwrap().1);
    assert!(place.exists().unwrap());
    let longer = Study { plan: "model = \"resnet8\"\nepochs = 5\n".to_owned(), ..study(2, &[0]) };
    let error = place.create_or_open(&longer).err().unwrap().to_string();
    assert!(error.contains("epochs = 4") && error.contains("epochs = 5"), "{error}");
    assert!(error.contains(&place.to_string()), "{error}");
    let error = place.create_or_open(&study(2, &[0, 1])).err().unwrap();
    assert!(error.to_string().contains("another seeds") && error.is_usage(), "{error}");
    work(&mut *opened(place, &study(2, &[0])));
    work(&mut *opened(place, &study(5, &[0])));
    let mut reader = place.open_read_only().unwrap();
    assert_eq!((reader.study().trials, reader.trials().unwrap().len()), (5, 5));
    assert!(matches!(reader.claim("w", LEASE), Err(StoreError::ReadOnly(_))));
}

fn studies_are_copied_and_deleted(origin: &Place, copy: &Place) {
    let study = study(3, &[0, 1]);
    let mut store = opened(origin, &study);
    let first = job(&mut *store, LEASE);
    store.renew(&first, LEASE, &[epoch(0, 0.1), epoch(1, 1.0 / 3.0)]).unwrap();
    store.finish(&first, &complete(0.1 + 0.2)).unwrap();
    let running = job(&mut *store, LEASE);
    copy.import(&study, &store.trials().unwrap()).unwrap();
    assert!(matches!(copy.import(&study, &[]), Err(StoreError::Exists(_))));
    let copied = copy.open().unwrap();
    assert_eq!(copied.study(), &study);
    let mut expected = store.trials().unwrap();
    expected[0].jobs[1].state = State::Waiting;
    assert_eq!(copied.trials().unwrap(), expected);
    let (taken, _) = work(&mut *copy.open().unwrap());
    assert_eq!(taken.len(), 5);
    drop(copied);

    assert!(matches!(origin.delete(false), Err(StoreError::InUse { workers: 1, .. })));
    assert!(store.finish(&running, &complete(0.5)).unwrap());
    drop(store);
    origin.delete(false).unwrap();
    assert!(!origin.exists().unwrap() && copy.exists().unwrap());
    assert!(origin.delete(false).is_err());
}

fn any_number_of_knobs_is_kept(place: &dyn Fn(&str) -> Place) {
    for count in [1, 3, 5] {
        let axes = (0..count).map(|axis| Axis::linear(&format!("x{axis}"), -1.0, 1.0 / 3.0));
        let many = Many::new(axes.collect(), Method::Tpe { startup: 2 }, 3).unwrap();
        let study = Study { search: fixnorm_tune::search::Strategy::Many(many), ..study(4, &[0]) };
        let mut store = opened(&place(&format!("knobs{count}")), &study);
        let mut points = vec![];
        for _ in 0..4 {
            let job = job(&mut *store, LEASE);
            assert_eq!(job.point.len(), count);
            store.finish(&job, &complete(job.point[0])).unwrap();
            points.push(job.point);
        }
        let kept: Vec<Vec<f64>> =
            store.trials().unwrap().into_iter().map(|trial| trial.point).collect();
        assert_eq!(kept, points);
    }
}

#[test]
fn a_file_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract(&|name| Place::named(&dir.path().join(name)).unwrap());
}

#[test]
fn a_trial_of_two_knobs_is_told_as_a_point() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = opened(&Place::named(&dir.path().join("s")).unwrap(), &study(1, &[0]));
    let claimed = job(&mut *store, LEASE);
    let told: Point = store.trials().unwrap()[0].told().point;
    assert_eq!(told.to_vec(), claimed.point);
}

#[cfg(not(feature = "postgres"))]
#[test]
fn a_build_without_databases_says_so() {
    let error = Place::named(std::path::Path::new("postgres://ann:s3cret@host/lab")).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("without PostgreSQL"), "{error}");
    assert!(!error.to_string().contains("s3cret"));
}

#[cfg(feature = "postgres")]
mod postgres {
    use std::path::Path;
    use std::time::Instant;

    use super::server::{PASSWORD, Proxy, Server, url};
    use super::*;

    fn at(url: &str) -> Place {
        Place::named(Path::new(url)).unwrap()
    }

    #[test]
    fn a_database_keeps_the_contract() {
        let Some(server) = Server::start() else { return };
        contract(&|name| at(&server.url(name)));
        let names: Vec<String> =
            at(&server.url("x")).all().unwrap().iter().map(ToString::to_string).collect();
        assert!(names.iter().any(|name| name.ends_with("/postgres/shared")), "{names:?}");
        assert!(!names.iter().any(|name| name.contains(PASSWORD) || name.contains("origin")));
    }

    #[test]
    fn a_commit_whose_answer_is_lost_counts_once() {
        let Some(server) = Server::start() else { return };
        let proxy = Proxy::before(server.port());
        // Unencrypted: the proxy looks for words.
        let url = format!("{}?sslmode=disable", url(proxy.port, "lost"));
        let mut store = opened(&at(&url), &study(2, &[0]));
        proxy.arm();
        let first = job(&mut *store, LEASE);
        assert!(proxy.has_cut());
        // The one that was committed, not another one.
        let trials = store.trials().unwrap();
        assert_eq!((trials.len(), first.attempt, trials[0].jobs[0].attempt), (1, 1, 1));
        proxy.arm();
        assert!(store.renew(&first, LEASE, &[epoch(0, 0.5)]).unwrap());
        proxy.arm();
        assert!(store.finish(&first, &complete(0.5)).unwrap());
        assert!(proxy.has_cut());
        assert!(!store.finish(&first, &complete(0.6)).unwrap());
        let second = job(&mut *store, LEASE);
        assert_eq!((second.trial, second.attempt), (1, 1));
        proxy.arm();
        let failed = End::Failed { diverged: false, reason: "killed".to_owned() };
        assert!(store.finish(&second, &failed).unwrap());
        let trials = store.trials().unwrap();
        let jobs: Vec<_> = trials.iter().map(|trial| &trial.jobs[0]).collect();
        assert_eq!((jobs[0].val_top1, jobs[0].curve.len()), (Some(0.5), 1));
        assert_eq!((jobs[0].state, jobs[1].state), (State::Complete, State::Failed));
    }

    #[test]
    fn an_operation_asks_the_server_once_a_statement() {
        let Some(server) = Server::start() else { return };
        let proxy = Proxy::before(server.port());
        let place = at(&format!("{}?sslmode=disable", url(proxy.port, "trips")));
        let mut store = opened(&place, &study(5, &[0]));
        let asked = |work: &mut dyn FnMut()| {
            let before = proxy.requests();
            work();
            proxy.requests() - before
        };
        for _ in 0..2 {
            let mut taken = None;
            let claim = asked(&mut || taken = Some(job(&mut *store, LEASE)));
            let taken = taken.unwrap();
            let renew =
                asked(&mut || assert!(store.renew(&taken, LEASE, &[epoch(0, 0.5)]).unwrap()));
            let finish = asked(&mut || assert!(store.finish(&taken, &complete(0.5)).unwrap()));
            // Ten statements of a claim that proposes, three of a curve, one of a result; begin and end of each transaction.
            assert!(claim <= 12 && renew <= 5 && finish <= 3, "{claim} {renew} {finish}");
        }
    }

    #[test]
    fn a_server_that_crashes_twice_loses_no_trial() {
        let Some(mut server) = Server::start() else { return };
        let (place, study) = (at(&server.url("crash")), study(120, &[0]));
        let taken: Vec<(usize, u64)> = std::thread::scope(|scope| {
            let worker = || {
                let mut store = opened(&place, &study);
                let mut taken = vec![];
                loop {
                    match store.claim("w", LEASE).unwrap() {
                        Claim::Run(job) => {
                            taken.push((job.trial, job.seed));
                            std::thread::sleep(Duration::from_millis(40));
                            assert!(store.renew(&job, LEASE, &[epoch(0, 0.5)]).unwrap());
                            assert!(store.finish(&job, &complete(0.5)).unwrap());
                        }
                        Claim::Wait => std::thread::sleep(Duration::from_millis(20)),
                        Claim::Done(_) => return taken,
                    }
                }
            };
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            for _ in 0..2 {
                std::thread::sleep(Duration::from_millis(400));
                server.crash(Duration::from_millis(300));
            }
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        let mut sorted = taken.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((taken.len(), sorted.len()), (120, 120));
        let trials = place.open_read_only().unwrap().trials().unwrap();
        let states = trials.iter().map(|trial| trial.jobs[0].state);
        assert!(trials.len() == 120 && states.into_iter().all(|state| state == State::Complete));
    }

    #[test]
    fn certificates_are_checked_where_the_url_asks() {
        let Some(server) = Server::start() else { return };
        let roots = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls/ca.crt");
        let with = |parameters: &str| at(&format!("{}?{parameters}", server.url("tls")));
        for parameters in [
            "sslmode=disable".to_owned(),
            "sslmode=require".to_owned(),
            format!("sslmode=verify-full&sslrootcert={roots}"),
        ] {
            with(&parameters).create_or_open(&study(1, &[0])).unwrap();
        }
        let since = Instant::now();
        let error = with("sslmode=verify-full").open().err().unwrap().to_string();
        assert!(error.contains("certificate"), "{error}");
        let missing = with("sslmode=verify-full&sslrootcert=/missing.crt").open().err().unwrap();
        assert!(missing.to_string().contains("/missing.crt"), "{missing}");
        assert!(since.elapsed() < Duration::from_secs(5), "not tried again: {:?}", since.elapsed());
    }

    #[test]
    fn what_a_server_refuses_is_said_without_the_password() {
        let Some(server) = Server::start() else { return };
        let wrong = format!("postgres://ann:s3cret@127.0.0.1:{}/postgres", server.port());
        let missing = server.url("x").replace("/postgres/", "/missing/");
        for (url, part) in [(wrong, "authentication"), (missing, "missing")] {
            let error = at(&url).open().err().unwrap();
            let said = format!("{error} {error:?}");
            assert!(said.contains(part), "{said}");
            assert!(!said.contains("s3cret") && !said.contains(PASSWORD), "{said}");
        }
    }
}
