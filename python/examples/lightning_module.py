"""FixNorm in Lightning (`pip install lightning`). Takes some seconds on a CPU."""

import lightning
import torch
from patterns import images
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from fixnorm.torch import FixNorm, probe


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(1, 32, 3, stride=2, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten()]
        self.model = nn.Sequential(*layers, nn.Linear(32 * 25, 10))

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        return cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        self.log("top1", (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> dict[str, object]:
        x, y = (part.to(self.device) for part in images(64, seed=0))
        roles = probe(self.model, lambda model: cross_entropy(model(x), y))
        optimizer = FixNorm(torch.optim.SGD, roles, lr=0.1, momentum=0.9)
        steps = int(self.trainer.estimated_stepping_batches)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


lightning.seed_everything(0)
train, val = (DataLoader(TensorDataset(*images(n, seed)), 64, shuffle=seed == 1) for n, seed in [(3200, 1), (1000, 2)])
model = Classifier()
trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False)
trainer.fit(model, train, val)
print(f"accuracy {trainer.callback_metrics['top1']:.3f}, head norm {model.model[4].weight.norm():.4f}")
