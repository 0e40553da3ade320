"""Pages of the documentation that are made from the code: written, or held against what would be written."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def write_page(page: Path, text: str, description: str) -> int:
    """Write a page, or with ``--check`` say whether it is up to date; returns the exit code of the command."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is out of date")
    if not parser.parse_args().check:
        page.write_text(text, encoding="utf-8")
        return 0
    if page.is_file() and page.read_text(encoding="utf-8") == text:
        return 0
    print(f"{page} is out of date; run: uv run python tools/{Path(sys.argv[0]).name}", file=sys.stderr)
    return 1
