"""FixNorm in Hugging Face's Trainer (`pip install transformers accelerate`). Takes some seconds on a CPU."""

import tempfile

import torch
from patterns import images
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments, set_seed

from fixnorm.torch import FixNorm, probe


def dataset(n: int, seed: int) -> list[dict[str, torch.Tensor]]:
    return [{"pixel_values": x, "labels": y} for x, y in zip(*images(n, seed), strict=True)]


set_seed(0)
config = ResNetConfig(
    num_channels=1, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=10
)
model = ResNetForImageClassification(config)
x, y = images(64, seed=0)
roles = probe(model, lambda model: model(pixel_values=x, labels=y).loss)
print(roles)
optimizer = FixNorm(torch.optim.AdamW, roles, lr=0.02, step_rule="angular", head_lr_scale=0.1, free_lr_scale=0.1)
with tempfile.TemporaryDirectory() as out:
    arguments = TrainingArguments(
        out,
        num_train_epochs=2,
        save_strategy="no",
        per_device_train_batch_size=64,
        lr_scheduler_type="cosine",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=dataset(3200, seed=1),
        eval_dataset=dataset(1000, seed=2),
        compute_metrics=lambda found: {"top1": float((found.predictions.argmax(1) == found.label_ids).mean())},
        optimizers=(optimizer, None),
    )
    trainer.train()
    top1 = trainer.evaluate()["eval_top1"]
head = dict(model.named_parameters())[roles.head.name]
print(f"accuracy {top1:.3f}, head norm {head.norm():.4f}")
