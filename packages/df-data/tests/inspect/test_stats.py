"""`df-data stats`: every number against one computed another way."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from df_data import cli
from df_data.check.summary import length_histogram, spread, summarise
from df_data.format.ledger import Ledger, LedgerEntry
from df_data.format.sample import Sample
from df_data.format.shards import SplitWriter, iter_samples, staged_shards
from df_models.structure import LIVEPORTRAIT_70

LENGTHS = (5, 5, 9, 33)
HALVED: tuple[dict[str, object], ...] = (
    {},
    {"weight": 0.5, "provenance": {"weight_lowered_by": "noisy"}},
    {"weight": 0.25, "provenance": {"weight_lowered_by": "blurred, noisy"}},
    {"weight": 0.5},
)


@pytest.fixture
def dataset(tmp_path: Path, make_sample: Callable[..., Sample]) -> Path:
    encoders = make_sample(0).meta.encoders
    writer = SplitWriter(tmp_path, "train", num_shards=2, build="b", encoders=encoders)
    staged = []
    for index, frames in enumerate(LENGTHS):
        sample = make_sample(index, frames=frames, video=b"v" * 100 if index else None)
        meta = sample.meta.model_copy(
            update={"scores": {"snr": float(index)}, "identity": f"p{index // 2}"} | HALVED[index]
        )
        staged.append(writer.stage(Sample(meta, sample.tensors, sample.video)))
    for shard in staged_shards(staged):
        writer.finish_shard(shard, staged)
    writer.finish()
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.record(LedgerEntry(input="a", status="rejected", reason="no_face", scores={"snr": 4.0}))
    ledger.record(LedgerEntry(input="b", status="failed", error="cannot be decoded"))
    return tmp_path


def test_the_numbers_are_right(dataset: Path) -> None:
    (split,) = summarise(dataset).splits
    samples = list(iter_samples(dataset / "train"))
    assert (split.clips, split.persons, split.most_clips_of_a_person, split.with_video) == (4, 2, 2, 3)
    assert split.seconds == sum(LENGTHS) / 25 and split.hours == split.seconds / 3600
    assert [(b.shortest, b.longest, b.clips) for b in split.lengths] == [(5, 5, 2), (9, 9, 1), (33, 33, 1)]
    size = sum(path.stat().st_size for path in (dataset / "train").glob("*.tar"))
    assert split.shard_bytes == size and split.bytes_per_hour == pytest.approx(size / split.hours)
    assert split.video_bytes == 300 and split.halved == {"noisy": 2, "blurred": 1}
    for name in samples[0].tensors:
        stored = split.tensors[name]
        assert stored.bytes == sum(s.tensors[name].nbytes for s in samples) and stored.clips == 4
        assert stored.dtype == str(samples[0].tensors[name].dtype).partition(".")[2]
    assert split.scores["snr"].model_dump() == pytest.approx(
        {"count": 4, "min": 0, "q05": 0.15, "median": 1.5, "q95": 2.85, "max": 3}
    )
    latents = np.concatenate([s.tensors["video_latent"].double().numpy().ravel() for s in samples])
    assert split.latents is not None
    assert (split.latents.mean, split.latents.std) == pytest.approx((latents.mean(), latents.std()))


def test_structure_is_described_by_its_named_fields(dataset: Path) -> None:
    (split,) = summarise(dataset).splits
    values = np.concatenate([s.tensors["structure"].numpy() for s in iter_samples(dataset / "train")])
    assert split.structure_frames == len(values) and list(split.structure) == [f for f, _ in LIVEPORTRAIT_70.fields]
    for name, found in split.structure.items():
        mine = values[:, LIVEPORTRAIT_70.slice(name)].astype(np.float64)
        np.testing.assert_allclose(found.mean, mine.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(found.std, mine.std(axis=0), atol=1e-9)
        np.testing.assert_array_equal(found.min, mine.min(axis=0))
        np.testing.assert_array_equal(found.max, mine.max(axis=0))


def test_the_ledger_is_summed_up(dataset: Path) -> None:
    ledger = summarise(dataset).ledger
    assert ledger is not None
    assert ledger.counts == {"accepted": 0, "rejected": 1, "failed": 1} and ledger.reasons == {"no_face": 1}
    assert ledger.failures == {"b": "cannot be decoded"} and ledger.reject_scores["snr"].median == 4.0
    assert summarise(dataset / "train").ledger is None


def test_lines_and_json_say_the_same(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stats", str(dataset), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(summarise(dataset).model_dump_json())
    assert cli.main(["stats", str(dataset), "--full"]) == 0
    out = capsys.readouterr().out
    for said in (
        "4 clips",
        "per hour",
        "5 (2 clips), 9 (1 clip)",
        "score snr",
        "1 x no_face",
        "failed: b: cannot",
        "halved: 2 x noisy",
    ):
        assert said in out
    assert "score of rejects snr: 5 % 4" in out and "yaw: " in out and "structure 3.6 KiB" in out


def test_ten_lines_say_what_matters(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stats", str(dataset)]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") <= 10 and len(out) < 1500
    for said in (
        f"{dataset / 'train'}: 4 clips, 2 s, 2 people, 16x16, 5 (2 clips), 9 (1 clip), 33 (1 clip) frames",
        "licences: 4 CC0-1.0",
        "encoders: audio audio, video_vae vae",
        "half the weight for: 2 noisy, 1 blurred",
        "inputs: 0 accepted, 1 rejected, 1 failed",
        "rejected for: 1 no_face",
        "failed: b: cannot be decoded\n",
        f"df-data stats {dataset} --full",
    ):
        assert said in out, said


def test_many_lengths_fall_into_equal_bins() -> None:
    lengths = [1 + 4 * n for n in range(100)]
    bins = length_histogram(lengths)
    assert sum(b.clips for b in bins) == 100 and len(bins) == 8
    assert bins[0].shortest == 1 and bins[-1].longest == 397
    assert all(b.shortest == a.longest + 1 for a, b in itertools.pairwise(bins))
    for b in bins:
        assert b.clips == sum(b.shortest <= n <= b.longest for n in lengths)
    assert length_histogram([]) == ()
    assert spread([2.0]).q95 == 2.0
