"""The arms of a study: their settings, and which arms they need first. Pure functions.

A setting is a leaf of a nested mapping; a study's file may write it under its dotted name, too.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from df_eval.study.config import ARM_NAME, StudyConfig
from df_models.errors import UserError, nearest
from df_models.settings import merge

EVALUATION, BASE = "evaluation", "base"
"""Keys of an arm that are no settings of df-train."""
_NEEDED = re.compile(r"\$\{arm:([^}]*)\}")


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        base: configuration file of df-train.
        train, evaluation: settings of df-train and df-eval that are changed, as nested mappings.
        at: its place on each axis, as labels; of a named arm, its name on the axis ``arms``.
        needs: arms whose runs its settings name.
        measured: whether df-eval measures it.
    """

    name: str
    base: str
    train: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    at: Mapping[str, str]
    needs: tuple[str, ...]
    measured: bool = True


def arms_of(config: StudyConfig) -> dict[str, Arm]:
    """All arms by name, those that others need before those others.

    Raises:
        UserError: an arm, a hypothesis or a list names an arm that there is not, arms need each other in a circle, an
            axis makes a name that is none, or two combinations of the axes have one name.
    """
    made = [_arm(config, name, settings, at) for name, settings, at in _combinations(config)]
    arms = {arm.name: arm for arm in made}
    if len(arms) < len(made):
        raise UserError("two values of an axis have the same label; give the axis as a mapping of labels to settings")
    _check_names(config, arms)
    try:
        order = [*TopologicalSorter({arm.name: arm.needs for arm in made}).static_order()]
    except CycleError as error:
        raise UserError(f"arms need each other in a circle: {' -> '.join(error.args[1])}") from error
    return {name: arms[name] for name in sorted(order, key=lambda name: (_depth(name, arms), [*arms].index(name)))}


def _depth(name: str, arms: Mapping[str, Arm]) -> int:
    return 1 + max((_depth(needed, arms) for needed in arms[name].needs), default=-1)


def _check_names(config: StudyConfig, arms: Mapping[str, Arm]) -> None:
    for name in arms:
        if not re.fullmatch(ARM_NAME, name):
            raise UserError(
                f"the axes make an arm with the name {name!r}; an arm's name starts with a letter or a digit, so give "
                "the axis another name (as a mapping of labels to settings, its name is free)"
            )

    def check(name: str, where: str) -> None:
        if name not in arms:
            raise UserError(
                f"{where} names the arm {name!r}, which there is not{nearest(name, arms)}: {', '.join(arms)}"
            )

    for arm in arms.values():
        for needed in arm.needs:
            check(needed, f"arms.{arm.name}")
    for name in config.only_trained:
        check(name, "only_trained")
    if config.reference is not None:
        check(config.reference, "reference")
    for hypothesis in config.hypotheses:
        for name in hypothesis.arms:
            check(name, f"the hypothesis {hypothesis.name!r}")
            if not arms[name].measured:
                raise UserError(f"the hypothesis {hypothesis.name!r} is about {name!r}, which only_trained leaves out")


def _arm(config: StudyConfig, name: str, settings: Mapping[str, Any], at: Mapping[str, str]) -> Arm:
    tree = nested(settings)
    evaluation, own_base = tree.pop(EVALUATION, {}), tree.pop(BASE, None)
    if not isinstance(evaluation, dict):
        raise UserError(f"arms.{name}: evaluation takes settings of df-eval, such as evaluation.rollout.steps")
    if own_base is None:
        tree = merge(nested(config.set), tree)
    for key in ("seed", "name", "run_dir"):
        if key in tree:
            raise UserError(f"arm {name}: {key} is what the study gives each run itself; leave it out")
    measured = name not in config.only_trained
    shared = config.evaluation.set if measured else {}
    needs = dict.fromkeys(_NEEDED.findall(json.dumps([tree, evaluation, shared])))
    base = str(config.base) if own_base is None else str(own_base)
    return Arm(name, base, tree, evaluation, at, tuple(needs), measured)


def _combinations(config: StudyConfig) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """Name, settings and place of each arm."""
    if config.arms:
        yield from ((name, settings, {"arms": name}) for name, settings in config.arms.items())
        return
    short = _short_names([*config.axes])
    for combination in itertools.product(*(_values(key, values) for key, values in config.axes.items())):
        at = {short[key]: label for key, label, _ in combination}
        settings: dict[str, Any] = {}
        for _, _, part in combination:
            settings = merge(settings, nested(part))
        yield "_".join(f"{_plain(axis, '_')}-{_plain(label)}" for axis, label in at.items()), settings, at


def _values(key: str, values: Any) -> list[tuple[str, str, dict[str, Any]]]:
    if isinstance(values, Mapping):
        return [(key, str(label), part) for label, part in values.items()]
    return [(key, value if isinstance(value, str) else json.dumps(value), {key: value}) for value in values]


def _short_names(keys: list[str]) -> dict[str, str]:
    """The last part of each dotted key, the whole key where that part is not the only one of its name."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: short if last.count(short) == 1 else key for key, short in zip(keys, last, strict=True)}


def _plain(label: str, also: str = "") -> str:
    """A label as a part of an arm's name, which is a directory; a number keeps its sign."""
    sign = "-" if re.match(r"-\.?\d", label) else ""
    return sign + re.sub(rf"[^A-Za-z0-9.{also}]+", "-", label).strip("-") or "none"


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a nested mapping, whether they were written so or under dotted names."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        part: Any = nested(value) if isinstance(value, Mapping) else value
        for name in reversed(str(key).split(".")):
            part = {name: part}
        tree = merge(tree, part)
    return tree


def overrides(tree: Mapping[str, Any], above: str = "") -> list[str]:
    """The settings of a nested mapping as a command line gives them: ``optim.lr=0.001``."""
    lines: list[str] = []
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            lines += overrides(value, f"{above}{key}.")
        else:
            lines.append(f"{above}{key}={json.dumps(value)}")
    return lines


def with_places(text: str, places: Mapping[str, str]) -> str:
    """A setting as a command line gives it, ``key=JSON``, whose ``${arm:NAME}`` are replaced."""
    return _NEEDED.sub(lambda match: json.dumps(places[match[1]])[1:-1], text)
