"""What published datasets list, all read into one type, :class:`~df_data.sources.catalogue.clip.CatalogueClip`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from df_data.sources.catalogue import celebvhq, hdtf, layouts, talkvid, vfhq
from df_data.sources.catalogue.clip import BadEntry, Catalogue, CatalogueClip, ListedCrop

__all__ = ["LOCAL", "READERS", "BadEntry", "Catalogue", "CatalogueClip", "DatasetName", "ListedCrop", "read_catalogue"]

DatasetName = Literal["hdtf", "celebvhq", "vfhq", "talkvid", "grid", "voxceleb2", "folder"]
READERS: dict[DatasetName, Callable[[Path], Catalogue]] = {
    "hdtf": hdtf.read,
    "celebvhq": celebvhq.read,
    "vfhq": vfhq.read,
    "talkvid": talkvid.read,
    "grid": layouts.read_grid,
    "voxceleb2": layouts.read_voxceleb2,
    "folder": layouts.read_folder,
}
LOCAL: frozenset[DatasetName] = frozenset({"grid", "voxceleb2", "folder"})
"""Datasets of local files: nothing is fetched."""


def read_catalogue(dataset: DatasetName, path: Path) -> Catalogue:
    """Read a dataset's lists (a file or a folder, as its module says); bad entries are in the result, not raised.

    Raises:
        UserError: the lists are missing or are not this dataset's.
    """
    return READERS[dataset](path)
