from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from df_models.errors import UserError
from df_models.settings import FrozenModel, all_keys, dump_config, load_config


class Schedule(FrozenModel):
    warmup: int = Field(default=10, ge=0)
    shape: Literal["cosine", "constant"] = "cosine"


class Optim(FrozenModel):
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    schedule: Schedule = Schedule()

    @field_validator("lr")
    @classmethod
    def _positive(cls, value: float) -> float:
        if value <= 0:
            raise ValueError("the learning rate must be positive")
        return value


class Data(FrozenModel):
    root: Path = Path("data")
    text: str | None = None
    stages: tuple[Schedule, ...] = ()


class Run(FrozenModel):
    name: str = "run"
    seed: int = 0
    optim: Optim = Optim(lr=0.5, schedule=Schedule(warmup=7))
    data: Data = Data()
    extra: Optim | None = None


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_order_of_strength(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "name: base\nseed: 1\noptim: {lr: 0.1}\n")
    top = write(tmp_path / "top.yaml", "extends: base.yaml\nseed: 2\n")
    run = load_config(Run, top, ["seed=3"])
    assert (run.name, run.seed, run.optim.lr) == ("base", 3, 0.1)
    assert run.optim.schedule.warmup == 7, "the section's own default survives a partial override"
    assert load_config(Run, top, []).seed == 2
    assert load_config(Run, None, []) == Run()


def test_overrides_are_yaml(tmp_path: Path) -> None:
    run = load_config(
        Run, None, ["optim.lr=3e-4", "optim.betas=[0.8, 0.9]", "data.text=null", "data={root: there}", "--seed=4"]
    )
    assert run.optim.lr == 3e-4
    assert run.optim.betas == (0.8, 0.9)
    assert run.data.root == Path("there")
    assert run.seed == 4
    assert load_config(Run, None, ["name=off"]).name == "off"
    assert load_config(Run, None, ["extra.lr=2"]).extra == Optim(lr=2)


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("optm=1", "optim"),
        ("optm.lr=1", "optim"),
        ("optim.lrr=1", "optim.lr"),
        ("optim.schedule.warmpu=1", "optim.schedule.warmup"),
        ("lr=1", "optim.lr"),
        ("extra.beta=1", "extra.betas"),
        ("data.stages=[{warmupp: 1}]", "data.stages.0.warmup"),
    ],
)
def test_misspelt_key_names_the_right_one(override: str, right: str) -> None:
    wrong = {"data": "data.stages.0.warmupp", "optm": "optm"}.get(override[:4], override.split("=")[0])
    with pytest.raises(UserError) as error:
        load_config(Run, None, [override])
    message = str(error.value)
    assert f"unknown key '{wrong}'" in message
    assert f"did you mean '{right}'?" in message
    assert "\n" not in message


def test_unlike_any_key_lists_the_keys_there() -> None:
    with pytest.raises(UserError, match=r"unknown key 'optim\.schedule\.zzzz'; the keys there are: shape, warmup"):
        load_config(Run, None, ["optim.schedule.zzzz=1"])


def test_wrong_values_are_one_line_each() -> None:
    with pytest.raises(UserError) as error:
        load_config(Run, None, ["optim.lr=-1", "seed=many", "optim.schedule.shape=cosin", "optim.schedule.warmup=-2"])
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    assert any("optim.lr: the learning rate must be positive, got -1" in line for line in lines)
    assert any("seed: " in line and "'many'" in line for line in lines)
    assert any("optim.schedule.shape" in line and "cosine" in line for line in lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "not valid YAML"),
        ("seed: 1\nseed: 2\n", 'at line 2: found duplicate key "seed"'),
        ("- 1\n", "key: value"),
        ("extends: none.yaml\n", "not found"),
        ("extends: self.yaml\n", "circle"),
        ("extends: [a, b]\n", "one path"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "self.yaml", text)
    with pytest.raises(UserError, match=said):
        load_config(Run, path, [])


def test_missing_file_and_bad_override(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found"):
        load_config(Run, tmp_path / "no.yaml", [])
    for bad in ("seed", "=3", "a..b=1"):
        with pytest.raises(UserError, match="key=value"):
            load_config(Run, None, [bad])
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        load_config(Run, path, [])


@pytest.mark.parametrize("name", ["1e5", "true", "null", "0.5", "1:30", "a: b", "Ünïcode", "yes", "2026-01-01", ""])
def test_dump_reads_back_equal(tmp_path: Path, name: str) -> None:
    run = load_config(Run, None, ["optim.lr=1e-05", "optim.betas=[0.1,1e-30]", "extra.lr=3", "data.root=a/b"])
    run = run.model_copy(update={"name": name, "data": Data(text=name, stages=(Schedule(warmup=1),))})
    path = write(tmp_path / "dump.yaml", dump_config(run))
    assert load_config(Run, path, []) == run


def test_frozen_and_keys() -> None:
    with pytest.raises(ValidationError):
        Run().seed = 3  # pyright: ignore[reportAttributeAccessIssue]
    assert "optim.schedule.warmup" in all_keys(Run)
