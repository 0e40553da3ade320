from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from df_data.format.sample import NO_FACE, OF_FACES, EncoderRecord, Sample, SampleMeta
from df_data.format.shards import SplitWriter, staged_shards
from df_models.encoders import load_audio_encoder, load_reference_encoder, random_tiny_vae
from df_models.settings import dump_config, merge, validate_config
from df_models.structure import LIVEPORTRAIT_70
from df_models.time import latent_length
from df_train.config import TrainConfig
from df_train.engine import Trainer

TINY_MODEL = {
    "dim": 24,
    "num_layers": 2,
    "num_heads": 2,
    "ffn_dim": 32,
    "structure_width": 16,
    "structure_layers": 2,
    "structure_heads": 2,
    "structure_ffn_dim": 32,
    "fusion_depth": 1,
    "bridge_width": 16,
    "bridge_heads": 2,
    "audio_width": 16,
    "audio_heads": 2,
    "reference_width": 16,
    "flame_width": 16,
    "video_size": 16,
}
FRAMES, SIZE = 9, 16
ENCODERS = {
    "video_vae": EncoderRecord(id="df-tiny", sha256=random_tiny_vae().sha256),
    "audio": EncoderRecord(id="logmel", sha256=load_audio_encoder("logmel").sha256),
    "reference": EncoderRecord(id="patches", sha256=load_reference_encoder("patches").sha256),
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_sample(
    split: str, index: int, video: bytes | None = None, frames: int = FRAMES, face: bool = True
) -> Sample:
    """A clip of random latents whose structure follows its video, so that there is something to learn."""
    generator = torch.Generator().manual_seed(index + (0 if split == "train" else 10_000))

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    cells, latents = SIZE // 8, latent_length(frames)
    references = torch.tensor([0, 3], dtype=torch.int32)
    tensors = {
        "video_latent": (0.5 * noise(latents, 16, cells, cells) + 1.0).half(),
        "structure": 3.0 + 2.0 * noise(frames, 70),
        "flame": 0.1 * noise(frames, 159),
        "audio": noise(2 * frames, 64).half(),
        "reference_latents": noise(2, 16, cells, cells).half(),
        "reference_frames": references,
        "reference_features": noise(2, 16, 64).half(),
        "mouth_boxes": torch.tensor([4.0, 8.0, 12.0, 16.0]).expand(frames, 4).contiguous(),
    }
    encoders = ENCODERS
    if not face:
        tensors = {name: tensor for name, tensor in tensors.items() if name not in (*OF_FACES, "flame")}
        encoders = {role: record for role, record in ENCODERS.items() if role != "audio"}
    meta = SampleMeta(
        key=f"{split}-{index:04d}",
        source="test",
        licence="Apache-2.0",
        identity=f"{split}-person-{index}",
        split=split,
        num_frames=frames,
        height=SIZE,
        width=SIZE,
        encoders=encoders,
        structure_layout=LIVEPORTRAIT_70.name if face else NO_FACE,
    )
    return Sample(meta, tensors, video)


def write_split(root: Path, split: str, samples: Iterable[Sample]) -> None:
    """A split of these clips, written by df-data's own writer."""
    writer = SplitWriter(root, split, num_shards=2, build="test", encoders=ENCODERS)
    staged = [writer.stage(sample) for sample in samples]
    for shard in staged_shards(staged):
        writer.finish_shard(shard, staged)
    writer.finish()


@pytest.fixture(scope="session")
def random_clip() -> Callable[..., Sample]:
    """:func:`random_sample`."""
    return random_sample


@pytest.fixture(scope="session")
def clip_encoders() -> dict[str, EncoderRecord]:
    """The encoders that the random clips are said to be made with."""
    return dict(ENCODERS)


def write_dataset(root: Path, train: int = 24, val: int = 3, frames: Sequence[int] = (FRAMES,)) -> Path:
    """A dataset of random clips, of these pixel frames in turn."""
    for split, count in (("train", train), ("val", val)):
        write_split(root, split, (random_sample(split, i, frames=frames[i % len(frames)]) for i in range(count)))
    return root


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "random")


@pytest.fixture(scope="session")
def dataset_at() -> Callable[..., Path]:
    """Writes a dataset like `dataset`, of any size, to a directory."""
    return write_dataset


@pytest.fixture(scope="session")
def split_at() -> Callable[..., None]:
    """`write_split`."""
    return write_split


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset like `dataset`, of clips of 3, 4, 5 and 7 latent frames."""
    return write_dataset(tmp_path_factory.mktemp("data") / "mixed", frames=(9, 13, 17, 25))


@pytest.fixture(scope="session")
def tiny_model() -> dict[str, int]:
    """Overrides of the quickstart preset that make it as small as it can be."""
    return dict(TINY_MODEL)


@pytest.fixture(scope="session")
def config_tree(dataset: Path) -> Callable[..., dict[str, Any]]:
    """The settings of a run of a tiny model on the random dataset, without samples, with sections changed."""

    def tree(run_dir: Path, **changes: Any) -> dict[str, Any]:
        return merge(base_tree(dataset, run_dir), changes)

    return tree


@pytest.fixture(scope="session")
def make_config(config_tree: Callable[..., dict[str, Any]]) -> Callable[..., TrainConfig]:
    """`config_tree` as a configuration."""
    return lambda run_dir, **changes: validate_config(TrainConfig, config_tree(run_dir, **changes))


@pytest.fixture(scope="session")
def after_steps() -> Callable[..., AbstractContextManager[None]]:
    """`with after_steps(2, 4, act=...)`: calls `act` with the trainer when these steps are over."""

    @contextmanager
    def acting(*steps: int, act: Callable[[Trainer], None]) -> Iterator[None]:
        original = Trainer.step

        def step(self: Trainer) -> None:
            original(self)
            if self.state.step in steps:
                act(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "step", step)
            yield

    return acting


@pytest.fixture(scope="session")
def interrupted_after(
    after_steps: Callable[..., AbstractContextManager[None]],
) -> Callable[..., AbstractContextManager[None]]:
    """`with interrupted_after(2, 4)`: sends this process a Ctrl-C when these steps are over."""
    return lambda *steps: after_steps(*steps, act=lambda _: os.kill(os.getpid(), signal.SIGINT))


class Launched(NamedTuple):
    """How the processes of a launch ended, and what each of them said."""

    codes: list[int]
    said: list[str]


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Launched]]:
    """`launch(config, *options, ranks=2, code="", kill_after=None)`: `df-train` in own processes (`launches.py`)."""
    folder = tmp_path_factory.mktemp("launches")
    script = [sys.executable, str(Path(__file__).with_name("launches.py"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    server = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdin is not None and server.stdout is not None

    def launched(
        config: TrainConfig, *options: str, ranks: int = 1, code: str = "", kill_after: float | None = None
    ) -> Launched:
        path = folder / "config.yaml"
        path.write_text(dump_config(config))
        argv = ["--config", str(path), *options]
        asked = {"ranks": ranks, "argv": argv, "code": code, "kill_after": kill_after, "limit": 200}
        print(json.dumps(asked), file=server.stdin, flush=True)
        answer = json.loads(server.stdout.readline())
        assert answer["codes"] is not None, f"it hangs: {answer['said']}"
        return Launched(**answer)

    yield launched
    server.stdin.close()
    server.wait()


@pytest.fixture(scope="session")
def open_gates() -> Callable[[nn.Module], None]:
    """Fills what starts at zero, so that everything a model is given matters."""

    def fill(model: nn.Module) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.2)

    return fill


def base_tree(dataset: Path, run_dir: Path) -> dict[str, Any]:
    return {
        "name": "tiny",
        "run_dir": str(run_dir),
        "device": "cpu",
        "model": {"preset": "quickstart", "overrides": dict(TINY_MODEL)},
        "data": {"root": str(dataset), "batch_size": 4},
        "optim": {"steps": 20, "warmup": 2, "lr": 1e-3},
        "checkpoint": {"every": 5},
        "log": {"every": 5},
        "sample": {"clips": 0},
    }
