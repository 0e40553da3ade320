"""Text features from a sample to a batch, and what `df-data validate` says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from df_data.check.validate import check_dataset
from df_data.format.sample import EncoderRecord, Sample, from_members, to_members, validate_sample
from df_data.format.shards import SplitWriter, iter_samples, staged_shards
from df_data.reading import ShardReader
from df_data.reading.batch import padded
from df_data.reading.peek import first_samples
from df_models.errors import UserError
from df_models.text import pad_text

ENCODERS = {
    "video_vae": EncoderRecord(id="vae", sha256="v"),
    "audio": EncoderRecord(id="audio", sha256="a"),
    "text": EncoderRecord(id="umt5-xxl", sha256="t"),
}
PROMPT = "A person is talking."
WIDTH = 6

MakeTold = Callable[..., Sample]


def features(rows: int, width: int = WIDTH, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).half()


@pytest.fixture(scope="module")
def told(make_sample: Callable[..., Sample]) -> MakeTold:
    """(index, rows, width=6, frames=5) -> a sample with a prompt of so many rows."""

    def make(index: int, rows: int, width: int = WIDTH, frames: int = 5) -> Sample:
        sample = make_sample(index, frames=frames)
        meta = sample.meta.model_copy(update={"encoders": ENCODERS, "prompt": PROMPT})
        return Sample(meta, {**sample.tensors, "text_features": features(rows, width, index)})

    return make


def write(root: Path, samples: list[Sample], encoders: dict[str, EncoderRecord] = ENCODERS) -> Path:
    writer = SplitWriter(root, "train", num_shards=2, build="b", encoders=encoders)
    staged = [writer.stage(sample) for sample in samples]
    for shard in staged_shards(staged):
        writer.finish_shard(shard, staged)
    writer.finish()
    return root / "train"


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, told: MakeTold) -> Path:
    """Six clips whose prompts have 1, 4, 7, 1, 4, 7 rows."""
    return write(tmp_path_factory.mktemp("told"), [told(index, 1 + 3 * (index % 3)) for index in range(6)])


def test_a_sample_keeps_its_prompt_and_its_own_rows(told: MakeTold) -> None:
    sample = told(0, 3)
    members = {name.partition(".")[2]: data for name, data in to_members(sample).items()}
    back = from_members(sample.key, members, "here")
    assert back.meta.prompt == json.loads(members["json"])["prompt"] == PROMPT
    assert torch.equal(back.tensors["text_features"], sample.tensors["text_features"])


def test_a_sample_without_text_is_stored_as_before(make_sample: Callable[..., Sample]) -> None:
    members = to_members(make_sample(0))
    assert "prompt" not in json.loads(members["train-0000.json"])


def without_prompt(sample: Sample) -> Sample:
    return Sample(sample.meta.model_copy(update={"prompt": None}), sample.tensors)


def without_role(sample: Sample) -> Sample:
    encoders = {role: record for role, record in ENCODERS.items() if role != "text"}
    return Sample(sample.meta.model_copy(update={"encoders": encoders}), sample.tensors)


def without_tensor(sample: Sample) -> Sample:
    return Sample(sample.meta, {name: value for name, value in sample.tensors.items() if name != "text_features"})


def with_tensor(value: torch.Tensor) -> Callable[[Sample], Sample]:
    return lambda sample: Sample(sample.meta, {**sample.tensors, "text_features": value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_prompt, "must come together"),
        (without_role, "must come together"),
        (without_tensor, "must come together"),
        (with_tensor(features(513)), "has 513 rows, a text at most 512"),
        (with_tensor(features(3).float()), "is torch.float32, wanted torch.float16"),
        (with_tensor(features(3)[None]), "has shape 1x3x6"),
        (with_tensor(torch.zeros(0, WIDTH).half()), "has shape 0x6"),
        (with_tensor(features(3) * torch.nan), "not finite"),
    ],
)
def test_what_does_not_fit_is_named(told: MakeTold, change: Callable[[Sample], Sample], message: str) -> None:
    sample = told(0, 3)
    validate_sample(sample)
    with pytest.raises(UserError, match=message):
        validate_sample(change(sample))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_holds_what_is_stored_and_zeros_up_to_the_longest(split: Path, num_workers: int) -> None:
    stored = {sample.key: sample.tensors["text_features"].float() for sample in iter_samples(split)}
    reader = ShardReader(split, batch_size=3, seed=1, num_workers=num_workers)
    seen: set[str] = set()
    for batch, _ in zip(reader, range(4)):
        assert batch.text is not None and batch.text.dtype == torch.float32
        assert batch.text.shape == (3, max(len(stored[key]) for key in batch.keys), WIDTH)
        for key, text_LD in zip(batch.keys, pad_text(batch.text)):
            assert torch.equal(text_LD, pad_text(stored[key][None])[0])
        seen |= set(batch.keys)
    assert seen == set(stored)


def test_a_crop_in_time_keeps_the_whole_prompt(tmp_path: Path, told: MakeTold) -> None:
    split = write(tmp_path, [told(index, 4, frames=13) for index in range(3)])
    batch = next(iter(ShardReader(split, batch_size=3, seed=0, num_frames=2)))
    stored = {sample.key: sample.tensors["text_features"].float() for sample in iter_samples(split)}
    assert batch.video.shape[1] == 2 and batch.text is not None
    assert all(torch.equal(text_LD, stored[key]) for key, text_LD in zip(batch.keys, batch.text))


def test_clips_without_text_have_none(tmp_path: Path, make_split: Callable[..., Any]) -> None:
    make_split(tmp_path, 3)
    assert next(iter(ShardReader(tmp_path / "train", batch_size=3, seed=0))).text is None


def test_texts_of_several_widths_are_refused() -> None:
    with pytest.raises(UserError, match=r"widths \[4, 6\]"):
        padded([np.zeros((2, 4), np.float16), np.zeros((2, 6), np.float16)])


def test_the_first_samples_tell_their_prompt(split: Path) -> None:
    assert next(first_samples(split)).prompt == PROMPT


def test_a_whole_split_has_no_problems(split: Path) -> None:
    assert check_dataset(split).problems == ()


def test_several_widths_in_a_split_are_refused_and_found(
    tmp_path: Path, told: MakeTold, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = [told(index, 3, width=4 + 2 * (index % 2)) for index in range(6)]
    with pytest.raises(UserError, match=r"widths \[4, 6\] in one split"):
        write(tmp_path / "refused", mixed)
    monkeypatch.setattr(SplitWriter, "_features", lambda self, widths: {})  # as earlier versions wrote
    split = write(tmp_path, mixed)
    assert list(check_dataset(split).problems) == [f"{split}: text_features of several widths: 4, 6"]


def test_validate_names_clips_that_lack_the_text_of_their_split(
    tmp_path: Path, told: MakeTold, make_sample: Callable[..., Sample]
) -> None:
    split = write(tmp_path, [told(0, 3), make_sample(1)])
    (problem,) = check_dataset(split).problems
    assert "sample train-0001" in problem and "other encoders than the manifest names (text)" in problem


def test_validate_names_values_beyond_the_plausible(tmp_path: Path, told: MakeTold) -> None:
    sample = told(0, 3)
    sample.tensors["text_features"][0, 0] = 5000.0
    (problem,) = check_dataset(write(tmp_path, [sample])).problems
    assert "text_features reaches 5000" in problem
