//! Compares the gradients of every parameter on the build's default device with those on the CPU. Without a GPU's backend
//! the two devices are one; with it this finds a shader compiler that is wrong.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use fixnorm_nn::{Input, ModelSpec, cross_entropy};

/// By path, of every parameter.
struct Gradients<'a> {
    grads: &'a GradientsParams,
    path: Vec<String>,
    found: Vec<(String, Vec<f32>)>,
}

impl ModuleVisitor for Gradients<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.grads.get::<D>(param.id) {
            self.found.push((self.path.join("."), gradient.into_data().iter().collect()));
        }
    }
}

fn gradients(name: &str, device: &Device) -> (f64, Vec<(String, Vec<f32>)>) {
    let spec = ModelSpec::find(name).unwrap();
    let model = spec.init(Input { channels: 2, classes: 5 }, 0, device);
    let pixels: Vec<f32> =
        (0..4 * 9 * 10 * 2).map(|i: usize| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    let x = Tensor::<4>::from_data(TensorData::new(pixels, [4, 9, 10, 2]), device);
    let labels = Tensor::<1, Int>::from_ints([0, 3, 1, 4], device);
    let loss = cross_entropy(model.forward(x), labels, 0.1);
    let grads = GradientsParams::from_grads(loss.clone().backward(), &model);
    let mut visitor = Gradients { grads: &grads, path: vec![], found: vec![] };
    model.visit(&mut visitor);
    (loss.into_scalar(), visitor.found)
}

#[test]
fn gradients_are_the_cpus() {
    let (expected_loss, expected) = gradients("resnet8", &Device::flex().autodiff());
    let (loss, found) = gradients("resnet8", &Device::default().autodiff());
    assert!(
        (loss - expected_loss).abs() <= 1e-5 * expected_loss,
        "{loss}, the CPU has {expected_loss}"
    );
    assert_eq!(found.len(), expected.len());
    for ((path, found), (_, expected)) in found.iter().zip(&expected) {
        let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        let off = off.fold(0.0, |worst: f32, off| if off <= worst { worst } else { off });
        // This way round, a NaN fails.
        assert!(off <= 1e-4 * largest, "{path}: off by {off:e}, the largest is {largest:e}");
    }
}
