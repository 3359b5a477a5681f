//! Against hand computation, against cases with a known result, and against its own bounds.

use super::*;

/// Standard normal numbers that depend on the seed alone.
fn normal(seed: u64, len: usize) -> Vec<f32> {
    use rand_chacha::rand_core::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| StandardNormal.sample(&mut random)).collect()
}

fn config(draws: usize) -> RiskConfig {
    RiskConfig { draws, ..RiskConfig::default() }
}

#[test]
fn distances_by_hand() {
    // Rows (3, 0), (0, 4), (0, 0) with biases 1, 0, −1.
    let weight = [3.0, 0.0, 0.0, 4.0, 0.0, 0.0];
    let head = LinearHead { weight: &weight, bias: &[1.0, 0.0, -1.0], classes: 3 };
    let boundaries = Boundaries::new(head).unwrap();
    let features = Features { values: &[2.0, 1.0, 2.0, 1.0], labels: &[0, 1] };
    let margins = boundaries.margins(features).unwrap();
    // Logits 7, 4, −1 for both samples; gaps: 5 between 0 and 1, 3 from 0 to 2, 4 from 1 to 2.
    let found: Vec<f64> = boundaries.distances(margins.row(0), 0).collect();
    for (found, expected) in found.iter().zip([3.0 / 5.0, 8.0 / 3.0]) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
    let found: Vec<f64> = boundaries.distances(margins.row(1), 1).collect();
    for (found, expected) in found.iter().zip([-3.0 / 5.0, 5.0 / 4.0]) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

#[test]
fn sigma_is_the_spread_along_normals_alone() {
    // Both boundaries' normals lie along the first axis; the second one moves nothing.
    let weight = [1.0, 0.0, -1.0, 0.0];
    let head = LinearHead { weight: &weight, bias: &[], classes: 2 };
    let values = [1.0, 100.0, 3.0, -50.0, 5.0, 7.0, -2.0, 0.0];
    let features = Features { values: &values, labels: &[0, 0, 0, 1] };
    let boundaries = Boundaries::new(head).unwrap();
    let margins = boundaries.margins(features).unwrap();
    let sigmas = boundaries.sigmas(&margins, features.labels).unwrap();
    // 1, 3, 5: variance 4. A class of one sample takes what is known of the others.
    assert!((sigmas[0] - 2.0).abs() < 1e-6 && (sigmas[1] - 2.0).abs() < 1e-6, "{sigmas:?}");
    let risk = cross_boundary_risk(features, head, &config(0)).unwrap();
    assert_eq!((risk.count, risk.misclassified), (4, 0.0));
    assert!((risk.distance.quantiles[0].1 - 0.5).abs() < 1e-6, "{risk:?}");
}

/// Two classes of Gaussian features at ±δ along a normal, of standard deviation s: d ~ N(δ, s²), so the risk is
/// Φ(−δ/(s·√(1 + τ²))).
#[test]
fn gaussian_features_have_the_known_risk() {
    let (n, dim, delta, s) = (20_000, 7, 1.5f32, 1.2f32);
    let normal_vector: Vec<f32> = normal(1, dim);
    let length = normal_vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    let mut values = normal(2, n * dim);
    let labels: Vec<u32> = (0..n as u32).map(|i| i % 2).collect();
    for (row, label) in values.chunks_exact_mut(dim).zip(&labels) {
        let side = if *label == 0 { delta } else { -delta };
        for (x, u) in row.iter_mut().zip(&normal_vector) {
            *x = *x * s + side * u / length;
        }
    }
    let weight: Vec<f32> =
        normal_vector.iter().map(|u| 2.0 * u).chain(normal_vector.iter().map(|u| -u)).collect();
    let head = LinearHead { weight: &weight, bias: &[], classes: 2 };
    let risk =
        cross_boundary_risk(Features { values: &values, labels: &labels }, head, &config(400_000))
            .unwrap();
    assert!((risk.sigma / f64::from(s) - 1.0).abs() < 0.02, "{}", risk.sigma);
    for at in &risk.risk {
        let expected = below(-f64::from(delta / s) / (1.0 + at.tau * at.tau).sqrt());
        // What is expected is over features drawn anew; these have an error of their own, as σ has.
        let sampling = (expected * (1.0 - expected) / n as f64).sqrt();
        assert!((at.cbr - expected).abs() < 4.0 * sampling, "{at:?} against {expected}");
        // With two classes both bounds are the risk itself.
        assert_eq!(at.lower, at.upper);
        assert!((at.cbr - at.lower).abs() < 4.0 * at.standard_error, "{at:?}");
        assert!(at.standard_error > 1e-4 && at.standard_error < 1e-3, "{at:?}");
    }
}

#[test]
fn bounds_bracket_the_monte_carlo_in_ten_thousand_cases() {
    let mut apart = 0;
    let checked: Vec<(f64, f64)> = (0..10_000u64)
        .into_par_iter()
        .flat_map(|case| {
            let (classes, dim) = (2 + (case % 5) as usize, 1 + (case / 5 % 4) as usize);
            // In one dimension three or more normals are parallel: the bounds are then as far off as can be.
            let n = 3 * classes;
            let labels: Vec<u32> = (0..n).map(|i| (i % classes) as u32).collect();
            let mut values = normal(3 * case, n * dim);
            let weight = normal(3 * case + 1, classes * dim);
            let bias = normal(3 * case + 2, classes);
            for (row, label) in values.chunks_exact_mut(dim).zip(&labels) {
                for (x, w) in row.iter_mut().zip(&weight[*label as usize * dim..]) {
                    *x = 0.5 * *x + w * (case % 7) as f32 / 3.0;
                }
            }
            let head = LinearHead { weight: &weight, bias: &bias, classes };
            let features = Features { values: &values, labels: &labels };
            let config = RiskConfig { seed: case, ..config(n * 64) };
            let risk = cross_boundary_risk(features, head, &config).unwrap();
            let draws = (n * 64) as f64;
            let bracket = |at: &RiskAt| {
                // Of the estimate if a bound were the truth, as a share of what the draws allow.
                let error = |p: f64| (p * (1.0 - p) / draws).sqrt() + 1.0 / draws;
                ((at.lower - at.cbr) / error(at.lower), (at.cbr - at.upper) / error(at.upper))
            };
            risk.risk.iter().map(bracket).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(checked.len(), 40_000);
    for (below, above) in checked {
        assert!(below < 5.0 && above < 5.0, "{below} {above} standard errors outside");
        apart += usize::from(below < -1.0 && above < -1.0);
    }
    // Not because the bounds are everything: the estimate lies within most of them.
    assert!(apart > 5_000, "{apart}");
}

#[test]
fn scaling_the_head_changes_nothing() {
    let (n, dim, classes) = (60, 5, 4);
    let (values, weight, bias) = (normal(5, n * dim), normal(6, classes * dim), normal(7, classes));
    let labels: Vec<u32> = (0..n as u32).map(|i| i % classes as u32).collect();
    let features = Features { values: &values, labels: &labels };
    let risk = |scale: f32| {
        let scaled = |values: &[f32]| values.iter().map(|v| v * scale).collect::<Vec<_>>();
        let (weight, bias) = (scaled(&weight), scaled(&bias));
        let head = LinearHead { weight: &weight, bias: &bias, classes };
        cross_boundary_risk(features, head, &config(6000)).unwrap()
    };
    let plain = risk(1.0);
    // To the bit, for a power of two only moves the exponent.
    assert_eq!(risk(0.25), plain);
    let scaled = risk(37.0);
    assert!((scaled.sigma / plain.sigma - 1.0).abs() < 1e-5);
    for (a, b) in plain.risk.iter().zip(&scaled.risk) {
        assert!((a.lower - b.lower).abs() < 1e-6 && (a.upper - b.upper).abs() < 1e-6);
        assert!((a.cbr - b.cbr).abs() < 1e-3, "{a:?} {b:?}");
    }
}

#[test]
fn sigma_may_be_that_of_other_samples() {
    let weight = [1.0, 0.0, -1.0, 0.0];
    let head = LinearHead { weight: &weight, bias: &[], classes: 2 };
    let values = [2.0, 0.0, 2.1, 0.0, -2.0, 0.0, -2.1, 0.0];
    let features = Features { values: &values, labels: &[0, 0, 1, 1] };
    let wide = [1.0, 0.0, 3.0, 0.0, -1.0, 0.0, -3.0, 0.0];
    let others = Features { values: &wide, ..features };
    let own = cross_boundary_risk(features, head, &config(0)).unwrap();
    let found = cross_boundary_risk_with_sigma_of(others, features, head, &config(0)).unwrap();
    assert!((found.sigma - 2f64.sqrt()).abs() < 1e-6, "{found:?}");
    let least = |risk: &Risk| risk.distance.quantiles[0].1;
    assert!((least(&found) - 2.0 / 2f64.sqrt()).abs() < 1e-6 && least(&own) > 20.0);
    // With itself it is the plain risk.
    assert_eq!(cross_boundary_risk_with_sigma_of(features, features, head, &config(0)), Ok(own));
}

#[test]
fn threads_change_nothing_and_the_seed_does() {
    let (n, dim, classes) = (201, 9, 6);
    let (values, weight) = (normal(8, n * dim), normal(9, classes * dim));
    let labels: Vec<u32> = (0..n as u32).map(|i| i * i % classes as u32).collect();
    let features = Features { values: &values, labels: &labels };
    let head = LinearHead { weight: &weight, bias: &[], classes };
    let with = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let config = RiskConfig { seed, ..config(5000) };
        pool.install(|| cross_boundary_risk(features, head, &config).unwrap())
    };
    let one = with(1, 0);
    assert_eq!(with(3, 0), one);
    let other = with(1, 1);
    assert_ne!(other.risk, one.risk);
    assert_eq!(other.distance, one.distance);
}

#[test]
fn wrong_input_is_named() {
    let risk = |values: &[f32], labels: &[u32], weight: &[f32], bias: &[f32], classes| {
        let features = Features { values, labels };
        let head = LinearHead { weight, bias, classes };
        cross_boundary_risk(features, head, &config(100)).unwrap_err().to_string()
    };
    let two = [1.0, 0.0, 0.0, 1.0];
    assert_eq!(
        risk(&[1.0; 4], &[0, 2], &two, &[], 2),
        "sample 1 has label 2, and the head has 2 classes"
    );
    assert_eq!(risk(&[1.0; 3], &[0, 1], &two, &[], 2), "features: expected 4, got 3");
    assert_eq!(risk(&[1.0; 4], &[0, 1], &two, &[1.0], 2), "head bias: expected 2, got 1");
    assert_eq!(risk(&[1.0; 4], &[0, 1], &two[..3], &[], 2), "head weight: expected 2, got 3");
    assert_eq!(risk(&[1.0; 4], &[0, 1], &two, &[], 1), "classes (at least): expected 2, got 1");
    assert_eq!(risk(&[], &[], &two, &[], 2), "samples (at least): expected 1, got 0");
    assert!(risk(&[1.0, f32::NAN, 1.0, 1.0], &[0, 1], &two, &[], 2).starts_with("sample 0"));
    assert!(risk(&[1.0; 4], &[0, 1], &[1.0; 4], &[], 2).starts_with("classes 0 and 1"));
    assert!(risk(&[1.0; 4], &[0, 0], &two, &[], 2).contains("σ is zero"));
    let config = RiskConfig { taus: vec![0.0], ..config(0) };
    let head = LinearHead { weight: &two, bias: &[], classes: 2 };
    let features = Features { values: &[1.0, 2.0, 3.0, 4.0], labels: &[0, 0] };
    assert_eq!(cross_boundary_risk(features, head, &config), Err(RiskError::Tau(0.0)));
}
