"""`df-data stats` says whether people of one split are in another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from df_data import cli
from df_data.check.summary import summarise
from df_data.format.sample import EncoderRecord, Sample
from df_data.format.shards import SplitWriter, staged_shards
from df_data.people.across import PeopleAcross

NETWORK = {"identity": EncoderRecord(id="net", sha256="n")}
Person = tuple[str, float | None]


@pytest.fixture
def dataset(tmp_path: Path, make_sample: Callable[..., Sample]) -> Callable[..., Path]:
    """(train, val, network=True) -> a dataset of clips of (name, angle of the vector in degrees or None)."""

    def make(train: list[Person], val: list[Person], network: bool = True) -> Path:
        for split, people in (("train", train), ("val", val)):
            encoders = make_sample(0).meta.encoders | (NETWORK if network else {})
            writer = SplitWriter(tmp_path, split, num_shards=2, build="b", encoders=encoders)
            staged = []
            for index, (name, angle) in enumerate(people):
                sample = make_sample(index, split=split)
                meta = sample.meta.model_copy(update={"identity": name, "encoders": encoders})
                if angle is not None:
                    radians = torch.tensor(angle).deg2rad()
                    sample.tensors["identity_vector"] = torch.stack([radians.cos(), radians.sin()])
                staged.append(writer.stage(Sample(meta, sample.tensors, None)))
            for shard in staged_shards(staged):
                writer.finish_shard(shard, staged)
            writer.finish()
        return tmp_path

    return make


def people_of(root: Path) -> PeopleAcross:
    found = summarise(root).people
    assert found is not None
    return found


def test_nobody_is_in_both(dataset: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = dataset([("a", 0), ("a", 5), ("b", 90), ("b", 90)], [("c", 180), ("d", 150)])
    found = people_of(root)
    assert (found.by_face, found.by_name, found.nearest, found.names) == (0, 0, 0.5, ("d", "b"))
    assert found.pair is not None and found.pair[0] == "val-0001"
    assert cli.main(["stats", str(root)]) == 0
    said = capsys.readouterr().out
    assert "people in both splits: 0 by face above 0.6 (nearest pair cosine 0.50: val-0001 of d, train-000" in said


def test_people_under_two_names_and_under_one(dataset: Callable[..., Path]) -> None:
    found = people_of(dataset([("a", 0), ("b", 90), ("c", 180)], [("x", 10), ("x", 12), ("c", 185), ("y", 270)]))
    assert (found.by_face, found.by_name) == (2, 1)
    assert found.nearest == pytest.approx(0.9962, abs=1e-4) and found.names == ("c", "c")


def test_the_smaller_split_is_held_whichever_it_is(dataset: Callable[..., Path]) -> None:
    found = people_of(dataset([("a", 0)], [("b", 20), ("c", 90), ("d", 100)]))
    assert (found.by_face, found.names) == (1, ("a", "b"))


def test_without_vectors_of_a_network_only_names_are_compared(
    dataset: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = dataset([("a", 0)], [("a", 0)], network=False)
    assert people_of(root) == PeopleAcross(by_name=1, by_face=None)
    assert cli.main(["stats", str(root)]) == 0
    assert "1 by name (as split.by: sentence means it); their faces were not compared" in capsys.readouterr().out


def test_one_split_alone_has_nobody_to_compare(dataset: Callable[..., Path]) -> None:
    assert summarise(dataset([("a", 0)], [("b", 0)]) / "val").people is None
