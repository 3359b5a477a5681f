//! Requirements on every searcher, on shapes that none was made for.

use fixnorm_tune::replay::{Setting, TUNERS, judge};
use fixnorm_tune::search::{Gp, Grid, Halton, Random, Tpe, TwoKnob};
use fixnorm_tune::surface::{Landscape, Shape, Surface};
use fixnorm_tune::{Ask, Outcome, Search, Searcher, Space, Told, choose};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

fn searches(space: &Space, start: [f64; 2], noise: f64, seed: u64) -> Vec<Search> {
    let space = || space.clone();
    let stepped = Space { axes: space().axes.map(|axis| axis.with_step(3.0)), ..space() };
    vec![
        Search::TwoKnob(TwoKnob::new(space(), start, noise)),
        Search::Random(Random { space: space(), seed }),
        Search::Halton(Halton { space: space(), seed }),
        Search::Grid(Grid { space: stepped }),
        Search::Tpe(Tpe { space: space(), seed, startup: 3, first: None }),
        Search::GpEi(Gp { space: space(), seed, startup: 3, first: Some(start) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn proposals_lie_inside_and_follow_from_the_history(
        shape in 0..Shape::ALL.len(),
        optimum in (-9.0..1.0, -1.5..3.5),
        start in (-12.0..4.0, -4.0..6.0),
        noise in 1e-4..1e-2,
        step in prop_oneof![Just(0.0), Just(1.0), Just(1.5)],
        pending in 0usize..4,
        seed in 0u64..1000,
    ) {
        let mut surface = Surface::new(Shape::ALL[shape].1, optimum.into(), noise);
        if step > 0.0 {
            surface = surface.with_steps(step);
        }
        for search in searches(surface.space(), start.into(), noise, seed) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut history: Vec<Told> = vec![];
            while history.len() < 14 {
                let ask = search.ask(&history);
                // Asked again, and as a study would save and load it.
                let saved = serde_json::to_string(&search).unwrap();
                let loaded: Search = serde_json::from_str(&saved).unwrap();
                prop_assert_eq!(&ask, &loaded.ask(&history));
                let Ask::Try(point) = ask else { break };
                prop_assert_eq!(search.space().snap(point), point, "{}", search.name());
                history.push(Told { point, outcome: surface.draw(point, &mut rng) });
            }
            prop_assert!(!matches!(search.ask(&history), Ask::Wait), "{}", search.name());
            if let Some(choice) = choose(surface.space(), &history, noise) {
                prop_assert!(history[choice.trial].outcome.score().is_some());
                prop_assert!(choice.score.mean.is_finite() && choice.score.std > 0.0);
                prop_assert!(!choice.next.is_empty());
            }
            // Trials that still run change nothing but the wait.
            for told in history.iter_mut().rev().take(pending) {
                told.outcome = Outcome::Pending;
            }
            if let Ask::Try(point) = search.ask(&history) {
                prop_assert_eq!(search.space().snap(point), point);
            }
        }
    }

    #[test]
    fn two_knob_ends_by_itself(
        shape in 0..Shape::ALL.len(),
        optimum in (-9.0..1.0, -1.5..3.5),
        start in (-12.0..4.0, -4.0..6.0),
        noise in 1e-4..1e-2,
        seed in 0u64..1000,
    ) {
        let surface = Surface::new(Shape::ALL[shape].1, optimum.into(), noise);
        let search = TwoKnob::new(surface.space().clone(), start.into(), noise);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut history: Vec<Told> = vec![];
        while let Ask::Try(point) = search.ask(&history) {
            history.push(Told { point, outcome: surface.draw(point, &mut rng) });
            prop_assert!(history.len() < 60);
        }
    }
}

#[test]
fn two_knob_beats_chance_on_every_shape_in_eight_trials() {
    let setting = Setting { trials: 8, replays: 30, start: [-4.0, 1.0], offset: 2.0, seed: 3 };
    let tuner = |name: &str| TUNERS.iter().find(|tuner| tuner.name == name).unwrap();
    for (name, shape) in Shape::ALL {
        for noise in [0.001, 0.004] {
            let surface = Surface::new(shape, [-4.0, 1.0], noise);
            let ours = judge(&surface, tuner("two-knob"), &setting).regret[7];
            let random = judge(&surface, tuner("random"), &setting).regret[7];
            assert!(ours.mean < random.mean, "{name}: {ours:?} against {random:?}");
            // Branin has three optima and the start is near none.
            let within = if shape == Shape::Branin { 0.5 } else { 0.35 };
            assert!(
                ours.mean < within * random.mean + noise,
                "{name}: {ours:?} against {random:?}"
            );
        }
    }
}
