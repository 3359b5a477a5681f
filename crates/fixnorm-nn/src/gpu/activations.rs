//! Activations and their derivatives, in CubeCL.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use fixnorm_kernels::Activation;

/// The activation.
#[cube]
pub(super) fn activate(z: f32, #[comptime] activation: Activation) -> f32 {
    let mut y = z;
    if comptime!(activation == Activation::Relu) {
        y = select(z < 0.0f32, 0.0f32, z);
    } else if comptime!(activation == Activation::Relu6) {
        y = select(z < 0.0f32, 0.0f32, select(z > 6.0f32, 6.0f32, z));
    } else if comptime!(activation == Activation::Silu) {
        y = z * sigmoid(z);
    } else if comptime!(activation == Activation::HardSwish) {
        y = z * hard_sigmoid(z);
    } else if comptime!(activation == Activation::HardSigmoid) {
        y = hard_sigmoid(z);
    } else if comptime!(activation == Activation::Sigmoid) {
        y = sigmoid(z);
    }
    y
}

/// Derivative of the activation.
#[cube]
pub(super) fn slope(z: f32, #[comptime] activation: Activation) -> f32 {
    let mut d = 1.0f32;
    if comptime!(activation == Activation::Relu) {
        d = select(z > 0.0f32, 1.0f32, 0.0f32);
    } else if comptime!(activation == Activation::Relu6) {
        d = select(z > 0.0f32 && z < 6.0f32, 1.0f32, 0.0f32);
    } else if comptime!(activation == Activation::Silu) {
        let s = sigmoid(z);
        d = s * (1.0f32 + z * (1.0f32 - s));
    } else if comptime!(activation == Activation::HardSwish) {
        d = hard_sigmoid(z) + z * hard_sigmoid_slope(z);
    } else if comptime!(activation == Activation::HardSigmoid) {
        d = hard_sigmoid_slope(z);
    } else if comptime!(activation == Activation::Sigmoid) {
        let s = sigmoid(z);
        d = s * (1.0f32 - s);
    }
    d
}

#[cube]
fn sigmoid(z: f32) -> f32 {
    1.0f32 / (1.0f32 + (0.0f32 - z).exp())
}

#[cube]
fn hard_sigmoid(z: f32) -> f32 {
    let t = z + 3.0f32;
    select(t < 0.0f32, 0.0f32, select(t > 6.0f32, 6.0f32, t)) / 6.0f32
}

#[cube]
fn hard_sigmoid_slope(z: f32) -> f32 {
    select(z > -3.0f32 && z < 3.0f32, 1.0f32 / 6.0f32, 0.0f32)
}
