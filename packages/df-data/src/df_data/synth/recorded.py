"""Which corpus a directory was begun with, by its `config.yaml`; apart from the code that makes it (numba)."""

from __future__ import annotations

from pathlib import Path

from df_data.synth.config import SynthConfig
from df_models.errors import UserError
from df_models.settings import load_config

CONFIG = "config.yaml"


def corpus_config(out: Path) -> SynthConfig | None:
    """Return the configuration that the corpus in ``out`` was begun with; None if there is no synthetic one."""
    path = out / CONFIG
    try:
        return load_config(SynthConfig, path) if path.is_file() else None
    except UserError:
        return None  # another kind of dataset, which making the corpus refuses


def begun_with_fewer(config: SynthConfig, out: Path) -> SynthConfig | None:
    """Return the configuration of the corpus in ``out`` if only its number of training clips is smaller, else None."""
    there = corpus_config(out)
    if there is None or there.clips > config.clips:
        return None
    same = config.model_copy(update={"clips": there.clips})
    return same if there.model_copy(update={"workers": config.workers}) == same else None


def refuse_other_config(config: SynthConfig, out: Path, *, fitted: bool) -> None:
    """Do nothing if the directory's config.yaml is this corpus's, or is not there.

    Args:
        fitted: the number of clips is still to be chosen.

    Raises:
        UserError: it is something else, which would be overwritten, or another corpus's.
    """
    file = out / CONFIG
    if not file.is_file():
        return
    try:
        there = load_config(SynthConfig, file)
    except UserError as error:
        raise UserError(f"{file} is not a synthetic corpus's, so nothing is written there ({error})") from error
    free = {"workers", "clips"} if fitted else {"workers"}
    names = [name for name in SynthConfig.model_fields if name not in free]
    other = [name for name in names if getattr(there, name) != getattr(config, name)]
    if other:
        theirs, ours = (", ".join(f"{name}={getattr(c, name)}" for name in other) for c in (there, config))
        raise UserError(
            f"{out} holds a corpus of {theirs}, not of {ours}; name another directory (data.root=... of df-train, "
            "--out of df-data synth), take it as it is (data.synth=null of df-train), or delete it"
        )


def check_place(config: SynthConfig, out: Path, *, fitted: bool = False) -> None:
    """Refuse a directory in which this corpus can neither be made nor is: what making it would say, without any work.

    Args:
        fitted: as many clips are made as time allows, and a corpus that was begun with fewer is taken.

    Raises:
        UserError: another corpus, or something else, is there.
    """
    if not fitted or begun_with_fewer(config, out) is None:
        refuse_other_config(config, out, fitted=fitted)
