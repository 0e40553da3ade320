"""Configurations read, checked and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from df_models.errors import UserError
from df_models.settings.base import RECORDED
from df_models.settings.keys import default_tree
from df_models.settings.problems import problems
from df_models.settings.text import dump_yaml
from df_models.settings.tree import merge, overridden, read_tree

M = TypeVar("M", bound=BaseModel)


def validate_config(
    cls: type[M],
    tree: Mapping[str, Any],
    where: str = "config",
    *,
    overrides: Sequence[str] = (),
    recorded: bool = False,
) -> M:
    """An instance of `cls` from a nested mapping.

    Args:
        where: what an error is told of.
        overrides: are in the mapping already; an error in what one of them names is told of that one.
        recorded: as in :func:`load_config`.

    Raises:
        UserError: one line per wrong key, each with the key's full dotted name.
    """
    whole = merge(default_tree(cls, tree), tree)
    try:
        return cls.model_validate(whole, context={RECORDED: recorded})
    except ValidationError as error:
        lines = [f"{overridden(key, overrides, line) or where}: {line}" for key, line in problems(cls, error)]
        raise UserError("\n".join(lines)) from error


def load_config(cls: type[M], path: str | Path | None, overrides: Sequence[str] = (), *, recorded: bool = False) -> M:
    """Defaults of `cls` < the file's `extends:` < the YAML file at `path` < dotted overrides such as `optim.lr=3e-4`.

    Override values are parsed as YAML, so `betas=[0.9,0.95]`, `name=null` and `data={root: out}` all work.
    `betas.0=0.8` and `sources.0.folder=there` change one item of a list; the number after the last one adds an item.

    Args:
        recorded: it is what a run or build wrote, perhaps on another machine: a path (:class:`Location`) whose
            variables are not set here is an error only when it is used.

    Raises:
        UserError: a missing file, text that is no YAML, a misspelt key (with the nearest right one), a wrong value.
    """
    tree = read_tree(path, overrides)
    where = "config" if path is None else str(path)
    return validate_config(cls, tree, where, overrides=overrides, recorded=recorded)


def dump_config(model: BaseModel) -> str:
    """The configuration as YAML text; `load_config` of that text gives an equal model."""
    return dump_yaml(model.model_dump(mode="json"))
