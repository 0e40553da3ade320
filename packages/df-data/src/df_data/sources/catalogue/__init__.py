"""What published datasets list, all read into one type, :class:`~df_data.sources.catalogue.clip.CatalogueClip`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from df_data.sources.catalogue import celebvhq, hdtf, layouts, panda70m, talkvid, vfhq
from df_data.sources.catalogue.clip import BadEntry, Catalogue, CatalogueClip, ListedCrop

__all__ = ["LOCAL", "READERS", "BadEntry", "Catalogue", "CatalogueClip", "DatasetName", "ListedCrop", "read_catalogue"]

DatasetName = Literal["hdtf", "celebvhq", "vfhq", "talkvid", "panda70m", "grid", "voxceleb2", "folder"]
LOCAL = frozenset(layouts.LAYOUTS)
"""Datasets whose videos lie in a folder already: nothing is fetched."""
READERS: dict[DatasetName, Callable[[Path], Catalogue]] = {
    **{module.NAME: module.read for module in (hdtf, celebvhq, vfhq, talkvid, panda70m)},
    **{name: partial(layouts.read_layout, name) for name in layouts.LAYOUTS},
}
"""Every dataset by its name: a module with ``NAME``, ``LICENCE`` and ``read``, or a layout of folders."""
assert set(READERS) == set(get_args(DatasetName)), "DatasetName must name every reader, and no other"


def read_catalogue(dataset: DatasetName, path: Path) -> Catalogue:
    """Read a dataset's lists (a file or a folder, as its module says); bad entries are in the result, not raised.

    Raises:
        UserError: the lists are missing or are not this dataset's.
    """
    return READERS[dataset](path)
