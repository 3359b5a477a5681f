//! A worker whose trials only sleep, to load a study's store: `benches/store/load.py` starts many of them.
//!
//! `store_load PLACE TRIALS SLEEP_MS` opens the study at PLACE (a file or a URL), prints `ready`, and after a line on standard input,
//! or its end, takes part until TRIALS trials are done. It prints a line `TRIAL,ATTEMPT,CLAIM_MS,FINISH_MS,COUNTED` for each of its
//! own. `store_load PLACE` prints how often each trial ended.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fixnorm_tune::prune::Prune;
use fixnorm_tune::search::{Halton, Search};
use fixnorm_tune::space::{Axis, Space};
use fixnorm_tune::store::{Claim, End, Metric, Place, State, StoreError, Study};

const LEASE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [place] => count(place),
        [place, trials, sleep] => match (trials.parse(), sleep.parse()) {
            (Ok(trials), Ok(sleep)) => work(place, trials, Duration::from_millis(sleep)),
            _ => return usage(),
        },
        _ => return usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("error: expected PLACE [TRIALS SLEEP_MS]");
    ExitCode::from(2)
}

fn study(trials: usize) -> Study {
    let axes = (Axis::new("lr", -8.0, 0.0), Axis::new("alpha", -2.0, 4.0));
    let space = Space::new(axes.0, axes.1).expect("both axes have a width");
    Study {
        name: "load".to_owned(),
        search: Search::Halton(Halton { space, seed: 0 }).into(),
        metric: Metric::default(),
        trials,
        seeds: vec![0],
        all_seeds: false,
        noise: 0.01,
        epochs: 1,
        prune: Prune::Off,
        plan: "sleep".to_owned(),
        provenance: String::new(),
    }
}

fn work(place: &str, trials: usize, sleep: Duration) -> Result<(), StoreError> {
    let (mut store, _) = Place::named(Path::new(place))?.create_or_open(&study(trials))?;
    let worker = format!("process {}", std::process::id());
    // A reader that is gone is no error, here and below.
    let _ = writeln!(std::io::stdout(), "ready");
    let _ = std::io::stdin().read_line(&mut String::new());
    loop {
        let since = Instant::now();
        match store.claim(&worker, LEASE)? {
            Claim::Run(job) => {
                let claim = since.elapsed();
                let until = Instant::now() + sleep;
                while let Some(left) = until.checked_duration_since(Instant::now()) {
                    std::thread::sleep(left.min(LEASE / 4));
                    store.renew(&job, LEASE, &[])?;
                }
                let since = Instant::now();
                let end = End::Complete { val_top1: 0.5, val_loss: None, test_top1: None };
                let counted = store.finish(&job, &end)?;
                let [claim, finish] = [claim, since.elapsed()].map(|time| time.as_secs_f64() * 1e3);
                let _ = writeln!(
                    std::io::stdout(),
                    "{},{},{claim:.3},{finish:.3},{counted}",
                    job.trial,
                    job.attempt
                );
            }
            Claim::Wait => std::thread::sleep(Duration::from_millis(200)),
            Claim::Done(_) => return Ok(()),
        }
    }
}

fn count(place: &str) -> Result<(), StoreError> {
    let trials = Place::named(Path::new(place))?.open_read_only()?.trials()?;
    let jobs = || trials.iter().flat_map(|trial| &trial.jobs);
    let complete = jobs().filter(|job| job.state == State::Complete).count();
    let retried = jobs().filter(|job| job.attempt > 1).count();
    println!(
        "trials {}, jobs {}, complete {complete}, retried {retried}",
        trials.len(),
        jobs().count()
    );
    Ok(())
}
