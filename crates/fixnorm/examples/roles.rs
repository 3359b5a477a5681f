//! Choosing roles: the probe's findings as a table, overridden by path or pattern, and a rule for each role.

use burn::tensor::{Device, Tensor, TensorData, activation::relu};
use burn::{module::Module, nn, optim::GradientsParams};
use fixnorm::{BaseUpdate, FixNormConfig, Probe, Role, SetupError, StepRule, UpdateRule};

#[derive(Module, Debug)]
struct Model {
    embed: nn::Linear,
    hidden: nn::Linear,
    norm: nn::LayerNorm,
    head: nn::Linear,
}

impl Model {
    fn loss(&self, x: Tensor<2>) -> Tensor<1> {
        let h = relu(self.embed.forward(x));
        let h = relu(self.norm.forward(self.hidden.forward(h)));
        (self.head.forward(h) - 1.0).powi_scalar(2).mean()
    }
}

fn main() -> Result<(), SetupError> {
    let device = Device::flex().autodiff();
    let model = Model {
        embed: nn::LinearConfig::new(4, 6).init(&device),
        hidden: nn::LinearConfig::new(6, 8).with_bias(false).init(&device),
        norm: nn::LayerNormConfig::new(8).init(&device),
        head: nn::LinearConfig::new(8, 3).init(&device),
    };
    let values: Vec<f32> = (0..64).map(|i| (i * i % 17) as f32 / 8.0 - 1.0).collect();
    let x = Tensor::<2>::from_data(TensorData::new(values, [16, 4]), &device);

    // `embed` feeds a ReLU and no normalization: it is not scale-invariant. Hold its norm all the same.
    let mut roles =
        Probe::new().with_head("head.weight").run(&model, |model| model.loss(x.clone()))?;
    println!("found:\n{roles}");
    roles.set("embed.*weight", Role::ScaleInvariant)?;
    println!("used:\n{roles}");

    // Held weights turn by lr radians a step, and so does the head, at half of that; gains and biases
    // take plain steps of ten times that number.
    let config = FixNormConfig::new(BaseUpdate::sgd(0.9))
        .with_scale_invariant(UpdateRule::held().with_step(StepRule::Angular))
        .with_head(UpdateRule::row_rms(1.0).with_step(StepRule::Angular).with_lr_scale(0.5))
        .with_gains_and_biases(UpdateRule::free().with_lr_scale(10.0));
    let (mut model, mut optimizer) = config.init(model, &roles)?;
    for _ in 0..10 {
        let grads = GradientsParams::from_grads(model.loss(x.clone()).backward(), &model);
        model = optimizer.step(0.02, model, grads);
    }
    let norm = model.embed.weight.val().powi_scalar(2).sum().sqrt().into_scalar::<f32>();
    println!("norm of embed.weight {norm:.4}, held at {:.4}", 6f32.sqrt());
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}
