"""The structure of a stored clip as a motion file, which generation can be given (`df-infer generate --drive`)."""

from __future__ import annotations

from pathlib import Path

from df_data.format.manifest import read_manifest, structure_of
from df_data.format.shards import iter_samples
from df_data.reading.batch import StructureSource, structure_vectors
from df_models.errors import UserError
from df_models.motion import Motion


def motion_of(directory: Path, key: str, source: StructureSource = "structure") -> Motion:
    """Return the structure of the clip of a name.

    Args:
        directory: a dataset, or one split of it.
        source: the dataset's own vectors, or the motion part of its FLAME vectors.

    Raises:
        UserError: there is no dataset, no such clip, or it holds no FLAME vectors.
    """
    splits = [path for name in ("train", "val") if (path := directory / name).is_dir()] or [directory]
    for split in splits:
        layout = structure_of(read_manifest(split), source)
        for sample in iter_samples(split, video=False):
            if sample.key == key:
                return Motion(structure_vectors(sample.tensors, source, key).numpy(), layout)
    raise UserError(f"{directory} holds no clip {key!r}; `df-data inspect` shows the names of its clips")
