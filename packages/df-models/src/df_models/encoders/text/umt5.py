"""UMT5-XXL, the text encoder of Wan, by transformers' ``UMT5EncoderModel``.

Prompts are embedded by Wan's convention (diffusers, ``pipeline_wan.py``, ``_get_t5_prompt_embeds``): cleaned, cut to
512 tokens of which the last is ``</s>``, encoded under their attention mask, and zero past their length.

Shape legend: B batch, L = 512 tokens, D = 4096.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from df_models.encoders.pretrained import CONFIG, SAFETENSORS, FrozenPretrained, find_checkpoint, load_model
from df_models.encoders.weights import Origin, require_files
from df_models.errors import UserError
from df_models.text import TEXT_TOKENS

HUB_ID = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
ENCODER, TOKENIZER = "text_encoder", "tokenizer"
TOKENIZER_FILE = "tokenizer.json"
NUM_TOKENS = TEXT_TOKENS
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"

ORIGIN = Origin(
    name="umt5-xxl",
    licence="Apache-2.0",
    how_to_get=f"`hf download {HUB_ID} --include '{ENCODER}/*' '{TOKENIZER}/*' --local-dir PATH` fetches it",
    hub_id=HUB_ID,
    files=(
        *(f"{ENCODER}/{pattern}" for pattern in (CONFIG, *SAFETENSORS)),
        f"{TOKENIZER}/{TOKENIZER_FILE}",
        *(CONFIG, *SAFETENSORS, TOKENIZER_FILE),
    ),
)
UNUSED = (r"decoder\..*", r"lm_head\.weight")
"""The half that writes, in Google's own checkpoint."""
ABSENT = (r"encoder\.embed_tokens\.weight",)
"""The same tensor as ``shared.weight``."""


class UMT5(FrozenPretrained):
    """A frozen UMT5 encoder: see :class:`df_models.encoders.base.TextEncoder` for the protocol."""

    num_tokens = NUM_TOKENS

    def __init__(self, module: Any, tokenizer: Any, origin: Origin, sha256: str) -> None:
        super().__init__(module, origin, sha256)
        self.dim = int(module.config.d_model)
        self.tokenizer = tokenizer

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts to ``[B, 512, dim]``, float32, on the module's device; longer prompts lose their end.

        Raises:
            UserError: one string is given instead of several.
        """
        if isinstance(prompts, str):
            raise UserError("prompts are a list of strings; put a single prompt into a list")
        texts = [clean(prompt) for prompt in prompts]
        features_BLD = torch.zeros(len(texts), NUM_TOKENS, self.dim, device=self.device)
        if texts:
            tokens = self.tokenizer(
                texts, padding=True, truncation=True, max_length=NUM_TOKENS, return_tensors="pt"
            ).to(self.device)
            hidden = self.module(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
            features_BLD[:, : hidden.shape[1]] = hidden.float() * tokens.attention_mask[..., None]
        return features_BLD


def clean(prompt: str) -> str:
    """Return a prompt as Wan reads it: mended by ftfy, HTML escapes undone twice, white space made one space.

    Source: Wan-Video/Wan2.1, ``wan/modules/tokenizers.py`` (``basic_clean``, ``whitespace_clean``); diffusers'
    ``prompt_clean``. ftfy also makes curly quotes straight and wide punctuation narrow: Wan's negative prompt has some.
    """
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split())


def load(name: str, location: str | None, dtype: torch.dtype | str = "auto") -> UMT5:
    """Load the encoder and tokenizer of a diffusers repository, or a flat directory like google/umt5-xxl.

    Args:
        name: ``umt5-xxl``.
        location: a directory with ``text_encoder`` and ``tokenizer``, or with the files of both, or a Hub id.
        dtype: of the 5.68 billion weights in memory. By default the checkpoint's own: float32 (23 GB) in Wan 2.1's
            repositories; bfloat16 (11 GB), in which Wan runs it, in Wan-AI/Wan2.2-TI2V-5B-Diffusers.

    Raises:
        UserError: a file is missing or damaged, or holds another model.
    """
    assert name == ORIGIN.name
    root = find_checkpoint(ORIGIN, location)
    from transformers import UMT5EncoderModel

    encoder, words = (root / part if (root / part).is_dir() else root for part in (ENCODER, TOKENIZER))
    require_files(ORIGIN, words, (TOKENIZER_FILE,))
    module, sha256 = load_model(ORIGIN, encoder, UMT5EncoderModel, ("umt5",), unused=UNUSED, absent=ABSENT, dtype=dtype)
    # Wan's config.json says that embeddings are not tied, which some versions 5.x take for the encoder's own as well
    # and leave them zero (huggingface/transformers#43880).
    module.encoder.embed_tokens.weight = module.shared.weight
    return UMT5(module, read_tokenizer(words / TOKENIZER_FILE, module.config), ORIGIN, sha256)


def read_tokenizer(path: Path, config: Any) -> Any:
    """Read a ``tokenizer.json`` as it stands, and check that it is of the model with this configuration.

    Raises:
        UserError: it is damaged, or its words are not the model's.
    """
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(path), pad_token=PAD, eos_token=END, unk_token=UNKNOWN, padding_side="right"
        )
    except Exception as error:  # the Rust library raises plain Exception
        raise UserError(f"{path} is damaged ({error}); {ORIGIN.how_to_get}") from error
    ids = tokenizer("a")["input_ids"]
    ends = (config.pad_token_id, config.eos_token_id, config.eos_token_id)
    if (tokenizer.pad_token_id, tokenizer.eos_token_id, ids[-1]) != ends or len(tokenizer) > config.vocab_size:
        raise UserError(f"{path} is not the tokenizer of {ORIGIN.name}; {ORIGIN.how_to_get}")
    return tokenizer
