"""Wan's public weights into a video tower and back; a whole checkpoint into a model that training can start from."""

from df_models.convert.wan import (
    Conversion,
    Layers,
    choose_layers,
    export_wan,
    load_wan,
    original_names,
    wan_sizes,
)

__all__ = ["Conversion", "Layers", "choose_layers", "export_wan", "load_wan", "original_names", "wan_sizes"]
