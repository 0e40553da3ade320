"""Whether a dataset is the one that someone means: known by what its splits hold, not by where it lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from df_data.format.manifest import MANIFEST_NAME, Manifest, read_manifest
from df_data.reading.source import is_remote
from df_models.errors import UserError

SPLITS = ("train", "val")


def digests_of(root: Path | str, train: Manifest) -> dict[str, str]:
    """What a dataset's splits hold (`Manifest.digest`), by split; ``val`` only where it is in a directory.

    Args:
        train: the manifest of the training split, which is read already.
    """
    found = {"train": train.digest}
    if not is_remote(root) and (manifest := _complete(Path(root) / "val")) is not None:
        found["val"] = manifest.digest
    return found


def difference(root: Path, known: Mapping[str, str], split: str) -> str | None:
    """What makes a dataset another one than the known, in words; None if its ``split`` is the known one.

    Args:
        known: digests by split, as `digests_of` gave them. If they do not have this split, the training split decides
            where it is there.
    """
    if split not in known:
        split = "train"
        if split not in known or not (root / split).is_dir():
            return None
    manifest = _complete(root / split)
    if manifest is None:
        return f"{root} has no whole {split} split"
    return None if manifest.digest == known[split] else other_clips(manifest, known[split], root / split)


def other_clips(manifest: Manifest, wanted: str, where: Path | str) -> str:
    """What is said of a split that is not the wanted one."""
    return f"{where} holds {manifest.count} other clips (digest {manifest.digest[:12]}, not {wanted[:12]})"


def find_dataset(places: Iterable[Path], known: Mapping[str, str], split: str) -> Path | None:
    """The first of several places whose ``split`` is the known one; with nothing known, the first that has it."""
    for place in places:
        try:
            if (place / split / MANIFEST_NAME).is_file() and difference(place, known, split) is None:
                return place
        except UserError:  # a manifest that cannot be read is not the one
            continue
    return None


def _complete(directory: Path) -> Manifest | None:
    if not (directory / MANIFEST_NAME).is_file():
        return None
    manifest = read_manifest(directory)
    return manifest if manifest.complete else None
