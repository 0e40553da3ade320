"""The model card that goes with a saved model: what it is, how to load it, what it was trained for."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from df_models.model.pretrained import Pretrained

_WHAT = {
    "dualforce": "A DualForce model: a video and a structure tower that make a talking head from one reference image "
    "and speech, denoised together with a noise level per latent frame.",
    "video-dit": "The video tower of a DualForce model by itself: Wan 2.1's transformer with a noise level per latent "
    "frame.",
    "structure-dit": "The structure tower of a DualForce model by itself: a transformer over a face's motion vectors.",
}
TEMPLATE = """---
{{ card_data }}
---

# {{ title }}

{{ what }}

```python
from df_models import {{ kind }}

model = {{ kind }}.from_pretrained("{{ name }}")
```

`pip install df-models` installs what it needs. {{ parameters }} parameters, {{ dtypes }}; the weights are safetensors,
and `config.json` records their sha256.

## Configuration

{{ config }}
{{ statistics }}
## Licence

The code is under Apache-2.0. Weights stand under what their training data and starting weights allow: whoever shares
them says so here.
"""


def card_values(model: Pretrained, name: str = "THIS_DIRECTORY_OR_HUB_ID") -> dict[str, str]:
    """Return what :data:`TEMPLATE` is filled with; values go in as they are and are never read as a template.

    Args:
        name: what the example loads: a directory or ``owner/name``.
    """
    parameters = list(model.parameters())
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in parameters})
    kind = type(model).__name__
    return {
        "title": name if "/" in name else kind,
        "what": _WHAT[model.model_type],
        "kind": kind,
        "name": name,
        "parameters": f"{sum(tensor.numel() for tensor in parameters):,}",
        "dtypes": " and ".join(dtypes),
        "config": _table(("setting", "value"), asdict(model.config).items()),
        "statistics": _statistics(model),
    }


def _statistics(model: Pretrained) -> str:
    """Return the section on the structure vectors' statistics, if the model has them."""
    mean, std = getattr(model, "structure_mean", None), getattr(model, "structure_std", None)
    if not isinstance(mean, torch.Tensor) or not isinstance(std, torch.Tensor):
        return ""
    if not getattr(model, "has_structure_statistics", False):
        return "\n## Statistics\n\nNone were set: structure vectors are taken as they are.\n"
    rows = [(i, f"{m:.4g}", f"{s:.4g}") for i, (m, s) in enumerate(zip(mean.tolist(), std.tolist()))]
    head = "Mean and standard deviation of each entry of a raw structure vector, as in the checkpoint:"
    return f"\n## Statistics\n\n{head}\n\n" + _table(("entry", "mean", "std"), rows)


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"
