//! A model of one's own, trained with FixNorm: it finds where a bright bar is.

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData, activation::relu};
use burn::{module::Module, nn, nn::conv, nn::loss::CrossEntropyLoss, optim::GradientsParams};
use fixnorm::{BaseUpdate, FixNormConfig, LrSchedule, Probe, ScheduleShape, UpdateRule};

#[derive(Module, Debug)]
struct Model {
    conv: conv::Conv2d,
    norm: nn::BatchNorm,
    head: nn::Linear,
}

impl Model {
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm.forward(self.conv.forward(x)));
        self.head.forward(x.flatten(1, 3))
    }
}

/// Noisy images of 8×8 with a bright column or row in one of four places.
fn batch(device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
    let lit = |x, y, place| [x < 2, x > 5, y < 2, y > 5][place] as u8 as f32;
    let bars: Vec<_> = (0..4096).map(|i| lit(i % 8, i / 8 % 8, i / 64 % 4)).collect();
    let noise = Tensor::random([64, 1, 8, 8], Distribution::Normal(0.0, 0.5), device);
    let x = noise + Tensor::from_data(TensorData::new(bars, [64, 1, 8, 8]), device);
    (x, Tensor::arange(0..64, device).remainder_scalar(4))
}

fn main() -> Result<(), fixnorm::SetupError> {
    let device = Device::flex().autodiff();
    device.seed(1);
    let model = Model {
        conv: conv::Conv2dConfig::new([1, 8], [3, 3]).with_bias(false).init(&device),
        norm: nn::BatchNormConfig::new(8).init(&device),
        head: nn::LinearConfig::new(8 * 6 * 6, 4).init(&device),
    };
    let loss =
        |model: &Model, (x, y)| CrossEntropyLoss::new(None, &device).forward(model.forward(x), y);
    let first = batch(&device);
    let roles = Probe::new().run(&model, |model| loss(model, first.clone()))?;
    let config = FixNormConfig::new(BaseUpdate::sgd(0.9)).with_head(UpdateRule::row_rms(0.5));
    let (mut model, mut optimizer) = config.init(model, &roles)?;
    let schedule = LrSchedule::new(0.05, ScheduleShape::Cosine, 100.0, 1);
    for step in 0..100 {
        let loss = loss(&model, batch(&device));
        if step % 20 == 0 {
            println!("step {step:2}  loss {:.4}", loss.clone().into_scalar::<f32>());
        }
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(schedule.at_step(step), model, grads);
    }
    let norm = model.conv.weight.val().powi_scalar(2).sum().sqrt().into_scalar::<f32>();
    println!("{roles}norm of conv.weight {norm:.4}, held at {:.4}", 8f32.sqrt());
    let (x, y) = batch(&device.inner());
    let correct = model.valid().forward(x).argmax(1).flatten::<1>(0, 1).equal(y);
    println!("accuracy {:.2}", correct.float().mean().into_scalar::<f32>());
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}
