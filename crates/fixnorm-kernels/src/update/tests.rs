//! The fast update against its scalar twin, over lengths, groups and base updates.

use super::*;
use proptest::prelude::*;

/// One step of every kind of base update.
fn base_step(kind: usize) -> BaseStep {
    let sgd =
        BaseStep { momentum: 0.9, gain: 1.0, output: 1.0, lookahead: 0.0, scaling: Scaling::None };
    let adam =
        Scaling::Direction { inflow: 1e-3, root: (1.0f32 - 0.997).sqrt().recip(), epsilon: 1e-8 };
    match kind {
        0 => sgd,
        1 => BaseStep { output: 0.9, lookahead: 1.0, ..sgd },
        2 => BaseStep { scaling: Scaling::Gradient { inflow: 0.1, epsilon: 1e-3 }, ..sgd },
        3 => BaseStep { gain: 0.1, output: 3.7, scaling: adam, ..sgd },
        _ => BaseStep { gain: 0.1, output: 0.9, lookahead: 0.1, scaling: adam, ..sgd },
    }
}

/// Kinds that [`base_step`] knows.
const KINDS: usize = 5;

/// A base update and its states, as vectors.
#[derive(Clone, Debug)]
struct Owned {
    base: BaseStep,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Owned {
    fn new(kind: usize, len: usize) -> Self {
        let base = base_step(kind);
        let second = if base.has_second() { values(len, 3) } else { vec![] };
        let second = second.iter().map(|v| v.abs()).collect();
        Self { base, first: values(len, 2), second }
    }

    fn update_on(
        &mut self,
        isa: Isa,
        weight: &mut [f32],
        grad: &mut [f32],
        l2: f32,
        groups: Groups,
    ) {
        let Self { base, first, second } = self;
        let states = States { first, second };
        update_on(isa, weight, grad, states, base, l2, groups, |_, m| on_sphere(m));
    }

    fn update(&mut self, weight: &mut [f32], grad: &mut [f32], l2: f32, groups: Groups) {
        self.update_on(Isa::current(), weight, grad, l2, groups);
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
    let (mut weight, mut states) = (values(len, 1), Owned::new(kind, len));
    let (mut twin_weight, mut twin) = (weight.clone(), states.clone());
    states.update_on(isa, &mut weight, &mut values(len, 4), l2, groups);
    let twin_states = States { first: &mut twin.first, second: &mut twin.second };
    let grad = &mut values(len, 4);
    scalar::update(&mut twin_weight, grad, twin_states, &twin.base, l2, groups, |_, m| {
        on_sphere(m)
    });
    close(&weight, &twin_weight, 2e-6);
    close(&states.first, &twin.first, 2e-6);
    close(&states.second, &twin.second, 2e-6);
    for norm in norms(&weight, groups) {
        assert!((norm / 1.5 - 1.0).abs() < 1e-6, "norm {norm}");
    }
}

proptest! {
    #[test]
    fn agrees_with_scalar_twin(
        kind in 0usize..KINDS,
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
    for kind in 0..KINDS {
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
        let (mut weight, mut states) = (values(len, 1), Owned::new(1, len));
        let groups = Groups::whole(len);
        pool.install(|| states.update(&mut weight, &mut values(len, 4), 0.0, groups));
        (weight, states.first)
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn empty_weight_is_left_alone() {
    let states = States { first: &mut [], second: &mut [] };
    update(&mut [], &mut [], states, &base_step(0), 0.1, Groups::whole(0), |_, moments| {
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
    Owned::new(0, 6).update(&mut weight, &mut grad, 0.0, groups);
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
    Owned::new(0, 3).update(&mut [0.0; 4], &mut [0.0; 4], 0.0, Groups::whole(4));
}

#[test]
#[should_panic(expected = "optimizer state length")]
fn missing_second_state_is_refused() {
    let mut adam = Owned::new(3, 4);
    adam.second.clear();
    adam.update(&mut [0.0; 4], &mut [0.0; 4], 0.0, Groups::whole(4));
}
