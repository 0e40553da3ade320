"""Text features by Wan's convention: a prompt's tokens first, zero rows up to 512, all of them attended.

Sources: Wan-Video/Wan2.1, ``wan/modules/model.py`` (``text_len=512``; ``forward`` pads every context by zeros to it and
gives cross-attention no lengths); diffusers, ``pipeline_wan.py``, ``_get_t5_prompt_embeds``, pads alike.

Shape legend: B batch, L tokens, D width of the text encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from df_models.errors import UserError
from df_models.files import atomic_write

TEXT_TOKENS = 512
"""Rows that cross-attention reads, however long the prompt is."""
PROMPT_FILE = "prompt.safetensors"
"""Name of a model's own prompt, beside its weights."""
_FEATURES = "text_features"


class Prompt(NamedTuple):
    """A prompt, as words and encoded, ``[L, D]`` with 1 <= L <= 512: its own rows, not padded."""

    words: str
    features_LD: Tensor


def pad_text(text_BLD: Tensor) -> Tensor:
    """Append zero rows: ``[B, L, D]`` with L <= 512 to ``[B, 512, D]``; zeros alone are the null text of guidance.

    The towers do it to every text they are given (:meth:`df_models.model.tower.Tower.embed_text`).

    Zero rows are no mask: each of them still is a key, the same for all of them, that takes its share of attention.

    Raises:
        UserError: more than 512 rows, or not three dimensions.
    """
    if text_BLD.ndim != 3 or text_BLD.shape[1] > TEXT_TOKENS:
        raise UserError(f"text must be [batch, at most {TEXT_TOKENS} tokens, width], not {list(text_BLD.shape)}")
    return F.pad(text_BLD, (0, 0, 0, TEXT_TOKENS - text_BLD.shape[1]))


def prompt_rows(text_LD: Tensor) -> Tensor:
    """Return the rows of a padded prompt ``[L, D]`` that are its own: up to the last that is not zero, at least one."""
    own = text_LD.any(dim=-1).nonzero()
    return text_LD[: int(own[-1]) + 1 if len(own) else 1]


def write_prompt(path: Path, prompt: Prompt) -> None:
    """Write a prompt: the tensor ``text_features`` and, as metadata, ``prompt``."""
    tensors = {_FEATURES: prompt.features_LD.detach().cpu().contiguous()}
    atomic_write(path, save(tensors, metadata={"prompt": prompt.words}))


def read_prompt(path: Path) -> Prompt:
    """Read what :func:`write_prompt` wrote.

    Raises:
        UserError: the file is damaged or another.
    """
    try:
        with safe_open(path, "pt") as file:
            return Prompt(file.metadata()["prompt"], file.get_tensor(_FEATURES))
    except (SafetensorError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no prompt ({error}); delete it and give the prompt instead") from error
