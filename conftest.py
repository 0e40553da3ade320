"""What all tests share: one thread each, and figures that tests measure and a document can quote.

``uv run pytest packages/df-models --figures docs/numerics.md`` writes the largest value that each figure took, and
its bound, between the document's two marks.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
_KEY = "figure: "
_figures: dict[str, tuple[float, float, int]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--figures FILE``."""
    parser.addoption("--figures", metavar="FILE", help=f"write the measured figures into FILE, between {BEGIN} and end")


def rehearsing() -> bool:
    """Whether tests that need a GPU run on the CPU instead, on tiny sizes (``GPU_REHEARSAL=1``)."""
    return os.environ.get("GPU_REHEARSAL") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not rehearsing():
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def rehearsal() -> bool:
    """Whether a test marked ``gpu`` runs on the CPU, and should take its smallest sizes."""
    return rehearsing()


@pytest.fixture
def gpu(rehearsal: bool) -> Iterator[torch.device]:
    """The device of tests marked ``gpu``: CUDA in full float32, or the CPU in a rehearsal.

    A function that is compiled for more shapes than torch allows falls back to eager silently; here it fails.
    """
    import torch
    import torch._dynamo

    torch._dynamo.reset()
    torch.manual_seed(0)
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield torch.device("cpu" if rehearsal else "cuda")
    for backend, allowed in zip(backends, before):
        backend.allow_tf32 = allowed


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str, float, float], None]:
    """Assert that a measured figure keeps its bound, and record it for ``--figures``."""

    def check(what: str, value: float, bound: float) -> None:
        record_property(_KEY + what, (value, bound))
        assert value <= bound, f"{what}: {value:.3g} exceeds {bound:.3g}"

    return check


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Gather figures; with several worker processes this runs in the one that reports."""
    if report.when == "call":
        for name, value in report.user_properties:
            if name.startswith(_KEY):
                measured, bound = value  # type: ignore[misc]
                worst, _, count = _figures.get(name, (0.0, bound, 0))
                _figures[name] = max(worst, measured), bound, count + 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the figures, once, where they were asked for."""
    target = session.config.getoption("--figures")
    if target and not hasattr(session.config, "workerinput"):
        path = Path(target)
        before, rest = path.read_text().split(BEGIN)
        path.write_text(f"{before}{BEGIN}\n\n{_table()}\n{END}{rest.split(END)[1]}")


def _table() -> str:
    import torch

    lines = ["| figure | largest measured | bound | cases |", "|---|---|---|---|"]
    for name, (worst, bound, count) in sorted(_figures.items()):
        lines.append(f"| {name.removeprefix(_KEY)} | {worst:.2g} | {bound:g} | {count} |")
    return "\n".join(
        [*lines, "", f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}."]
    )
