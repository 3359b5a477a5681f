//! Judges all tuners on tables of real results, as docs/tuning.md says.
//!
//! `cargo run --release -p fixnorm-tune --example replay -- [--trials 20] [--replays 200] [--offset 2] [--seed 0]
//! [--start LR,VALUE | --steps T --batch B [--features F]] [--prior FILE.json] [--tuners NAME,…] TABLE.csv…` prints one line per table,
//! tuner and number of trials. `--steps` and `--batch` start at the law's point, in tables with a column `angle`; it is not
//! moved unless `--offset` says so. `--prior` is what `benches/tables/fit_prior.py` printed of other tables. Optuna's samplers
//! on the same tables: `benches/peers/tune_replay.py`, in the same columns.

use std::process::ExitCode;

use fixnorm_tune::law;
use fixnorm_tune::prior::Prior;
use fixnorm_tune::replay::{Setting, TUNERS, judge};
use fixnorm_tune::surface::Landscape;
use fixnorm_tune::table::Table;

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Vec<String>) -> Result<(), String> {
    let (mut trials, mut replays, mut offset, mut seed) = (20, 200, None, 0);
    let (mut start, mut steps, mut batch, mut features) = (None, None, None, law::FEATURES);
    let mut prior: Option<Prior> = None;
    let (mut only, mut files): (Option<Vec<String>>, Vec<String>) = (None, vec![]);
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--trials" => trials = parse(&value()?)?,
            "--replays" => replays = parse(&value()?)?,
            "--offset" => offset = Some(parse(&value()?)?),
            "--steps" => steps = Some(parse::<f64>(&value()?)?),
            "--batch" => batch = Some(parse::<f64>(&value()?)?),
            "--features" => features = parse(&value()?)?,
            "--prior" => prior = Some(read_prior(&value()?)?),
            "--tuners" => only = Some(value()?.split(',').map(str::to_owned).collect()),
            "--seed" => seed = parse(&value()?)?,
            "--start" => {
                let text = value()?;
                let (a, b) = text.split_once(',').ok_or("--start needs LR,VALUE")?;
                start = Some([parse::<f64>(a)?.log2(), parse::<f64>(b)?.log2()]);
            }
            file => files.push(file.to_owned()),
        }
    }
    let of_law = match (steps, batch, start) {
        (None, None, _) => None,
        (Some(steps), Some(batch), None) => Some(law::start(steps, batch, features)),
        (_, _, Some(_)) => return Err("either --start or --steps with --batch".to_owned()),
        _ => return Err("--steps and --batch belong together".to_owned()),
    };
    let offset = offset.unwrap_or(if of_law.is_some() { 0.0 } else { 2.0 });
    for name in only.iter().flatten() {
        if !TUNERS.iter().any(|tuner| tuner.name == name) {
            let names: Vec<&str> = TUNERS.iter().map(|tuner| tuner.name).collect();
            return Err(format!("no tuner `{name}`; there are {}", names.join(", ")));
        }
    }
    if files.is_empty() || trials == 0 || replays == 0 {
        return Err("name at least one table, a trial and a replay".to_owned());
    }
    println!(
        "table,tuner,trials,regret,low,high,to_target,to_target_low,to_target_high,reached,used,noise,test_regret,first_hit,\
         first_hit_low,first_hit_high"
    );
    for file in files {
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
        let mut table = Table::from_csv(&text).map_err(|error| format!("{file}: {error}"))?;
        if let Some(prior) = &prior {
            table = table.with_prior(prior.clone());
        }
        if of_law.is_some() && table.space().axes[0].name != "angle" {
            return Err(format!(
                "{file}: --steps needs a column `angle`; name the start with --start"
            ));
        }
        let start = start.or(of_law).unwrap_or_else(|| table.space().centre());
        let setting = Setting { trials, replays, start, offset, seed };
        let wanted = |name: &str| only.as_ref().is_none_or(|only| only.iter().any(|n| n == name));
        for tuner in TUNERS.iter().filter(|tuner| wanted(tuner.name)) {
            let judged = judge(&table, tuner, &setting);
            for (i, regret) in judged.regret.iter().enumerate() {
                let test = judged.test_regret.get(i).copied().flatten();
                println!(
                    "{file},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
                    judged.tuner,
                    i + 1,
                    regret.mean,
                    regret.low,
                    regret.high,
                    judged.to_target.mean,
                    judged.to_target.low,
                    judged.to_target.high,
                    judged.reached,
                    judged.used,
                    table.noise(),
                    test.map_or_else(String::new, |test: f64| test.to_string()),
                    judged.first_hit.mean,
                    judged.first_hit.low,
                    judged.first_hit.high,
                );
            }
        }
    }
    Ok(())
}

fn read_prior(file: &str) -> Result<Prior, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{file}: {error}"))
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("expected a number, found `{text}`"))
}
