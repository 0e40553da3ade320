"""What all tests share: one thread each, and figures that tests measure and a document can quote.

``uv run pytest packages/df-models --figures docs/numerics.md`` writes the largest value that each figure took, and
its bound, between the document's two marks.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
_KEY = "figure: "
_figures: dict[str, tuple[float, float, int]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--figures FILE``."""
    parser.addoption("--figures", metavar="FILE", help=f"write the measured figures into FILE, between {BEGIN} and end")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


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
