"""Text in training: does the dataset's fit the model, and which prompt the exported model is handed on with."""

from __future__ import annotations

import torch

from df_data.format.manifest import Manifest
from df_data.reading.shard import RawSample
from df_models import DualForceConfig
from df_models.errors import UserError
from df_models.text import Prompt

ROLE = "text"


def check_text(model: DualForceConfig, manifest: Manifest) -> None:
    """Refuse a dataset without text for a model that reads text.

    Raises:
        UserError: with both ways to mend it.
    """
    if model.text_dim and ROLE not in manifest.encoders:
        raise UserError(
            f"the model reads text (text_dim={model.text_dim}), but the dataset holds none; build the dataset with a "
            "prompt, or set model.overrides.text_dim=0"
        )


def unread_text(model: DualForceConfig, manifest: Manifest) -> str | None:
    """Return a line for the user if the dataset's text is left unread, which is no mistake: None if it is read."""
    if model.text_dim or ROLE not in manifest.encoders:
        return None
    return "the dataset's text features are not used: the model reads no text (text_dim=0)"


def prompt_of(sample: RawSample) -> Prompt | None:
    """Return a stored clip's prompt, a copy, or None if it has none."""
    features_LD = sample.tensors.get("text_features")
    return None if features_LD is None else Prompt(sample.prompt or "", torch.tensor(features_LD))
