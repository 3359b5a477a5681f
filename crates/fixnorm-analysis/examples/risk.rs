//! Cross-boundary risk of Gaussian features under a head of their class means, and how long it takes.
//!
//! ```sh
//! cargo run --release -p fixnorm-analysis --example risk -- 1000 50000 1280    # classes, samples, features
//! ```

use std::time::Instant;

use fixnorm_analysis::{Features, LinearHead, RiskConfig, cross_boundary_risk};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given: Vec<usize> =
        std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let [classes, samples, dim] = given[..].try_into().unwrap_or([10, 2000, 64]);
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut normal =
        |len: usize| -> Vec<f32> { (0..len).map(|_| StandardNormal.sample(&mut random)).collect() };
    let weight = normal(classes * dim);
    let mut values = normal(samples * dim);
    let labels: Vec<u32> = (0..samples).map(|i| (i % classes) as u32).collect();
    // Class means at a distance from each other of about eight standard deviations.
    let reach = 8.0 / (2.0 * dim as f32).sqrt();
    for (row, label) in values.chunks_exact_mut(dim).zip(&labels) {
        for (x, mean) in row.iter_mut().zip(&weight[*label as usize * dim..]) {
            *x += reach * mean;
        }
    }
    let clock = Instant::now();
    let head = LinearHead { weight: &weight, bias: &[], classes };
    let risk = cross_boundary_risk(
        Features { values: &values, labels: &labels },
        head,
        &RiskConfig::default(),
    )?;
    println!(
        "{classes} classes, {samples} samples, {dim} features: {:.1} s",
        clock.elapsed().as_secs_f64()
    );
    println!("sigma {:.4}, on a wrong side without noise {:.4}", risk.sigma, risk.misclassified);
    for at in &risk.risk {
        println!(
            "tau {:4}: risk {:.5} ± {:.5}, between {:.5} and {:.5}",
            at.tau, at.cbr, at.standard_error, at.lower, at.upper
        );
    }
    Ok(())
}
