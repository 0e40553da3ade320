"""Wan's transformer as it is published: which files it has, and their tensors.

Known are one file (safetensors, or a PyTorch file of tensors), diffusers' directory (``diffusion_pytorch_model`` in one
or several safetensors files with an index, possibly in ``transformer/``), and a Hub id of such a directory.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from df_models.encoders.weights import Origin, hash_files, locate, read_tensors
from df_models.errors import UserError
from df_models.files import safe_join

WAN = Origin(
    name="wan-transformer",
    licence="Apache-2.0",
    hub_id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    subfolder="transformer",
    files=("config.json", "diffusion_pytorch_model*.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
    how_to_get="download the transformer folder of huggingface.co/Wan-AI/Wan2.1-T2V-1.3B-Diffusers, or "
    "diffusion_pytorch_model.safetensors of Wan-AI/Wan2.1-T2V-1.3B",
)
STEM = "diffusion_pytorch_model"
INDEX = f"{STEM}.safetensors.index.json"


def read_wan(location: str) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a published Wan transformer and the sha256 of its files.

    Raises:
        UserError: files are missing, damaged or of an unknown kind.
    """
    files = wan_files(locate(WAN, location.removeprefix(f"{WAN.name}:")))
    tensors: dict[str, Tensor] = {}
    for file in files:
        loaded = read_tensors(file)
        strange = [name for name, value in loaded.items() if not isinstance(value, Tensor)]
        if strange:
            raise UserError(f"{file} holds {strange[0]!r}, which is no tensor; give the transformer's weights alone")
        tensors.update(loaded)
    return tensors, hash_files(files)


def wan_files(path: Path) -> list[Path]:
    """Return the files of weights at a path.

    Raises:
        UserError: none is there, or the index names one that is not.
    """
    if path.is_file():
        return [path]
    directory = path / WAN.subfolder if (path / WAN.subfolder).is_dir() else path
    if (directory / INDEX).is_file():
        files = [safe_join(directory, name) for name in _shards(directory / INDEX)]
        lacking = [file for file in files if not file.is_file()]
        if lacking:
            raise UserError(f"{directory} lacks {lacking[0].name}, which its index names; fetch it again")
        return files
    single = directory / f"{STEM}.safetensors"
    if not single.is_file():
        raise UserError(f"{directory} holds neither {single.name} nor {INDEX}; {WAN.how_to_get}")
    return [single]


def _shards(index: Path) -> list[str]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({str(name) for name in names})
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} is damaged ({error}); fetch it again") from error
