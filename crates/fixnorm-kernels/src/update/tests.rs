//! The fast update against its scalar twin, over lengths, groups and base updates.

use super::*;
use proptest::prelude::*;

/// States of one base update, kept apart from the borrow that [`Base`] is.
#[derive(Clone, Debug)]
struct States {
    kind: usize,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl States {
    fn base(&mut self) -> Base<'_> {
        match self.kind {
            0 | 1 => {
                Base::Sgd { velocity: &mut self.first, momentum: 0.9, nesterov: self.kind == 1 }
            }
            2 => Base::RmsProp {
                square_average: &mut self.second,
                velocity: &mut self.first,
                alpha: 0.9,
                momentum: 0.9,
                epsilon: 1e-3,
                lr: 0.02,
            },
            _ => Base::Adam {
                first_moment: &mut self.first,
                second_moment: &mut self.second,
                betas: (0.9, 0.999),
                epsilon: 1e-8,
                corrections: (1.0 - 0.9f64.powi(3), 1.0 - 0.999f64.powi(3)),
            },
        }
    }
}

fn values(len: usize, seed: u32) -> Vec<f32> {
    (0..len as u32)
        .map(|i| {
            ((i.wrapping_mul(2654435761).wrapping_add(seed * 97) >> 8) as f32 / 8388608.0) - 1.0
        })
        .collect()
}

/// Every group back to norm 1.5 after a raw step.
fn on_sphere(moments: Moments) -> Coefficients {
    let (a, b) = (1.0, -0.1);
    let norm = (a * a * moments.ww + 2.0 * a * b * moments.wd + b * b * moments.dd).sqrt();
    Coefficients { a: a * 1.5 / norm, b: b * 1.5 / norm }
}

fn close(fast: &[f32], twin: &[f32], tolerance: f32) {
    for (index, (&fast, &twin)) in fast.iter().zip(twin).enumerate() {
        // Written so that a NaN fails.
        let near = (fast - twin).abs() <= tolerance * (1.0 + twin.abs());
        assert!(near, "element {index}: {fast} against {twin}");
    }
}

fn check_against_twin(kind: usize, outer: usize, groups: Groups, l2: f32) {
    for isa in Isa::available() {
        check_isa_against_twin(isa, kind, outer, groups, l2);
    }
}

fn check_isa_against_twin(isa: Isa, kind: usize, outer: usize, groups: Groups, l2: f32) {
    let len = outer * groups.count * groups.inner;
    let (mut weight, mut states) = (
        values(len, 1),
        States {
            kind,
            first: values(len, 2),
            second: values(len, 3).iter().map(|v| v.abs()).collect(),
        },
    );
    let (mut twin_weight, mut twin_states) = (weight.clone(), states.clone());
    let rule = |_, moments| on_sphere(moments);
    update_on(isa, &mut weight, &mut values(len, 4), &mut states.base(), l2, groups, rule);
    let (twin, twin_base) = (&mut twin_weight, &mut twin_states.base());
    scalar::update(twin, &mut values(len, 4), twin_base, l2, groups, rule);
    close(&weight, &twin_weight, 2e-6);
    close(&states.first, &twin_states.first, 2e-6);
    close(&states.second, &twin_states.second, 2e-6);
    for norm in norms(&weight, groups) {
        assert!((norm / 1.5 - 1.0).abs() < 1e-6, "norm {norm}");
    }
}

proptest! {
    #[test]
    fn agrees_with_scalar_twin(
        kind in 0usize..4,
        outer in 1usize..4,
        count in 1usize..6,
        inner in prop::sample::select(vec![1, 2, 7, 8, 9, 63, 64, 65, 1023, 2049]),
        l2 in prop::sample::select(vec![0.0f32, 0.01]),
    ) {
        check_against_twin(kind, outer, Groups { count, inner }, l2);
    }
}

#[test]
fn weights_of_several_parts_agree_with_scalar_twin() {
    for kind in 0..4 {
        for groups in [Groups::whole(2 * PART + 5), Groups { count: 3, inner: PART - 1 }] {
            check_against_twin(kind, 1, groups, 0.01);
        }
        check_against_twin(kind, PART + 1, Groups { count: 2, inner: 1 }, 0.0);
    }
}

#[test]
fn threads_do_not_change_the_result() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let len = 3 * PART + 7;
        let mut states = States { kind: 1, first: values(len, 2), second: vec![] };
        let mut weight = values(len, 1);
        let rule = |_, moments| on_sphere(moments);
        let groups = Groups::whole(len);
        pool.install(|| {
            update(&mut weight, &mut values(len, 4), &mut states.base(), 0.0, groups, rule)
        });
        (weight, states.first)
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn empty_weight_is_left_alone() {
    let mut states = States { kind: 0, first: vec![], second: vec![] };
    update(&mut [], &mut [], &mut states.base(), 0.1, Groups::whole(0), |_, moments| {
        assert_eq!(moments, Moments::default());
        Coefficients { a: 1.0, b: -1.0 }
    });
}

#[test]
fn nan_stays_in_its_group() {
    let groups = Groups { count: 2, inner: 3 };
    let mut weight = values(6, 1);
    let mut grad = values(6, 2);
    grad[4] = f32::NAN;
    let mut states = States { kind: 0, first: vec![0.0; 6], second: vec![] };
    update(&mut weight, &mut grad, &mut states.base(), 0.0, groups, |_, m| on_sphere(m));
    assert!(weight[..3].iter().all(|w| w.is_finite()));
    assert!(weight[3..].iter().all(|w| w.is_nan()));
}

#[test]
fn huge_and_subnormal_values_keep_their_norm() {
    for scale in [1e-39f32, 1e18] {
        let mut weight: Vec<f32> = values(65, 1).iter().map(|v| v * scale).collect();
        let norm = norms(&weight, Groups::whole(65))[0];
        assert!(norm > 0.0 && norm.is_finite());
        project(&mut weight, Groups::whole(65), |_, _| Some(2.0));
        assert!((norms(&weight, Groups::whole(65))[0] / 2.0 - 1.0).abs() < 1e-6);
    }
}

#[test]
fn groups_follow_the_axis() {
    // [2, 3, 5]: along axis 1 the groups are rows of five, in turn.
    assert_eq!(Groups::along(&[2, 3, 5], 1), Groups { count: 3, inner: 5 });
    let mut seen = vec![];
    Groups::along(&[2, 3, 5], 1).for_each_run(0..30, |group, s, e| seen.push((group, s, e)));
    assert_eq!(seen, [(0, 0, 5), (1, 5, 10), (2, 10, 15), (0, 15, 20), (1, 20, 25), (2, 25, 30)]);
    let linear = Groups::along(&[2, 3], 1);
    assert_eq!(norms(&[3.0, 0.0, 1.0, 4.0, 2.0, 0.0], linear), [5.0, 2.0, 1.0]);
}

#[test]
fn zero_group_is_not_divided_by() {
    let mut weight = [0.0, 0.0, 3.0, 4.0];
    project(&mut weight, Groups { count: 2, inner: 2 }, |_, _| Some(1.0));
    assert_eq!(weight, [0.0, 0.0, 0.6, 0.8]);
}

#[test]
#[should_panic(expected = "optimizer state length")]
fn wrong_state_length_is_refused() {
    let mut states = States { kind: 0, first: vec![0.0; 3], second: vec![] };
    update(&mut [0.0; 4], &mut [0.0; 4], &mut states.base(), 0.0, Groups::whole(4), |_, _| {
        Coefficients { a: 1.0, b: 0.0 }
    });
}
