"""The prompt that all clips of a build share, encoded once by each worker.

The text encoder is by far the largest of the frozen models (UMT5-XXL: 11 GB in bfloat16, 23 GB in float32) and is
needed for a second. So it is loaded before everything else, by one process of a machine at a time, reads the prompt on
the processor and is let go.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from df_data.build.encode import Precision
from df_data.format.sample import EncoderRecord
from df_models.encoders import load_text_encoder
from df_models.locks import open_locked
from df_models.settings import FrozenModel, Location
from df_models.text import prompt_rows


class TextConfig(FrozenModel):
    """The prompt of all clips, and who reads it.

    Attributes:
        text_encoder: ``umt5-xxl`` or ``umt5-xxl:LOCATION``.
        prompt: words that describe every clip of the build, as prompts of the video model do.
    """

    text_encoder: Location = Location("umt5-xxl")
    prompt: str = "A close-up of a person who is talking to the camera."


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt's features float16 ``[L, D]``, as many rows as it has tokens, and the model that made them."""

    features_LD: Tensor
    record: EncoderRecord


@torch.inference_mode()
def encode_prompt(config: TextConfig, precision: Precision) -> EncodedPrompt:
    """Load the text encoder, encode the prompt on the processor, and let the encoder go.

    Args:
        precision: ``auto`` computes in what the checkpoint is stored in.

    Raises:
        UserError: the encoder cannot be found or does not fit.
    """
    with _one_at_a_time():
        encoder = load_text_encoder(config.text_encoder)
        if precision != "auto":
            encoder.to(dtype=getattr(torch, precision))
        rows_LD = prompt_rows(encoder.encode([config.prompt])[0])
        return EncodedPrompt(rows_LD.half().clone(), EncoderRecord(id=encoder.id, sha256=encoder.sha256))


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let no two processes of a user on a machine be within: many workers begin at once.

    The lock file lies where the machine's temporary files do, as the machine's memory is what is short, and is removed.
    """
    lock = Path(tempfile.gettempdir()) / f"df-data-text-encoder-{os.getuid()}.lock"
    handle = open_locked(lock, wait=True)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)
