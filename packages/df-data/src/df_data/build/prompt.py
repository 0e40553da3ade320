"""The prompt that clips of a build share, encoded once by each worker, and the captions of single videos.

The text encoder is by far the largest of the frozen models (UMT5-XXL: 11 GB in bfloat16, 23 GB in float32) and is
needed for a second. So it is loaded before everything else, by one process of a machine at a time, reads the prompt on
the processor and is let go. Captions are read by the build's own process before the first video is taken, and lie in
the dataset's directory for the workers.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from df_data.format.sample import EncoderRecord
from df_models.encoders import load_text_encoder
from df_models.encoders.base import TextEncoder
from df_models.errors import UserError
from df_models.files import remove_leftovers
from df_models.locks import open_locked
from df_models.machine import PrecisionName
from df_models.settings import FrozenModel, Location
from df_models.text import Prompt, prompt_rows, read_prompt, write_prompt

_log = logging.getLogger(__name__)

CAPTIONS = "captions"
"""Directory of encoded captions in the dataset's own; it may be removed when the build is done."""


class TextConfig(FrozenModel):
    """The prompt of clips without a caption of their own, and who reads it.

    Attributes:
        text_encoder: ``umt5-xxl`` or ``umt5-xxl:LOCATION``.
        prompt: words that describe every clip of the build, as prompts of the video model do; captions of single videos
            take its place (``sources[].captions``).
    """

    text_encoder: Location = Location("umt5-xxl")
    prompt: str = "A close-up of a person who is talking to the camera."


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt's features float16 ``[L, D]``, as many rows as it has tokens, and the model that made them."""

    features_LD: Tensor
    record: EncoderRecord


@torch.inference_mode()
def encode_prompt(config: TextConfig, precision: PrecisionName) -> EncodedPrompt:
    """Load the text encoder, encode the prompt on the processor, and let the encoder go.

    Args:
        precision: ``auto`` computes in what the checkpoint is stored in.

    Raises:
        UserError: the encoder cannot be found or does not fit.
    """
    with _one_at_a_time():
        encoder = _encoder(config, precision)
        rows_LD = prompt_rows(encoder.encode([config.prompt])[0])
        return EncodedPrompt(rows_LD.half().clone(), EncoderRecord(id=encoder.id, sha256=encoder.sha256))


def _encoder(config: TextConfig, precision: PrecisionName) -> TextEncoder:
    encoder = load_text_encoder(config.text_encoder)
    if precision != "auto":
        encoder.to(dtype=getattr(torch, precision))
    return encoder


def caption_folder(out: Path, sha256: str, precision: PrecisionName) -> Path:
    """Where the captions of a dataset lie, encoded by a text encoder of this hash."""
    return out / CAPTIONS / f"{sha256[:16]}-{precision}"


def caption_file(folder: Path, caption: str) -> Path:
    """The file of one caption."""
    return folder / f"{hashlib.sha256(caption.encode()).hexdigest()[:32]}.safetensors"


@torch.inference_mode()
def encode_captions(
    config: TextConfig, precision: PrecisionName, device: str, captions: Iterable[str], folder: Path, progress: bool
) -> None:
    """Encode the captions that are not encoded yet, each into a file of its own; without any, load nothing.

    One at a time: padded beside longer ones their last bits are others, and a build that was killed would end with
    other bytes.

    Args:
        device: what the encoder computes on.

    Raises:
        UserError: the encoder cannot be found or does not fit.
    """
    todo = [caption for caption in sorted(set(captions)) if not caption_file(folder, caption).exists()]
    if not todo:
        return
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    cut = 0
    with _one_at_a_time(), tqdm(total=len(todo), desc="captions", unit="caption", disable=not progress) as bar:
        encoder = _encoder(config, precision).to(device=device)
        for caption in todo:
            rows_LD = prompt_rows(encoder.encode([caption])[0])
            cut += len(rows_LD) == encoder.num_tokens
            write_prompt(caption_file(folder, caption), Prompt(caption, rows_LD.half().cpu().clone()))
            bar.update()
        if cut:
            _log.warning(
                "%d of %d captions fill the text encoder's %d tokens: what is longer was cut",
                cut,
                len(todo),
                encoder.num_tokens,
            )
        del encoder
        if device != "cpu":
            torch.cuda.empty_cache()  # the workers' models are there


def read_caption(folder: Path, caption: str) -> Prompt:
    """Return a caption that the build's own process has encoded.

    Raises:
        UserError: its file is not there, or damaged.
    """
    path = caption_file(folder, caption)
    if not path.is_file():
        raise UserError(f"{path} is missing; workers on other machines need `out` on storage that all of them see")
    return read_prompt(path)


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
