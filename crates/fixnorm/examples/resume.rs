//! Saving model and optimizer, and resuming from them: the second half of a run equals that of an uninterrupted one.

use burn::store::ModuleRecord;
use burn::tensor::{Device, Tensor, TensorData, activation::relu};
use burn::{module::Module, nn, optim::GradientsParams};
use fixnorm::{BaseUpdate, FixNormConfig, LrSchedule, Probe, ScheduleShape};

#[derive(Module, Debug)]
struct Model {
    hidden: nn::Linear,
    norm: nn::LayerNorm,
    head: nn::Linear,
}

impl Model {
    fn new(device: &Device) -> Self {
        Self {
            hidden: nn::LinearConfig::new(4, 8).with_bias(false).init(device),
            norm: nn::LayerNormConfig::new(8).init(device),
            head: nn::LinearConfig::new(8, 3).init(device),
        }
    }

    fn loss(&self, x: Tensor<2>) -> Tensor<1> {
        let h = relu(self.norm.forward(self.hidden.forward(x)));
        (self.head.forward(h) - 1.0).powi_scalar(2).mean()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex().autodiff();
    let values: Vec<f32> = (0..64).map(|i| (i * i % 17) as f32 / 8.0 - 1.0).collect();
    let x = Tensor::<2>::from_data(TensorData::new(values, [16, 4]), &device);
    let schedule = LrSchedule::new(0.05, ScheduleShape::Cosine, 20.0, 1);
    let config = FixNormConfig::new(BaseUpdate::sgd(0.9));

    let model = Model::new(&device);
    let roles = Probe::new().run(&model, |model| model.loss(x.clone()))?;
    let (mut model, mut optimizer) = config.init(model, &roles)?;
    let train = |mut model: Model, optimizer: &mut burn::optim::ModuleOptimizer, steps| {
        for step in steps {
            let grads = GradientsParams::from_grads(model.loss(x.clone()).backward(), &model);
            model = optimizer.step(schedule.at_step(step), model, grads);
        }
        model
    };
    model = train(model, &mut optimizer, 0..10);

    // Save: both as bytes, the roles as whatever serde writes.
    let model_bytes = model.valid().into_record().into_bytes()?;
    let optimizer_bytes = optimizer.into_bytes()?;

    // Resume, as in a new process: a fresh model with the same roles, then both records. The norms that are held
    // come from the optimizer's record.
    let (fresh, empty) = config.init(Model::new(&device), &roles)?;
    let resumed = fresh.load_record(ModuleRecord::from_bytes(model_bytes)?);
    let mut restored = empty.from_bytes(optimizer_bytes)?;

    let straight = train(model, &mut optimizer, 10..20);
    let resumed = train(resumed, &mut restored, 10..20);
    let [a, b] = [&straight, &resumed].map(|model| model.head.weight.val().into_data());
    println!("equal after resuming: {}", a == b);
    assert_eq!(a, b);
    Ok(())
}

#[test]
fn runs() {
    main().unwrap();
}
