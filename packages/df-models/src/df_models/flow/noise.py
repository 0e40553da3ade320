"""Random draws that depend on what they are for, not on the state of a generator.

A draw is keyed by (seed, step, sample id, stream), so it is the same on one process or eight, before or after a
resume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def keyed_generator(seed: int, step: int, sample_id: int, stream: str) -> torch.Generator:
    """Return a CPU generator whose state depends on the four keys alone."""
    key = f"{int(seed)}:{int(step)}:{int(sample_id)}:{stream}".encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))


def keyed_noise(
    shape: Sequence[int],
    *,
    seed: int,
    step: int,
    sample_ids: Tensor | Iterable[int],
    stream: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return Gaussian noise ``[B, *shape]``, sample ``b`` keyed by ``sample_ids[b]``; ``shape`` is one sample's."""
    draws = [
        torch.randn(tuple(shape), generator=keyed_generator(seed, step, sample, stream))
        for sample in id_list(sample_ids)
    ]
    return torch.stack(draws).to(device=device, dtype=dtype)


def id_list(sample_ids: Tensor | Iterable[int]) -> list[int]:
    """Return sample ids as plain integers."""
    return sample_ids.tolist() if isinstance(sample_ids, Tensor) else [int(sample) for sample in sample_ids]
