//! A Burn model of one's own, trained with FixNorm: tell where the bright bar is.

use burn::tensor::{Device, Distribution, Int, Tensor, TensorData, activation::relu};
use burn::{module::Module, nn, nn::conv, nn::loss::CrossEntropyLoss, optim::GradientsParams};
use fixnorm::{BaseUpdate, FixNormConfig, LrSchedule, Probe, ScheduleShape, WeightSnapshot};

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
}

/// Noisy pictures of 8×8 with a bright column or row in one of four places.
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
    let net = Net {
        conv: conv::Conv2dConfig::new([1, 8], [3, 3]).with_bias(false).init(&device),
        norm: nn::BatchNormConfig::new(8).init(&device),
        head: nn::LinearConfig::new(8 * 6 * 6, 4).init(&device),
    };
    let loss = |net: &Net, (x, y)| CrossEntropyLoss::new(None, &device).forward(net.forward(x), y);
    let first = batch(&device);
    let roles = Probe::new().run(&net, |net| loss(net, first.clone()))?;
    let config = FixNormConfig::new(BaseUpdate::sgd(0.9), 0.5);
    let (mut net, mut optimizer) = config.init(net, &roles)?;
    let schedule = LrSchedule::new(0.05, ScheduleShape::Cosine, 100.0, 1);
    for step in 0..100 {
        let loss = loss(&net, batch(&device));
        if step % 20 == 0 {
            println!("step {step:2}  loss {:.4}", loss.clone().into_scalar::<f32>());
        }
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        net = optimizer.step(schedule.at_step(step), net, grads);
    }
    for (path, norm) in WeightSnapshot::take(&net, &roles).norms() {
        println!("{path:<11}  {:<15}  norm {norm:.4}", roles.get(path).unwrap().role.name());
    }
    let (x, y) = batch(&device.inner());
    let right = net.valid().forward(x).argmax(1).flatten::<1>(0, 1).equal(y);
    println!("{:.0} % right", right.float().mean().into_scalar::<f32>() * 100.0);
    Ok(())
}
