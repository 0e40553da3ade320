from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator

from df_models.errors import UserError
from df_models.settings import FrozenModel, Location, all_keys, dump_config, load_config, parse_yaml
from df_models.settings.text import dump_yaml

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


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
    root: Location = Location("data")
    text: str | None = None
    stages: tuple[Schedule, ...] = ()
    crops: tuple[tuple[int, ...], ...] | None = None
    switches: tuple[tuple[bool, int], ...] = ()


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
    changed = load_config(Run, None, ["optim.schedule.shape=constant"]).optim
    assert changed.model_fields_set == {"lr", "schedule"} and changed.schedule.model_fields_set == {"shape", "warmup"}


def test_overrides_are_yaml(tmp_path: Path) -> None:
    run = load_config(
        Run, None, ["optim.lr=3e-4", "optim.betas=[0.8, 0.9]", "data.text=null", "data={root: there}", "--seed=4"]
    )
    assert run.optim.lr == 3e-4
    assert run.optim.betas == (0.8, 0.9)
    assert run.data.root == "there"
    assert run.seed == 4
    assert load_config(Run, None, ["name=off"]).name == "off"
    assert load_config(Run, None, ["extra.lr=2"]).extra == Optim(lr=2)


def test_a_wrong_item_does_not_make_its_list_too_short_as_well() -> None:
    class Several(FrozenModel):
        runs: tuple[Run, ...] = Field(min_length=1)

    with pytest.raises(UserError) as told:
        load_config(Several, None, ["runs=[{seed: x}]"])
    assert "runs.0.seed" in str(told.value) and "at least 1 item" not in str(told.value)
    with pytest.raises(UserError, match=r"runs: .*at least 1 item"):
        load_config(Several, None, ["runs=[]"])


def test_items_of_a_list_are_named_by_their_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "run.yaml", "data: {stages: [{warmup: 1}, {warmup: 2, shape: constant}]}\n")
    run = load_config(
        Run, file, ["data.stages.1.warmup=5", "data.stages.2={warmup: 6}", "data.stages.2.shape=constant"]
    )
    assert run.data.stages == (
        Schedule(warmup=1), Schedule(warmup=5, shape="constant"), Schedule(warmup=6, shape="constant"),
    )  # fmt: skip
    assert load_config(Run, None, ["optim.betas.0=0.8"]).optim.betas == (0.8, 0.95), "of a default too"
    assert load_config(Run, None, ["data.stages.0.warmup=3"]).data.stages == (Schedule(warmup=3),)
    with pytest.raises(UserError, match=r"stages\.3: the list stages has items 0 to 1"):
        load_config(Run, file, ["data.stages.3.warmup=5"])
    with pytest.raises(UserError, match=r"override 'data\.stages\.1\.warmupp=5': unknown key"):
        load_config(Run, file, ["data.stages.1.warmupp=5"])


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("optm=1", "optim"),
        ("optm.lr=1", "optim"),
        ("optm.schedule.warmup=1", "optim"),
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
    assert message.startswith(f"override '{override}': unknown key '{wrong}'")
    assert f"did you mean '{right}'?" in message
    assert "\n" not in message


def test_a_section_that_there_is_not_is_told_of_the_override_and_by_what_was_given_in_it() -> None:
    named = (
        r"override 'zz.shape=cosine': unknown key 'zz' \(did you mean 'optim.schedule.shape' or 'extra.schedule.shape'"
    )
    with pytest.raises(UserError, match=named):
        load_config(Run, None, ["zz.shape=cosine"])


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
    write(tmp_path / "quickstart.yaml", "{}")
    with pytest.raises(UserError, match=r"not found: .*did you mean 'quickstart.yaml'"):
        load_config(Run, tmp_path / "quickstrat.yaml", [])
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


@pytest.mark.parametrize(
    ("text", "name"),
    [("1:30", "1:30"), ("2024-99-99", "2024-99-99"), ("2026-01-01", "2026-01-01"), ("on", "on"), ("=", "=")],
)
def test_text_that_yaml_1_1_took_for_something_else_is_text(tmp_path: Path, text: str, name: str) -> None:
    assert load_config(Run, write(tmp_path / "a.yaml", f"name: {text}\n")).name == name
    assert load_config(Run, None, [f"name={text}"]).name == name


def test_a_time_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"optim\.lr: input should be a valid number, .*, got '1:30'$"):
        load_config(Run, write(tmp_path / "a.yaml", "optim: {lr: 1:30}\n"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.lr=null", "optim.lr: input should be a valid number, got null"),
        ("optim.lr=abc", "optim.lr: input should be a valid number, .*, got 'abc'"),
        ("optim=3", "optim: .*, got 3"),
        ("optim=null", "optim: .*, got null"),
        ("data.root=3", "data.root: write a path as text, got 3"),
        ("data.root=", "data.root: .*, got null"),
        ("data.root=''", "data.root: .*empty"),
    ],
)
def test_a_value_of_another_kind_is_told_in_one_line(override: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^override '{re.escape(override)}': {said}[^\n]*$"):
        load_config(Run, None, [override])


@pytest.mark.parametrize("override", ["seed=true", "optim.betas=[0.9, true]", "data.crops=[[1, 2], [3, false]]"])
def test_true_is_no_number_at_any_depth(override: str) -> None:
    with pytest.raises(UserError, match="should be a number"):
        load_config(Run, None, [override])


def test_true_stays_true_where_it_may_be() -> None:
    assert load_config(Run, None, ["data.switches=[[true, 2]]"]).data.switches == ((True, 2),)


def test_an_error_is_told_of_the_file_or_of_the_override_that_made_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "nam: x\n")
    with pytest.raises(UserError) as caught:
        load_config(Run, path, ["optim={lr: a, schedule: {warmupp: 1}}", "optim.lr=b"])
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "override 'optim.lr=b'",
        "override 'optim={lr",
        str(path),
    ]


def test_merge_keys_fill_in_and_anchors_may_be_repeated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "optim: &o\n  <<: {lr: 0.5, betas: [0.1, 0.2]}\n  lr: 0.25\nextra: *o\n")
    run = load_config(Run, path)
    assert (run.optim.lr, run.optim.betas) == (0.25, (0.1, 0.2))
    assert run.extra is not None and run.extra.lr == 0.25


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\ndata:\n\troot: a\n", "line 3: .*indent with spaces"),
        ("name: x\noptim: [1\nseed: 2\n", "line 3"),
        ("name: *gone\n", "line 1: .*gone"),
        ("name: x\nseed: !!python/name:os.system\n", "line 2"),
        ("name: x\n---\nname: y\n", "line 2"),
        ("? {x: 1}\n: 2\n", "line 1"),
        ("seed: !!int many\n", "many"),
    ],
)
def test_a_syntax_error_tells_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}/a.yaml: not valid YAML.*{said}") as error:
        load_config(Run, write(tmp_path / "a.yaml", text))
    assert "\n" not in str(error.value)


def test_two_files_that_extend_each_other_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    write(tmp_path / "b.yaml", "extends: a.yaml\n")
    with pytest.raises(UserError, match=r"circle: a\.yaml -> b\.yaml -> a\.yaml"):
        load_config(Run, tmp_path / "a.yaml")


def test_paths_are_expanded_and_recorded_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DISK", "/mnt/disk")
    for written, used in (
        ("~/data", "/home/me/data"),
        ("${DISK}/data", "/mnt/disk/data"),
        ("${NO_SUCH:-../x}/data", "../x/data"),
        ("pipe:cat ${DISK}/{}", "pipe:cat /mnt/disk/{}"),
        ("data", "data"),
    ):
        run = load_config(Run, None, [f"data.root='{written}'"])
        assert run.data.root == used and run.data.root.path == Path(used)
        assert f"root: {written}\n" in dump_config(run)
        assert load_config(Run, write(tmp_path / "run.yaml", dump_config(run))) == run
        assert pickle.loads(pickle.dumps(run)).data.root.written == written


def test_defaults_are_expanded_when_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Files(FrozenModel):
        file: Location = Location("${DF_SETTINGS_TEST:-there}/file")

    assert load_config(Files, None).file == "there/file"
    monkeypatch.setenv("DF_SETTINGS_TEST", "here")
    assert load_config(Files, None).file == "here/file"


def test_a_variable_that_is_not_set_is_told_with_the_key_unless_the_file_is_a_record(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "data: {root: '${NO_SUCH_VARIABLE}/x'}\n")
    with pytest.raises(UserError, match=r"data\.root: .*NO_SUCH_VARIABLE is not set"):
        load_config(Run, path)
    run = load_config(Run, path, recorded=True)
    assert "${NO_SUCH_VARIABLE}/x" in dump_config(run)
    with pytest.raises(UserError, match="NO_SUCH_VARIABLE is not set"):
        _ = run.data.root.path


def test_extends_may_lie_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "base.yaml", "seed: 7\n")
    (tmp_path / "elsewhere").mkdir()
    assert load_config(Run, write(tmp_path / "elsewhere" / "a.yaml", "extends: ~/base.yaml\n")).seed == 7


@given(st.dictionaries(st.text(min_size=1), st.recursive(LEAVES, st.lists, max_leaves=4), max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_plain_values_read_back_equal(tree: dict[str, object]) -> None:
    assert parse_yaml(dump_yaml(tree), "it") == tree
