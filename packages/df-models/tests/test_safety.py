"""Nothing in the workspace unpickles anything but tensors."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[2]
SOURCES = sorted(PACKAGES.glob("*/src/**/*.py")) + sorted((PACKAGES.parent / "benchmarks").glob("*.py"))
FORBIDDEN = {("pickle", "load"), ("pickle", "loads"), ("joblib", "load"), ("dill", "load"), ("shelve", "open")}


def _calls(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            yield node, (owner.id if isinstance(owner, ast.Name) else "", node.func.attr)


def unsafe_calls(source: str) -> list[int]:
    """Return the lines of calls that may unpickle objects."""
    lines = []
    for node, name in _calls(ast.parse(source)):
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        if name == ("torch", "load"):
            only = options.get("weights_only")
            if not (isinstance(only, ast.Constant) and only.value is True):
                lines.append(node.lineno)
            continue
        pickled_array = name[0] in ("np", "numpy") and name[1] == "load" and "allow_pickle" in options
        if name in FORBIDDEN or pickled_array:
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGES.parent)))
def test_no_call_unpickles_objects(path):
    assert not unsafe_calls(path.read_text(encoding="utf-8"))


def test_such_calls_would_be_found():
    assert unsafe_calls("import torch\ntorch.load(p)") == [2]
    assert unsafe_calls("torch.load(p, weights_only=False)") == [1]
    assert unsafe_calls("torch.load(p, weights_only=True)") == []
    assert unsafe_calls("pickle.loads(b)\nnp.load(p, allow_pickle=True)") == [1, 2]
