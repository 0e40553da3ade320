"""What a server makes before it is ready."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from df_infer.sampling.steps import HeldUp
from df_infer.serve.config import ServeConfig
from df_infer.serve.house import House
from df_infer.serve.protocol import FaceSettings

from .conftest import SIZE, FakeBackend, FakeFace, FakeSegment


class CountingBackend(FakeBackend):
    """Counts the faces that are at work at the same time, each time one begins a chunk."""

    def __init__(self, compiled: bool) -> None:
        super().__init__()
        self.compiled, self.at_work, self.seen = compiled, 0, list[int]()

    def open(self, portrait_HWC: np.ndarray, rate: int, settings: FaceSettings, keep: int) -> FakeFace:
        return CountedFace(self, rate)


class CountedFace(FakeFace):
    def __init__(self, backend: CountingBackend, rate: int) -> None:
        super().__init__(rate)
        self._backend = backend

    def steps(self) -> Generator[Any, Any, FakeSegment | None]:
        backend = self._backend
        backend.at_work += 1
        yield HeldUp(None)  # pyright: ignore[reportArgumentType]
        backend.seen.append(backend.at_work)
        yield HeldUp(None)  # pyright: ignore[reportArgumentType]
        backend.at_work -= 1
        made = self.make()
        assert made is not None, "too little sound"
        return made


@pytest.mark.parametrize(
    ("compiled", "together", "sessions", "batches"),
    [(False, 4, 4, [1]), (True, 1, 4, [1]), (True, 7, 8, [1, 2, 4]), (True, 8, 3, [1, 2]), (True, 4, 1, [1])],
)
def test_compiled_model_makes_batches_of_each_size_before_it_is_ready(
    compiled: bool, together: int, sessions: int, batches: list[int]
):
    backend = CountingBackend(compiled)
    house = House(ServeConfig(together=together, sessions=sessions), backend, np.zeros((SIZE, SIZE, 3), np.uint8))
    house.warm_up()
    house.engine.stop()
    assert backend.seen == [size for size in batches for _ in range(2 * size)], "two chunks of each"


def test_what_fails_when_warming_up_is_raised(monkeypatch: pytest.MonkeyPatch):
    house = House(ServeConfig(), FakeBackend(), np.zeros((SIZE, SIZE, 3), np.uint8))

    def fail(face: FakeFace) -> None:
        raise ValueError("no memory")

    monkeypatch.setattr(FakeFace, "make", fail)
    with pytest.raises(ValueError, match="no memory"):
        house.warm_up()
    house.engine.stop()
