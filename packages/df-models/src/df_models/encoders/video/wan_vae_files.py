"""Where the files of a Wan VAE lie, and how they are read and written: diffusers' layout, or Wan's own file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from df_models.encoders.video.stream import LATENT_CHANNELS
from df_models.encoders.video.wan_autoencoder import WanAutoencoder, WanVAEConfig
from df_models.encoders.video.wan_vae_names import to_diffusers
from df_models.encoders.weights import Origin, hash_files, load_strict, read_tensors, require_files
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.initial_values import without_initial_values

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
ORIGINAL_WEIGHTS = "Wan2.1_VAE.pth"

WAN = Origin(
    name="wan",
    licence="Apache-2.0",
    hub_id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    files=(CONFIG, WEIGHTS),
    subfolder="vae",
    how_to_get="`hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers --include 'vae/*' --local-dir PATH` fetches it; "
    f"{ORIGINAL_WEIGHTS} of Wan-AI/Wan2.1-T2V-14B is as good",
)
EMBEDDED = Origin(name="df-tiny", licence="Apache-2.0", how_to_get="install df-models again")
UNNAMED = Origin(
    name="video VAE",
    licence="as its source states",
    files=(CONFIG, WEIGHTS),
    subfolder="vae",
    how_to_get=f"give df-tiny (embedded), wan, taew2_1, a directory with {CONFIG} and {WEIGHTS}, "
    "or a Hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
)


def read_autoencoder(origin: Origin, path: Path) -> tuple[WanAutoencoder, str]:
    """Read a VAE, float32, and the sha256 of its weights' file.

    ``path`` is a folder in diffusers' layout, the folder of the model whose ``vae`` it is, a folder with
    ``Wan2.1_VAE.pth``, or such a file. A file alone is taken for Wan 2.1's form, of the width that it shows, with the
    statistics of Wan 2.1's latents; its tensors have diffusers' names or the original ones.

    Raises:
        UserError: a file is missing or damaged, or does not fit; the message says how to get it.
    """
    path = path / "vae" if (path / "vae").is_dir() else path
    original = path if path.is_file() else path / ORIGINAL_WEIGHTS
    if original.is_file():
        file, tensors = original, to_diffusers(read_tensors(original))
        settings = {"base_dim": _width(tensors, origin, file)}
    else:
        require_files(origin, path, (CONFIG, WEIGHTS))
        file, tensors = path / WEIGHTS, read_tensors(path / WEIGHTS)
        settings = _read_settings(path / CONFIG, origin)
    try:
        with without_initial_values():
            vae = new_autoencoder(settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path / CONFIG} describes no AutoencoderKLWan ({error}); {origin.how_to_get}") from error
    load_strict(vae, tensors, origin, file)
    return vae, hash_files([file])


def new_autoencoder(settings: Mapping[str, Any]) -> WanAutoencoder:
    """Return a freshly initialised VAE with these settings (:class:`WanVAEConfig`).

    Raises:
        TypeError, ValueError: they are none, or do not fit together.
    """
    return WanAutoencoder(WanVAEConfig(**settings))


def write_autoencoder(vae: WanAutoencoder, directory: Path, **changes: Any) -> None:
    """Write weights, as they are, and settings, some of them changed, in diffusers' layout.

    Args:
        directory: made where it is missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = {"_class_name": "AutoencoderKLWan"} | asdict(vae.config) | changes
    atomic_write(directory / CONFIG, json.dumps(config, indent=2) + "\n")
    weights = {name: tensor.cpu().contiguous() for name, tensor in vae.state_dict().items()}
    atomic_write(directory / WEIGHTS, save(weights, {"format": "pt"}))


def _width(tensors: Mapping[str, Any], origin: Origin, file: Path) -> int:
    first = tensors.get("encoder.conv_in.weight")
    if not isinstance(first, Tensor):
        raise UserError(
            f"{file} is not {origin.name}'s checkpoint: encoder.conv_in.weight is missing; {origin.how_to_get}"
        )
    return first.shape[0]


def _read_settings(file: Path, origin: Origin) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({error}); {origin.how_to_get}") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} holds no settings but a {type(config).__name__}; {origin.how_to_get}")
    channels = config.get("z_dim", LATENT_CHANNELS)
    if channels != LATENT_CHANNELS:
        raise UserError(f"{file} is of a VAE with {channels} latent channels; DualForce takes {LATENT_CHANNELS}")
    return {key: value for key, value in config.items() if not key.startswith("_")}
