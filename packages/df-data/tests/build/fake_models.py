"""Models that do what an input's text says, so that workers can be made to crash, hang and fill the disk at will.

Lives in a module of its own, which worker processes import by its name (conftest.py puts this folder on the path).
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from df_data.build.config import BuildConfig
from df_data.build.pool.messages import InputResult, MadeSample, Outcome
from df_data.format.sample import EncoderRecord, Sample, SampleMeta, to_members
from df_data.sources.config import SourceConfig, SplitConfig
from df_data.sources.listing import Input
from df_models.errors import UserError

ENCODERS = {"video_vae": EncoderRecord(id="fake", sha256="0")}
FRAMES, SIZE = 5, 16


def fake_sample(made: Input, index: int) -> Sample:
    """A sample whose bytes depend on its key alone."""
    key = f"{made.key}-{index:04d}"
    generator = torch.Generator().manual_seed(sum(key.encode()) + 1000 * index)
    cells = SIZE // 8
    references = torch.randn(2, 16, cells, cells, generator=generator).half()
    video = torch.randn(2, 16, cells, cells, generator=generator).half()
    references[0] = video[0]
    structure = torch.randn(FRAMES, 70, generator=generator)
    structure[:, -1] = 1.0
    tensors = {
        "video_latent": video,
        "structure": structure,
        "audio": torch.randn(2 * FRAMES, 6, generator=generator).half(),
        "reference_latents": references,
        "reference_frames": torch.tensor([0, 4], dtype=torch.int32),
        "reference_features": torch.randn(2, 64, 8, generator=generator).half(),
        "mouth_boxes": torch.tensor([4.0, 8.0, 12.0, 16.0]).repeat(FRAMES, 1),
    }
    meta = SampleMeta(
        key=key,
        source=made.name,
        licence=made.licence,
        identity=made.identity,
        split=made.split,
        num_frames=FRAMES,
        height=SIZE,
        width=SIZE,
        encoders=ENCODERS,
    )
    return Sample(meta, tensors)


class FakeModels:
    """``ok N``: N samples; ``reject``; ``fail``; ``signal S``; ``exit C``; ``hang``; ``full``; ``sleep S N``.

    ``once MARKER WHAT...`` does WHAT the first time (until the file MARKER exists), then ``ok 2``.
    """

    def __init__(self, config: BuildConfig) -> None:
        self.config = config

    def records(self) -> dict[str, EncoderRecord]:
        return ENCODERS

    def close(self) -> None:
        pass

    def process(self, made: Input) -> Iterator[Outcome]:
        yield from self._obey(made, made.path.read_text().split())

    def _obey(self, made: Input, order: list[str]) -> Iterator[Outcome]:
        what, *values = order
        if what == "once":
            marker = Path(values[0])
            first = not marker.exists()
            marker.touch()
            yield from self._obey(made, values[1:] if first else ["ok", "2"])
        elif what == "reject":
            yield InputResult("rejected", reason="told_to", scores={"told": 1.0})
        elif what == "fail":
            yield InputResult("failed", error="told to")
        else:
            time.sleep(float(values[0]) if what == "sleep" else 0)
            keys = []
            for index in range(int(values[-1]) if what in ("ok", "sleep") else 1):
                sample = fake_sample(made, index)
                keys.append(sample.key)
                yield MadeSample(sample.key, to_members(sample))
            self._go_wrong(what, values)
            yield InputResult("accepted", samples=tuple(keys), scores={"pid": os.getpid()}, seconds={"fake": 0.25})

    def _go_wrong(self, what: str, values: list[str]) -> None:
        """After the first sample was sent."""
        if what == "signal":
            os.kill(os.getpid(), getattr(signal, values[0]))
        elif what == "exit":
            os._exit(int(values[0]))
        elif what == "hang":
            time.sleep(1000)
        elif what == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "scratch")


class MissingModel(FakeModels):
    """A model that is not there."""

    def __init__(self, config: BuildConfig) -> None:
        raise UserError("no such file: detector.onnx; download it")


class DeadlyModel(FakeModels):
    """A model whose loading kills."""

    def __init__(self, config: BuildConfig) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def fake_config(folder: Path, orders: list[str], **settings: object) -> BuildConfig:
    """A build of inputs that do as they are told; the folder ``set`` beside them is the dataset."""
    inputs = folder / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    for index, order in enumerate(orders):
        (inputs / f"{index:03d}.txt").write_text(order + "\n" * index)  # no two alike
    source = SourceConfig(name="s", folder=str(inputs), pattern="*.txt", licence="CC0-1.0")
    fields = {"out": str(folder / "set"), "clips_per_shard": 5, "workers": 1, **settings}
    return BuildConfig(sources=(source,), split=SplitConfig(val=3), **fields)  # type: ignore[arg-type]


def shards(root: Path) -> dict[str, bytes]:
    """Everything of a dataset that must not depend on how it was made: shards and manifests."""
    names = ("shard-", "manifest.json")
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for p in sorted(root.glob("*/*")) if p.name.startswith(names)}
