//! Loss, metrics and gradient of a device's batches of a step.
//! Not here: sharing batches among devices (`step.rs`, `replicas.rs`), the update (`step.rs`).

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};
use fixnorm_data::Batch;
use fixnorm_nn::{Classifier, Criterion, Peer, StepRng, Targets};

use crate::evaluate::batch::{images, label_rank, labels, to_labels};
use crate::session::metrics::BatchMetrics;

/// A batch, and the random numbers for its forward pass.
pub(crate) type Share = (Batch, StepRng);

/// The targets of a batch, on `device`.
pub(crate) fn targets(batch: &Batch, device: &Device) -> Targets {
    let mixed = batch.mixed.as_ref();
    Targets {
        labels: labels(batch, device),
        mixed: mixed.map(|mixed| (to_labels(&mixed.labels, device), f64::from(mixed.lambda))),
    }
}

/// Whether values of this device, which has autodiff, are read without waiting.
pub(crate) fn is_read_at_once(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

/// Metrics and gradient of some of a step's batches.
pub(crate) struct Gradient {
    pub(crate) batches: Vec<BatchMetrics>,
    /// The sum over the batches; on a CPU none if a loss is not finite.
    pub(crate) grads: Option<GradientsParams>,
}

impl Gradient {
    /// The gradient of `shares` on `device`, as their part of the mean over the step's `of` batches. With a peer, batch norm
    /// uses the statistics of all devices.
    pub(crate) fn compute(
        model: &Classifier,
        criterion: Criterion,
        shares: Vec<Share>,
        of: usize,
        device: &Device,
        peer: Option<&Peer>,
    ) -> Self {
        let compute = || Self::of_shares(model, criterion, shares, of, device, peer);
        match peer {
            Some(peer) => peer.run(compute),
            None => compute(),
        }
    }

    fn of_shares(
        model: &Classifier,
        criterion: Criterion,
        shares: Vec<Share>,
        of: usize,
        device: &Device,
        peer: Option<&Peer>,
    ) -> Self {
        let (mut sum, mut batches) = (GradientsAccumulator::new(), vec![]);
        for (mut batch, rng) in shares {
            let targets = targets(&batch, device);
            let x = images(&mut batch, device);
            let (loss, logits, grads) = gradients(model, criterion, x, &targets, rng, of, peer);
            let labels = targets.labels.inner();
            let correct = label_rank(logits.inner(), labels).equal_scalar(1).int().sum().float();
            batches.push(BatchMetrics { loss: loss.inner(), correct, images: batch.labels.len() });
            match grads {
                Some(grads) => sum.accumulate(model, grads),
                None => return Self { batches, grads: None },
            }
        }
        Self { batches, grads: Some(sum.grads()) }
    }

    /// Adds the gradient that a copy of `model` on another device computed, moved to `device`.
    pub(crate) fn add(mut self, other: Self, model: &Classifier, device: &Device) -> Self {
        let plain = device.clone().inner();
        self.batches.extend(other.batches.into_iter().map(|batch| BatchMetrics {
            loss: batch.loss.to_device(&plain),
            correct: batch.correct.to_device(&plain),
            ..batch
        }));
        self.grads = self.grads.zip(other.grads).map(|(own, others)| {
            let mut sum = GradientsAccumulator::new();
            sum.accumulate(model, own);
            sum.accumulate(model, others.to_device(&plain, model));
            sum.grads()
        });
        self
    }
}

/// Loss and logits of a batch, and its part of the mean gradient of `of` such batches. On a CPU, and with peers, the
/// gradient is none if the loss is not finite, a peer's included; elsewhere checking it would wait for the device.
pub(crate) fn gradients(
    model: &Classifier,
    criterion: Criterion,
    x: Tensor<4>,
    targets: &Targets,
    rng: StepRng,
    of: usize,
    peer: Option<&Peer>,
) -> (Tensor<1>, Tensor<2>, Option<GradientsParams>) {
    // Peers decide together, so a GPU among them has to read its loss too.
    let checked = peer.is_some() || is_read_at_once(&x.device());
    let logits = model.forward_train(x, rng, peer);
    let loss = criterion.forward(logits.clone(), targets);
    if checked {
        let is_finite = loss.clone().into_scalar::<f64>().is_finite();
        // Peers wait for each other in the backward pass too: all of them take it, or none does.
        if !peer.map_or(is_finite, |peer| peer.all(is_finite)) {
            return (loss, logits, None);
        }
    }
    let part = match of {
        1 => loss.clone(),
        _ => loss.clone().div_scalar(of as f64),
    };
    let grads = GradientsParams::from_grads(part.backward(), model);
    (loss, logits, Some(grads))
}
