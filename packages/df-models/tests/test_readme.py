"""What the README shows works as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from df_models import VideoDiT, VideoDiTConfig
from df_models.cli import build_parser

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_there_are_blocks():
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_runs_by_itself(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    wan = VideoDiT(VideoDiTConfig(dim=128, num_layers=2, num_heads=1, ffn_dim=64, in_dim=16, text_dim=12))
    save_file(wan.state_dict(), "wan.safetensors")
    exec(compile(block, "README.md", "exec"), {})


def test_every_command_is_one_and_none_writes_where_another_does():
    lines = re.findall(r"^df-models (.+)$", README, flags=re.MULTILINE)
    given = [[word for word in shlex.split(line, comments=True) if not re.match(r"[a-z]\w*=", word)] for line in lines]
    parsed = [build_parser().parse_args(words) for words in given]
    targets = [arguments.target for arguments in parsed if arguments.command == "convert-wan"]
    assert len(targets) == 3 and len(set(targets)) == 3
