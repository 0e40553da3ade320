"""Protocols: frozen files of settings with a name, and the clips that they are measured on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from df_eval.config import EvalConfig, ProtocolConfig
from df_models.errors import UserError
from df_models.settings import load_config, read_tree

PLACE = Path("configs/eval")
"""Where a protocol is looked for by its name."""
FROZEN = (
    "protocol", "clips", "frames", "seed", "max_lag", "shifts", "resamples", "codec", "drift", "interventions",
    "sync_codecs", "baseline",
)  # fmt: skip
"""Settings that decide a number, or which numbers there are: a protocol's are its own. Not among them: which list
(`split`), the files of the readers (the protocol may hold their hashes), and what belongs to the run (`rollout`,
`checkpoint`) or machine."""

DEV_NOTE = "dev clips: settings are chosen on them. Do not quote these numbers; measure with --split test for that."


@dataclass(frozen=True)
class ClipList:
    """The clips that were measured.

    Attributes:
        source: where they come from, in words.
        sha256: the list's hash; empty without a protocol.
    """

    source: str
    sha256: str = ""


def protocol_file(name: str) -> Path:
    """The file of a protocol, by its name or path.

    Raises:
        UserError: there is none, or it is a file of settings without a protocol.
    """
    given = Path(name)
    path = given if given.suffix in (".yaml", ".yml") else PLACE / f"{name}.yaml"
    if not path.is_file():
        there = sorted(file.stem for file in PLACE.glob("*.yaml") if _has_protocol(file))
        known = f"{PLACE} has {', '.join(there)}" if there else f"there is none in {PLACE} of {Path.cwd()}"
        raise UserError(f"no protocol {name!r}; {known}, or give the path of its file")
    if load_config(EvalConfig, path).protocol is None:
        raise UserError(f"{path} holds settings and no protocol (it has no section protocol:); use --config for it")
    return path


def _has_protocol(file: Path) -> bool:
    try:
        return read_tree(file).get("protocol") is not None
    except UserError:
        return False


def check_frozen(file: Path | None, config: EvalConfig) -> None:
    """Refuse settings that a protocol fixes otherwise.

    Raises:
        UserError: naming them.
    """
    if file is None or config.protocol is None:
        return
    own = load_config(EvalConfig, file)
    changed = [name for name in FROZEN if getattr(own, name) != getattr(config, name)]
    if changed:
        told = ", ".join(f"{name} is {shown(getattr(own, name))}" for name in changed)
        name = config.protocol.name
        raise UserError(f"the protocol {name} is fixed: {told}; leave it out, or measure without a protocol")


def shown(value: Any) -> str:
    return value.name if isinstance(value, ProtocolConfig) else str(value)


def protocol_digest(config: EvalConfig, size: Sequence[int]) -> str:
    """Hash of everything that a protocol fixes, and of the videos' height and width: two that are equal give comparable
    numbers. The size is the model's or the dataset's, and sharpness, motion and what networks see depend on it."""
    fixed = config.model_dump(mode="json", include=set(FROZEN)) | {"size": list(size)}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def check_list(protocol: ProtocolConfig, split: str, found: str) -> None:
    """Refuse another clip list than the protocol's.

    Raises:
        UserError: with both hashes.
    """
    wanted = getattr(protocol, split).sha256
    if wanted is not None and wanted != found:
        raise UserError(
            f"the {split} list of the protocol {protocol.name} has the hash {wanted[:12]}, the clips here "
            f"{found[:12]}: they are others, so the numbers would not compare; use the dataset (and version) that the "
            "protocol is of, or measure without it"
        )


def protocol_text(facts: dict[str, Any]) -> str:
    """``bench (3fa9...), test list of 32 clips (8c1d...)``; what is said without a protocol."""
    told = facts.get("protocol")
    if told is None:
        return "none: the run's own held-out clips, and the settings below"
    checked = "as the protocol has it" if told["list_checked"] else "the protocol has no hash to hold it against"
    return (
        f"{told['name']} ({told['sha256'][:12]}), list {told['split']} of {len(facts['clips'])} clips "
        f"({told['list'][:12]}, {checked})"
    )
