//! A Burn model of one's own, trained with FixNorm: tell where the bright bar is.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData, activation::relu};
use burn::{module::Module, nn, nn::conv};
use fixnorm::{BaseUpdate, FixNormConfig, LrSchedule, Probe, ScheduleShape};

#[derive(Module, Debug)]
struct Net {
    conv: conv::Conv2d,
    norm: nn::BatchNorm,
    head: nn::Linear,
}

impl Net {
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm.forward(self.conv.forward(x)));
        self.head.forward(x.flatten(1, 3))
    }

    fn loss(&self, (x, y): (Tensor<4>, Tensor<1, Int>)) -> Tensor<1> {
        nn::loss::CrossEntropyLoss::new(None, &x.device()).forward(self.forward(x), y)
    }
}

/// Noisy pictures of 8×8 with a bright column or row in one of four places.
fn batch(device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
    let lit = |i: i64, x: i64, y: i64| [x < 2, x > 5, y < 2, y > 5][(i % 4) as usize];
    let bars: Vec<f32> = (0..4096).map(|p| lit(p / 64, p % 8, p / 8 % 8) as u8 as f32).collect();
    let bars = Tensor::from_data(TensorData::new(bars, [64, 1, 8, 8]), device);
    let noise = Tensor::random([64, 1, 8, 8], Distribution::Normal(0.0, 0.5), device);
    (bars + noise, Tensor::arange(0..64, device).remainder_scalar(4))
}

fn main() -> Result<(), fixnorm::SetupError> {
    let device = Device::flex().autodiff();
    device.seed(1);
    let net = Net {
        conv: conv::Conv2dConfig::new([1, 8], [3, 3]).with_bias(false).init(&device),
        norm: nn::BatchNormConfig::new(8).init(&device),
        head: nn::LinearConfig::new(8 * 6 * 6, 4).init(&device),
    };
    let first = batch(&device);
    let roles = Probe::new().run(&net, |net| net.loss(first.clone()))?;
    let (mut net, mut optimizer) =
        FixNormConfig::new(BaseUpdate::sgd(0.9), 0.5).init(net, &roles)?;
    let schedule = LrSchedule::new(0.05, ScheduleShape::Cosine, 100.0, 1);
    for step in 0..100 {
        let grads = GradientsParams::from_grads(net.loss(batch(&device)).backward(), &net);
        net = optimizer.step(schedule.at_step(step), net, grads);
    }
    let (x, y) = batch(&device.clone().inner());
    let right = net.valid().forward(x).argmax(1).reshape([64]).equal(y).int().sum();
    let norm = net.conv.weight.val().powi_scalar(2).sum().sqrt().into_scalar::<f32>();
    println!("{} of 64 right, norm of conv {norm}", right.into_scalar::<i64>());
    Ok(())
}
