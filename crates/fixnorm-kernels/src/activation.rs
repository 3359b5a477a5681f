//! Activation functions and their derivatives.
//! Not here: loops over images (`rows.rs`).

use crate::lanes::{fma, map};

/// An activation function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// Nothing.
    #[default]
    Identity,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// x·sigmoid(x), also called swish.
    Silu,
    /// x·min(max(x + 3, 0), 6)/6.
    HardSwish,
    /// min(max(x + 3, 0), 6)/6.
    HardSigmoid,
    /// 1/(1 + e⁻ˣ).
    Sigmoid,
}

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 7] = [
        Activation::Identity,
        Activation::Relu,
        Activation::Relu6,
        Activation::Silu,
        Activation::HardSwish,
        Activation::HardSigmoid,
        Activation::Sigmoid,
    ];

    /// Returns its value at `x`. NaN gives NaN.
    pub fn value(self, x: f32) -> f32 {
        let [value] = self.values([x]);
        value
    }

    /// Returns its derivative at `x`. At a kink it is PyTorch's choice: that of the constant side.
    pub fn slope(self, x: f32) -> f32 {
        let [slope] = self.slopes([x]);
        slope
    }

    /// Its values at some channels: the function is chosen once for all of them.
    #[inline(always)]
    pub(crate) fn values<const W: usize>(self, x: [f32; W]) -> [f32; W] {
        match self {
            Activation::Identity => x,
            Activation::Relu => map!(|i| above0(x[i])),
            Activation::Relu6 => map!(|i| clamp6(x[i])),
            Activation::Silu => map!(|i| x[i] * sigmoid(x[i])),
            Activation::HardSwish => map!(|i| x[i] * clamp6(x[i] + 3.0) * (1.0 / 6.0)),
            Activation::HardSigmoid => map!(|i| clamp6(x[i] + 3.0) * (1.0 / 6.0)),
            Activation::Sigmoid => map!(|i| sigmoid(x[i])),
        }
    }

    /// Its derivatives at some channels.
    #[inline(always)]
    pub(crate) fn slopes<const W: usize>(self, x: [f32; W]) -> [f32; W] {
        match self {
            Activation::Identity => [1.0; W],
            Activation::Relu => map!(|i| if x[i] <= 0.0 { 0.0 } else { 1.0 }),
            Activation::Relu6 => map!(|i| if x[i] <= 0.0 || x[i] >= 6.0 { 0.0 } else { 1.0 }),
            Activation::Silu => map!(|i| {
                let s = sigmoid(x[i]);
                s * fma(x[i], 1.0 - s, 1.0)
            }),
            Activation::HardSwish => map!(|i| {
                let inside = x[i] * (1.0 / 3.0) + 0.5;
                let low = if x[i] <= -3.0 { 0.0 } else { inside };
                if x[i] >= 3.0 { 1.0 } else { low }
            }),
            Activation::HardSigmoid => {
                map!(|i| if x[i] <= -3.0 || x[i] >= 3.0 { 0.0 } else { 1.0 / 6.0 })
            }
            Activation::Sigmoid => map!(|i| {
                let s = sigmoid(x[i]);
                s * (1.0 - s)
            }),
        }
    }
}

// Not `max`, which would swallow a NaN.
#[inline(always)]
fn above0(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn clamp6(x: f32) -> f32 {
    let x = above0(x);
    if x > 6.0 { 6.0 } else { x }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    reciprocal(1.0 + exp(-x))
}

/// 1/x within 3 units in the last place for x from 1 to 1e38; NaN gives NaN.
///
/// A division takes as long as ten other instructions. Each Newton step doubles the correct digits of a first guess, a
/// difference of bit patterns whose constant keeps its error below an eighth.
#[inline(always)]
fn reciprocal(x: f32) -> f32 {
    let mut y = f32::from_bits(0x7ef3_11c3_u32.wrapping_sub(x.to_bits()));
    for _ in 0..3 {
        y = fma(y, fma(-x, y, 1.0), y);
    }
    y
}

/// eˣ within 2 units in the last place between -87 and 87, clamped to that range, of whose results
/// [`reciprocal`] can take one; NaN gives NaN.
///
/// x = n·ln 2 + r with |r| ≤ ln 2/2, and eʳ by a polynomial (the coefficients of Cephes' `expf`).
/// Without branches or calls, so that loops become vector instructions.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let low = if x < -87.0 { -87.0 } else { x };
    let x = if low > 87.0 { 87.0 } else { low };
    // Adding and subtracting 1.5·2²³ rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let shifted = fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma(n, 2.121_944_4e-4, fma(n, -0.693_359_4, x));
    let mut p = 1.987_569_1e-4;
    p = fma(p, r, 1.398_199_9e-3);
    p = fma(p, r, 8.333_452e-3);
    p = fma(p, r, 4.166_579_6e-2);
    p = fma(p, r, 0.166_666_66);
    p = fma(p, r, 0.5);
    let value = fma(p * r, r, r) + 1.0;
    // The integer is in the low bits of `shifted`; shifted left it becomes the exponent.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    value * scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        for i in -87_000..87_000 {
            let x = i as f32 / 1000.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.5e-7, "exp({x}) is off by {error:e}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(f32::NEG_INFINITY), exp(-87.0));
        assert_eq!(exp(f32::INFINITY), exp(87.0));
    }

    #[test]
    fn values_are_those_of_the_definitions() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let hard = |x: f64| (x + 3.0).clamp(0.0, 6.0) / 6.0;
        let near = (-2000..2000).map(|i| f64::from(i) / 200.0);
        // Around the ends of the range where an exponential is finite and positive, and far beyond.
        let far = (400..500).map(|i| f64::from(i) / 5.0).chain((4..30).map(|i| 10f64.powi(i)));
        for x in near.chain(far.clone()).chain(far.map(|x| -x)) {
            for activation in Activation::ALL {
                let expected = match activation {
                    Activation::Identity => x,
                    Activation::Relu => x.max(0.0),
                    Activation::Relu6 => x.clamp(0.0, 6.0),
                    Activation::Silu => x * sigmoid(x),
                    Activation::HardSwish => x * hard(x),
                    Activation::HardSigmoid => hard(x),
                    Activation::Sigmoid => sigmoid(x),
                };
                let got = f64::from(activation.value(x as f32));
                let allowed = 2e-6 * expected.abs().max(1.0);
                assert!((got - expected).abs() < allowed, "{activation:?}({x}): {got}, {expected}");
                let slope = activation.slope(x as f32);
                assert!((-0.5..=1.5).contains(&slope), "{activation:?} has slope {slope} at {x}");
            }
        }
        for activation in Activation::ALL {
            assert!(activation.value(f32::NAN).is_nan(), "{activation:?}");
        }
    }

    #[test]
    fn slopes_are_the_differences_of_the_values() {
        const STEP: f64 = 1e-4;
        // Not at the kinks, which are at integers.
        for i in (-1399..1400).step_by(2) {
            let x = f64::from(i) / 200.0 + 0.001;
            for activation in Activation::ALL {
                let smooth = |x: f64| -> f64 {
                    let sigmoid = 1.0 / (1.0 + (-x).exp());
                    match activation {
                        Activation::Silu => x * sigmoid,
                        Activation::Sigmoid => sigmoid,
                        _ => f64::from(activation.value(x as f32)),
                    }
                };
                let difference = (smooth(x + STEP) - smooth(x - STEP)) / (2.0 * STEP);
                let slope = f64::from(activation.slope(x as f32));
                assert!(
                    (slope - difference).abs() < 6e-3,
                    "{activation:?} at {x}: {slope}, {difference}"
                );
            }
        }
    }

    #[test]
    fn kinks_are_pytorchs() {
        assert_eq!(Activation::Relu.slope(0.0), 0.0);
        assert_eq!(Activation::Relu6.slope(6.0), 0.0);
        assert_eq!(Activation::HardSigmoid.slope(3.0), 0.0);
        assert_eq!(Activation::HardSwish.slope(3.0), 1.0);
        assert_eq!(Activation::HardSwish.slope(-3.0), 0.0);
    }
}
