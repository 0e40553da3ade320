"""Train the reader: ``uv run python -m benchmarks.synth.reader_train --out reader.safetensors``.

One seeded recipe: random renders of people that no corpus uses, degraded anew at every step, one CPU thread.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from benchmarks.synth.reader_augment import degrade, negatives
from benchmarks.synth.reader_data import TRAIN_IDENTITIES, ReaderSet, random_set
from df_data.synth.reader.model import READINGS, ReaderNet
from df_models.cli_support import run_cli
from df_models.files import atomic_path, check_output

# yaw, pitch, roll, mouth_open, lip_width, blink: the mouth matters most.
_WEIGHTS = torch.tensor([1.0, 1.0, 0.7, 3.0, 1.5, 1.5])
_MIRROR = torch.tensor([-1.0, 1.0, -1.0, 1.0, 1.0, 1.0])


@dataclass(frozen=True)
class ReaderRecipe:
    """How the shipped reader was trained; ``negative_share`` of each batch is no face."""

    seed: int = 20
    people: int = 5000
    states: int = 7
    steps: int = 2800
    batch: int = 96
    negative_share: float = 0.125
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 100


def train_reader(recipe: ReaderRecipe, progress: bool = True) -> ReaderNet:
    """Render the training set and train; returns the network in evaluation mode."""
    data = random_set(recipe.seed, recipe.people, recipe.states, TRAIN_IDENTITIES, progress)
    torch.manual_seed(recipe.seed)
    net = ReaderNet().to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(recipe.seed)
    decay = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=min(0.3, recipe.warmup / recipe.steps)
    )
    bar = tqdm(range(recipe.steps), desc="train reader", disable=not progress)
    for step in bar:
        losses = reader_loss(net, *_batch(data, recipe, generator))
        optimizer.zero_grad(set_to_none=True)
        sum(losses.values(), torch.zeros(())).backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            bar.set_postfix({name: f"{loss.item():.4f}" for name, loss in losses.items()})
    return net.eval()


def reader_loss(net: ReaderNet, images: Tensor, readings: Tensor, identity: Tensor) -> dict[str, Tensor]:
    """Losses of one batch whose last ``len(images) - len(readings)`` images are negatives."""
    count = len(readings)
    with torch.autocast("cpu", torch.bfloat16):
        output = net(images.contiguous(memory_format=torch.channels_last))
    predicted = output[:count, : len(READINGS)]
    error = F.smooth_l1_loss(predicted, net.standardize(readings), beta=0.3, reduction="none")
    who = F.smooth_l1_loss(output[:count, len(READINGS) : -1], identity, beta=0.3)
    label = (torch.arange(len(images)) < count).float()
    presence = F.binary_cross_entropy_with_logits(output[:, -1], label)
    return {"readings": (error * _WEIGHTS).mean(), "identity": 0.6 * who, "presence": 0.1 * presence}


def _batch(data: ReaderSet, recipe: ReaderRecipe, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    index = torch.randint(len(data.images), (recipe.batch,), generator=generator)
    images = torch.from_numpy(data.images[index.numpy()]).permute(0, 3, 1, 2).float() / 255
    readings, identity = torch.from_numpy(data.readings)[index], torch.from_numpy(data.identity)[index]
    flip = torch.rand(recipe.batch, generator=generator) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    readings = torch.where(flip[:, None], readings * _MIRROR, readings)
    others = round(recipe.batch * recipe.negative_share)
    faces = recipe.batch - others
    images = torch.cat([images[:faces], negatives(images[faces:], generator)])
    return degrade(images, generator), readings[:faces], identity[:faces]


def save_reader(net: ReaderNet, path: Path) -> None:
    """Write the weights in half precision; counters of the normalisation layers are left out."""
    state = {k: v.half().contiguous() for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    with atomic_path(path) as temporary:
        save_file(state, temporary)


def _main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synth.reader_train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file of the weights (safetensors)")
    for name, default in (("seed", 20), ("people", 5000), ("states", 7), ("steps", 2800), ("batch", 96)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    options = vars(parser.parse_args(argv))
    out = options.pop("out")
    check_output(out)
    torch.set_num_threads(1)
    save_reader(train_reader(ReaderRecipe(**options)), out)
    print(f"wrote {out}")


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    return run_cli(_main, "reader_train", argv)


if __name__ == "__main__":
    raise SystemExit(main())
