"""docs/data-format.md: its readers run as they stand, and its tables name what the code has, no more and no less."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from df_data.format.ledger import LedgerEntry, StagedSample
from df_data.format.manifest import Manifest, ShardEntry, StructureStatistics, read_manifest
from df_data.format.sample import DTYPES, OF_FACES, REQUIRED, SCHEMA_VERSION, SampleMeta, expected_shapes
from df_data.format.shards import iter_samples, shard_of, tar_members
from df_data.format.statistics import Moments
from df_data.synth.corpus import SynthConfig, build_corpus
from df_models.errors import UserError
from df_models.settings import FrozenModel
from df_models.structure import FLAME_159, LIVEPORTRAIT_70, StructureLayout
from df_models.time import latent_length, to_slots

DOCUMENT = Path(__file__).parents[3] / "docs" / "data-format.md"
if not DOCUMENT.is_file():
    pytest.skip("docs/data-format.md is not beside this package", allow_module_level=True)
TEXT = DOCUMENT.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SynthConfig(clips=3, val_clips=2, frames=9, val_frames=9, workers=1, clips_per_shard=2)
    return build_corpus(config, tmp_path_factory.mktemp("format") / "corpus", progress=False)


def code(name: str) -> str:
    """The one python block that defines a function."""
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if f"def {name}(" in block]
    return found


def function(name: str) -> Callable[[Path], Iterable[tuple[dict[str, Any], dict[str, Any], bytes | None]]]:
    namespace: dict[str, Any] = {}
    exec(code(name), namespace)
    return namespace[name]


@pytest.mark.parametrize("name", ["read_split", "open_split"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_reader_of_the_page_reads_what_we_read(corpus: Path, name: str, split: str) -> None:
    theirs = list(function(name)(corpus / split))
    ours = list(iter_samples(corpus / split))
    assert len(theirs) == len(ours) == (3 if split == "train" else 2)
    for (meta, tensors, video), sample in zip(theirs, ours):
        assert SampleMeta.model_validate(meta) == sample.meta
        assert video == sample.video and (video is None) == (split == "train")
        assert set(tensors) == set(sample.tensors)
        for tensor_name, values in tensors.items():
            np.testing.assert_array_equal(np.asarray(values), sample.tensors[tensor_name].numpy())


def test_the_plain_reader_needs_nothing_of_ours_and_sees_damage(corpus: Path, tmp_path: Path) -> None:
    source = code("read_split")
    assert len(source.splitlines()) <= 27 and "df_" not in source + code("open_split")
    script = source + "\nimport sys\nprint(len(list(read_split(sys.argv[1]))), 'torch' in sys.modules)\n"
    command = [sys.executable, "-c", script, str(corpus / "train")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "3 False\n"
    damaged = tmp_path / "train"
    damaged.mkdir()
    for path in (corpus / "train").iterdir():
        data = path.read_bytes()
        (damaged / path.name).write_bytes(data[:-1] + b"x" if path.suffix == ".tar" else data)
    with pytest.raises(ValueError, match="damaged"):
        list(function("read_split")(damaged))


# -------------------- the tables


def rows(heading: str) -> list[list[str]]:
    """The cells of the tables under a heading, without head and rule."""
    section = re.split(r"^#+ ", TEXT.partition(f"{heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "`" in line.split("|")[1]]


def named(cells: Iterable[str]) -> set[str]:
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def fields(*models: type[FrozenModel]) -> set[str]:
    return {name for model in models for name in model.model_fields}


def test_every_field_is_in_its_table_and_no_other() -> None:
    assert named(row[0] for row in rows("### `<key>.json`")) == fields(SampleMeta)
    assert named(row[0] for row in rows("## `manifest.json`")) == fields(Manifest, ShardEntry)
    assert named(row[0] for row in rows("## `ledger.jsonl`")) == fields(LedgerEntry)
    entry = TEXT.partition("Each entry of `samples`:")[2].partition("\n\n")[0]
    assert named([entry]) == fields(StagedSample)
    (cell,) = [row[-1] for row in rows("## `manifest.json`") if row[0] == "`structure_vectors`"]
    assert named([cell]) == {field.name for field in dataclasses.fields(StructureLayout)}
    for model, field in ((StructureStatistics, "structure_statistics"), (Moments, "structure")):
        (cell,) = [row[-1] for row in rows("## `manifest.json`") if row[0] == f"`{field}`"]
        assert named([cell]) == fields(model)
    assert f"version {SCHEMA_VERSION}\n" in TEXT.splitlines(keepends=True)[0]


def test_which_fields_are_needed_is_told() -> None:
    told = {name: row[2] for row in rows("### `<key>.json`") for name in named([row[0]])}
    optional = {name for name, field in SampleMeta.model_fields.items() if field.default is None}
    assert {name for name, needed in told.items() if needed != "yes"} == optional


def test_the_tensors_are_those_of_the_code(corpus: Path) -> None:
    table = {
        row[0].strip("`"): row for row in rows("### `<key>.safetensors`") if row[1] in ("float16", "float32", "int32")
    }
    assert set(table) == set(DTYPES)
    assert {name: row[1] for name, row in table.items()} == {n: str(d).partition(".")[2] for n, d in DTYPES.items()}
    assert {name for name, row in table.items() if row[3] == "yes"} == set(REQUIRED)
    assert {name for name, row in table.items() if row[3] == "of faces"} == set(OF_FACES)
    sample = next(iter_samples(corpus / "train"))
    meta = sample.meta
    letters = {"P": meta.num_frames, "2P": 2 * meta.num_frames, "T": latent_length(meta.num_frames)}
    letters |= {"h": meta.height // 8, "w": meta.width // 8, "D_s": 70, "K": len(meta.truth_names or ())}
    for name, shape in expected_shapes(meta).items():
        told = [part.strip() for part in table[name][2].strip("[]").split(",")]
        assert [letters.get(part, int(part) if part.isdigit() else None) for part in told] == list(shape), name


def test_the_structure_fields_are_those_of_the_layout() -> None:
    lines = re.findall(r"^\| \d.*$", TEXT, re.MULTILINE)
    told = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    columns = {}
    for where, field, _ in told:
        first, last = (int(n) for n in (re.findall(r"\d+", where) * 2)[:2])
        columns[field.strip("`")] = slice(first, last + 1)
    assert columns == {name: LIVEPORTRAIT_70.slice(name) for name, _ in LIVEPORTRAIT_70.fields}
    assert re.findall(r"`(\w+)` (\d+)", TEXT.partition("`flame` is FLAME's")[2].partition("Of a")[0]) == [
        (name, str(width)) for name, width in FLAME_159.fields
    ]


# -------------------- what the page claims of the bytes


def test_the_tar_is_as_told(corpus: Path) -> None:
    for path in corpus.glob("*/*.tar"):
        data = path.read_bytes()
        assert data.endswith(b"\0" * 1024) and len(data) % 512 == 0
        with tarfile.open(path) as archive:
            infos = archive.getmembers()
            assert archive.pax_headers == {}
        names = [info.name for info in infos]
        assert names == sorted(names)
        last = infos[-1].offset_data + infos[-1].size
        assert len(data) == last + -last % 512 + 1024, "and then the file ends"
        assert {(i.mode, i.mtime, i.uid, i.gid, i.uname, i.gname, i.type) for i in infos} == {
            (0o644, 0, 0, 0, "", "", tarfile.REGTYPE)
        }
        assert {data[i.offset + 257 : i.offset + 265] for i in infos} == {b"ustar\x0000"}


def test_json_is_sorted_compact_and_without_nulls(corpus: Path) -> None:
    for path in corpus.glob("*/*.tar"):
        with tarfile.open(path) as archive:
            for info in archive:
                if info.name.endswith(".json"):
                    text = archive.extractfile(info).read().decode("utf-8")  # pyright: ignore[reportOptionalMemberAccess]
                    document = json.loads(text)
                    assert None not in document.values()
                    assert text == json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def test_the_shard_follows_from_the_hash(corpus: Path) -> None:
    manifest = read_manifest(corpus / "train")
    for line in (corpus / "ledger.jsonl").read_text().splitlines():
        entry = json.loads(line)
        for staged in entry["samples"]:
            if entry["split"] == "train":
                number = int(hashlib.sha256(staged["key"].encode()).hexdigest()[:16], 16) % manifest.num_shards
                assert staged["shard"] == number == shard_of(staged["key"], manifest.num_shards)


def test_the_diagram_of_time_is_that_of_the_code() -> None:
    import torch

    slots = to_slots(torch.arange(9)[:, None])[..., 0].tolist()
    line = re.search(r"^slots +(.*?) +\|  \.\.\.", TEXT, re.MULTILINE)
    assert line is not None
    assert [[int(n) for n in part.split()] for part in line[1].split("|")] == slots


def test_the_longest_key() -> None:
    (longest,) = re.findall(r"A key has 1 to (\d+) letters", TEXT)
    tar_members({f"{'k' * int(longest)}.safetensors": b""})
    with pytest.raises((ValueError, UserError)):
        tar_members({f"{'k' * (int(longest) + 1)}.safetensors": b""})
