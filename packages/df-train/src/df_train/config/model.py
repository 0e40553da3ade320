"""What is trained: the architecture, what it starts from, and an adapter beside it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from df_models import DualForceConfig
from df_models.model.config import check_names
from df_models.settings import FrozenModel, Location


class ModelConfig(FrozenModel):
    """The architecture: a preset of df-models and fields of its configuration to change.

    Attributes:
        preset: name of a preset (`df-models describe` lists them).
        start_from: a saved model (a directory, such as another run's `model/` or what `df-models convert-wan` wrote, or
            a Hub id). Its weights are the start; parts that the new model has and it lacks start afresh, and are named.
            One that was trained keeps the structure statistics and the FLAME head that it was trained with.
        architecture: with `start_from`, what `overrides` change: `start`, the saved model's configuration, which takes
            the preset's place, or `preset`, so that the preset says what the model is, and only weights come from the
            saved one.
        leave_out: parts of the saved model whose weights are not taken (`df_train.begin.PARTS`): those that the new
            model has no place for, or that are to start afresh.
        overrides: fields of the model's configuration (`df_models.DualForceConfig`) to change, such as `num_layers`.
    """

    preset: str = "quickstart"
    start_from: Location | None = None
    architecture: Literal["start", "preset"] = "start"
    leave_out: tuple[str, ...] = ()
    overrides: dict[str, Any] = Field(default_factory=dict)

    @field_validator("overrides")
    @classmethod
    def _are_fields(cls, overrides: dict[str, Any]) -> dict[str, Any]:
        check_names(DualForceConfig, overrides)
        return overrides


class AdapterConfig(FrozenModel):
    """A low-rank adapter (LoRA) beside the weights of `model.start_from`, which then stay as they are.

    Needs `df-train[peft]`. The run's `model/` is the whole model with the adapter added, and `model/adapter/` the
    adapter alone.

    Attributes:
        kind: `none` trains all weights, `lora` the adapter alone.
        rank: of the matrices, the adapter's size.
        alpha: their product is added to a layer's weight at `alpha / rank`.
        dropout: share of a layer's inputs that the adapter misses in training; what is drawn depends on the number of
            processes.
        targets: layers to put it beside, by how their names end; of the default's, those that the model has: all
            attention (also of bridge, audio and reference) and MLPs.
    """

    kind: Literal["none", "lora"] = "none"
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = Field(default=("q", "k", "v", "o", "k_img", "v_img", "ffn.0", "ffn.2"), min_length=1)
