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
from df_models.settings.tree import merge, read_tree

M = TypeVar("M", bound=BaseModel)


def validate_config(cls: type[M], tree: Mapping[str, Any], where: str = "config", *, recorded: bool = False) -> M:
    """An instance of `cls` from a nested mapping; `recorded` as in :func:`load_config`.

    Raises:
        UserError: one line per wrong key, each with the key's full dotted name.
    """
    try:
        return cls.model_validate(merge(default_tree(cls), tree), context={RECORDED: recorded})
    except ValidationError as error:
        raise UserError("\n".join(f"{where}: {line}" for line in problems(cls, error))) from error


def load_config(cls: type[M], path: str | Path | None, overrides: Sequence[str] = (), *, recorded: bool = False) -> M:
    """Defaults of `cls` < the file's `extends:` < the YAML file at `path` < dotted overrides such as `optim.lr=3e-4`.

    Override values are parsed as YAML, so `betas=[0.9,0.95]`, `name=null` and `data={root: out}` all work.

    Args:
        recorded: it is what a run or build wrote, perhaps on another machine: a path (:class:`Location`) whose
            variables are not set here is an error only when it is used.

    Raises:
        UserError: a missing file, text that is no YAML, a misspelt key (with the nearest right one), a wrong value.
    """
    tree = read_tree(path, overrides)
    return validate_config(cls, tree, "config" if path is None else str(path), recorded=recorded)


def dump_config(model: BaseModel) -> str:
    """The configuration as YAML text; `load_config` of that text gives an equal model."""
    return dump_yaml(model.model_dump(mode="json"))
