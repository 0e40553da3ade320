"""Protocols: frozen settings, two disjoint clip lists with hashes, and a report that says which it is of."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fabricated import outcome_of

from df_data.synth.corpus import jobs_of
from df_eval import clips as clips_module
from df_eval.cli import build_parser, parse_config
from df_eval.clips import clips_to_render, stored_clips
from df_eval.config import EvalConfig, ProtocolConfig, ReadersConfig
from df_eval.dataset import dataset_of
from df_eval.protocols import held_out
from df_eval.protocols.clip_lists import rendered_digest, split_of_recording, stored_digest
from df_eval.protocols.held_out import held_out_clips
from df_eval.protocols.protocol import DEV_NOTE, ClipList, check_list, protocol_digest, protocol_file, protocol_text
from df_eval.reading.reader_files import check_readers
from df_eval.reports.output import write_outcome
from df_eval.rows.codec import through
from df_infer.run_dir import RunDir
from df_models.errors import UserError
from df_models.settings import Location, load_config

ROOT = Path(__file__).parents[3]
FILES = sorted(ROOT.glob("configs/eval/*.yaml"))
PROTOCOLS = {path.stem: config for path in FILES if (config := load_config(EvalConfig, path)).protocol is not None}


def config_of(*argv: str) -> EvalConfig:
    return parse_config(build_parser().parse_intermixed_args(["run", *argv]))


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_named_protocols_are_there_under_their_names() -> None:
    assert set(PROTOCOLS) == {"quick", "bench", "grid", "hdtf-33", "long"}
    assert all(config.protocol is not None and config.protocol.name == name for name, config in PROTOCOLS.items())
    assert all(config.split == "dev" for config in PROTOCOLS.values()), "test is never used by oversight"


@pytest.mark.parametrize("name", [name for name, c in PROTOCOLS.items() if c.protocol.clips_from == "rendered"])
def test_rendered_lists_share_nobody_and_nothing_said_and_have_their_hashes(name: str) -> None:
    config = PROTOCOLS[name]
    assert config.protocol is not None
    frames = held_out._rendered_frames(config)
    assert frames >= max(config.frames[-1], config.frames[0] + config.shifts[-1])
    lists = {}
    for split in ("dev", "test"):
        told = getattr(config.protocol, split)
        corpus = clips_to_render(config.clips, frames, 64, told.seed)
        assert rendered_digest(corpus) == told.sha256
        assert rendered_digest(corpus.model_copy(update={"size": 128})) == told.sha256, "a list has no size"
        lists[split] = jobs_of(corpus, "val")
    for what in ("seed", "identity", "key"):
        dev, test = ({getattr(job, what) for job in lists[split]} for split in ("dev", "test"))
        assert len(dev) == len(test) == config.clips and not dev & test


def sample(key: str, person: str, frames: int = 75, source: str = "") -> SimpleNamespace:
    meta = SimpleNamespace(num_frames=frames, identity=person, source=source or key)
    return SimpleNamespace(key=key, video=b"", meta=meta)


def listed(monkeypatch: pytest.MonkeyPatch, samples: list, *args: object, **options: object) -> list[str]:
    monkeypatch.setattr(clips_module, "iter_samples", lambda _: iter(samples))
    monkeypatch.setattr(clips_module, "_from_sample", lambda sample: sample.key)
    return stored_clips(Path("data"), *args, **options)  # type: ignore[return-value, arg-type]


def test_a_dataset_s_lists_depend_on_the_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [sample(f"grid-s{n % 3}-{n:04d}", f"s{n % 3}") for n in range(60)]
    dev, test = (listed(monkeypatch, samples, 60, 73, split=split) for split in ("dev", "test"))
    assert set(dev) | set(test) == {s.key for s in samples} and not set(dev) & set(test)
    assert min(len(dev), len(test)) > 15 and all(split_of_recording(key, key) == "dev" for key in dev)
    random.Random(0).shuffle(samples)
    assert listed(monkeypatch, samples, 60, 73, split="dev") == dev, "however the shards are ordered"
    assert listed(monkeypatch, samples, 5, 73, split="dev") == dev[:5]
    assert len({key[:7] for key in dev[:3]}) == 3, "people take turns"
    others = [*samples, *(sample(f"hdtf-{n}", "h") for n in range(9)), sample("grid-s0-short", "s0", frames=33)]
    assert listed(monkeypatch, others, 60, 73, split="dev", prefix="grid") == dev
    assert stored_digest(dev) != stored_digest(dev[::-1])


def test_stretches_of_one_recording_are_in_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = [sample(f"hdtf-{take}-s{n:04d}", f"p{take}", source=f"{take}.mp4") for take in range(12) for n in range(4)]
    dev, test = (listed(monkeypatch, cut, 60, 73, split=split) for split in ("dev", "test"))
    takes = [{key.split("-")[1] for key in keys} for keys in (dev, test)]
    assert len(dev) + len(test) == 48 and all(takes) and not takes[0] & takes[1]
    rendered = [sample(f"val-{n}", "p", source="synth") for n in range(40)]
    assert all(len(listed(monkeypatch, rendered, 60, 73, split=split)) > 8 for split in ("dev", "test"))


def test_a_list_that_is_another_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(held_out, "stored_clips", lambda *args: [SimpleNamespace(key="a")])
    monkeypatch.setattr(held_out, "_from", lambda *args: "1 val clips")
    grid = PROTOCOLS["grid"]
    _, found = held_out_clips(tmp_path, grid, "mediapipe", 64)
    assert found.sha256 == stored_digest(["a"]) and "list dev" in found.source
    assert grid.protocol is not None
    own = grid.protocol.model_copy(update={"dev": grid.protocol.dev.model_copy(update={"sha256": "f" * 64})})
    with pytest.raises(UserError, match="the dev list of the protocol grid has the hash ffff"):
        held_out_clips(tmp_path, grid.model_copy(update={"protocol": own}), "mediapipe", 64)
    check_list(own, "test", "anything: the protocol has no hash of it")
    monkeypatch.setattr(held_out, "stored_clips", lambda *args: [])
    with pytest.raises(UserError, match="begins with 'grid', and the list dev of the val split"):
        held_out_clips(tmp_path, grid, "mediapipe", 64)
    with pytest.raises(UserError, match="shows many people"):
        held_out_clips(None, PROTOCOLS["bench"], "synthetic", 64, person=3)


def test_a_protocol_cannot_be_changed(tmp_path: Path) -> None:
    bench = config_of("--protocol", "bench", "--split", "test", "rollout.steps=8", "--device", "cpu", "videos=0")
    assert (bench.split, bench.clips, bench.rollout.steps) == ("test", 32, 8)
    own = protocol_digest(bench, (64, 64))
    assert own == protocol_digest(PROTOCOLS["bench"], [64, 64]), "neither list nor machine is part of it"
    assert own != protocol_digest(PROTOCOLS["long"], (64, 64))
    assert own != protocol_digest(bench, (64, 128)) != protocol_digest(bench, (128, 64)), "the videos' size is"
    more = ({"interventions": True}, {"sync_codecs": True})
    assert len({own, *(protocol_digest(bench.model_copy(update=asked), (64, 64)) for asked in more)}) == 3
    assert config_of("--config", "configs/eval/bench.yaml") == PROTOCOLS["bench"]
    (tmp_path / "plain.yaml").write_text("clips: 2\n")
    for argv, message in (
        (["--protocol", "bench", "--clips", "2"], "bench is fixed: clips is 32"),
        (["--config", "configs/eval/bench.yaml", "frames=[33]", "seed=1"], r"frames is \(33, 129\), seed is 0"),
        (["--protocol", "bench", "protocol.test.seed=1"], "protocol is bench"),
        (["--protocol", "bench", "interventions=true"], "interventions is False"),
        (["--protocol", "bench", "sync_codecs=true"], "sync_codecs is False"),
        (["--protocol", "bnch"], "no protocol 'bnch'; configs/eval has bench, "),
        (["--protocol", str(tmp_path / "plain.yaml")], "holds settings and no protocol"),
        (["--protocol", "bench", "--config", "x.yaml"], "leave --config out"),
        (["--split", "test"], "lists of a protocol"),
        (["--protocol", "bench", "render=true"], "leave render out"),
    ):
        with pytest.raises(UserError, match=message):
            config_of(*argv)


def test_a_protocol_of_rendered_people_needs_no_dataset_and_no_real_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {root: gone, synth: {size: 64}}\n")
    assert dataset_of(RunDir(tmp_path), PROTOCOLS["bench"]) is None
    (tmp_path / "config.yaml").write_text("data: {root: gone}\n")
    with pytest.raises(UserError, match="bench shows rendered people"):
        dataset_of(RunDir(tmp_path), PROTOCOLS["bench"])


def test_a_reader_s_other_file_is_refused(tmp_path: Path) -> None:
    protocol = PROTOCOLS["grid"].protocol
    (tmp_path / "face.task").write_bytes(b"another")
    check_readers(protocol, ReadersConfig())
    check_readers(None, ReadersConfig(landmarker=Location(tmp_path / "face.task")))
    for name, given in (("landmarker", ""), ("identity", "mobilefacenet:")):
        files = ReadersConfig.model_validate({name: f"{given}{tmp_path / 'face.task'}"})
        with pytest.raises(UserError, match=rf"the protocol grid reads with .* as readers\.{name}"):
            check_readers(protocol, files)


def test_a_reader_s_hash_may_be_of_a_kind(tmp_path: Path) -> None:
    (tmp_path / "face.onnx").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    given = {kind: f"{kind}{tmp_path / 'face.onnx'}" for kind in ("", "mobilefacenet:")}
    kinds = {kind: ReadersConfig.model_validate({"identity": path}) for kind, path in given.items()}
    pin = ProtocolConfig(name="p", clips_from="dataset", readers={"identity": f"mobilefacenet:{digest}"})
    check_readers(pin, kinds["mobilefacenet:"])
    with pytest.raises(UserError, match=f"mobilefacenet:{digest[:12]} as readers.identity, and .* has {digest[:12]}"):
        check_readers(pin, kinds[""])
    for files in kinds.values():
        check_readers(pin.model_copy(update={"readers": {"identity": digest}}), files)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_the_report_says_which_list_it_is_of(split: str, tmp_path: Path) -> None:
    outcome = outcome_of(tmp_path / "none.jsonl", clips=1)
    protocol = {"name": "bench", "sha256": "a" * 64, "split": split, "list": "b" * 64, "list_checked": True}
    facts = outcome.facts | {"protocol": protocol, "clips": [{}]}
    config = PROTOCOLS["bench"].model_copy(update={"split": split, "videos": 0, "resamples": 100})
    lines = [("protocol", protocol_text(facts)), *outcome.protocol]
    page = write_outcome(
        replace(outcome, config=config, facts=facts, protocol=lines, results={}, videos={}),
        tmp_path / "out",
        quiet=True,
    )
    text, table = page.read_text(), (page.parent / "table.md").read_text()
    document = json.loads((page.parent / "metrics.json").read_text())
    for told in (text, table, document["warning"]):
        assert (DEV_NOTE in told) == (split == "dev")
    assert document["protocol"]["protocol"] == protocol
    for told in (text, table):
        assert f"bench (aaaaaaaaaaaa), list {split} of 1 clips (bbbbbbbbbbbb, as the protocol has it)" in told
        assert f"bench ({split})" in told
    assert "position: fixed" in text, "on every printed page"
    assert protocol_text({"protocol": None}).startswith("none")
    assert ClipList("").sha256 == ""


def test_h264_changes_frames_a_little() -> None:
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    frames = np.stack([np.roll(np.broadcast_to(ramp[:, None], (32, 32, 3)), t, axis=0) for t in range(9)])
    coded = through("h264", frames)
    assert coded.shape == frames.shape and coded.dtype == np.uint8
    assert 0 < np.abs(coded.astype(int) - frames).mean() < 8 and through("raw", frames) is frames


def test_a_broken_file_beside_the_protocols_hides_none_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "configs/eval"
    place.mkdir(parents=True)
    (place / "draft.yaml").write_text("a: [")
    (place / "plain.yaml").write_text("clips: 3\n")
    (place / "own.yaml").write_text("protocol: {name: own, clips_from: dataset}\nsplit: dev\n")
    assert protocol_file("own") == Path("configs/eval/own.yaml")
    with pytest.raises(UserError, match="no protocol 'onw'; configs/eval has own, or give"):
        protocol_file("onw")
