//! Judges all tuners on the synthetic surfaces: `cargo run --release -p fixnorm-tune --example synthetic -- REPLAYS [TUNER]`.

use fixnorm_tune::replay::{Setting, TUNERS, judge};
use fixnorm_tune::surface::{Shape, Surface};

fn main() {
    let only = std::env::args().nth(2);
    let replays = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100);
    println!(
        "surface,noise,step,tuner,regret_4,regret_6,regret_8,regret_10,regret_12,regret_16,to_target,reached,used"
    );
    for noise in [0.001, 0.004] {
        for step in [0.0, 1.0] {
            for (name, shape) in Shape::ALL {
                let mut surface = Surface::new(shape, [-4.0, 1.0], noise);
                if step > 0.0 {
                    surface = surface.with_steps(step);
                }
                let setting =
                    Setting { trials: 16, replays, start: [-4.0, 1.0], offset: 2.0, seed: 0 };
                for tuner in
                    TUNERS.iter().filter(|t| only.as_deref().is_none_or(|only| t.name == only))
                {
                    let judged = judge(&surface, tuner, &setting);
                    let regret =
                        [4, 6, 8, 10, 12, 16].map(|t| format!("{:.4}", judged.regret[t - 1].mean));
                    println!(
                        "{name},{noise},{step},{},{},{:.2},{:.2},{:.1}",
                        tuner.name,
                        regret.join(","),
                        judged.to_target.mean,
                        judged.reached,
                        judged.used
                    );
                }
            }
        }
    }
}
