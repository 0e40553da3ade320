"""Files that are strange from outside: their names, and what stands under them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from broken_cases import ACCEPTED, FAILED, Case, case, put, void


def strangers(tone: bytes, short: bytes, other: Path) -> list[Case]:
    """Videos under strange names, most of them too short; strange things under plain ones; ``other`` lies elsewhere."""
    return [*_names(tone, short), *_things(tone, other)]


def _names(tone: bytes, short: bytes) -> Iterator[Case]:
    names = [
        "line\nbreak.mp4", "tab\t.mp4", "quote'\".mp4", "..mp4", "...mp4", "--output=x.mp4", "-", "a b.mp4", "a_b.mp4",
        "a  b.mp4", "50%d.mp4", "frame%03d.jpg", "frame*.png", "x:y.mp4", "file:x.mp4", "pipe:0.mp4", "pipe:",
        "concat:a|b", "subfile,,start,0,end,9,,:x", "data:text,x", "http:localhost",
        "back\\slash.mp4", "back\\\\slash.mp4",
        "dollar$HOME`id`.mp4", "semi;rm -rf ~.mp4", "{a,b}.mp4", "[x].mp4", "a?b#c.mp4", "esc\x1b[2Jape.mp4",
        "null\\0.mp4", "e" + unicodedata.normalize("NFD", "é") + ".mp4",
        "e" + unicodedata.normalize("NFC", "é") + ".mp4", "right\u202eto-left.mp4", "line\u2028.mp4", "emoji👩‍👩‍👧.mp4",
        "n" * 251 + ".mp4", os.fsdecode(b"bytes\xff\xfe.mp4"), "~.mp4", "CON.mp4", ".hidden.mp4", "a.b.c.mp4", "mp4",
        "trailing .mp4 ", "null.json.mp4",
    ]  # fmt: skip
    alike = [
        "日本.mp4", "中国.mp4", "same.mp4", "same.mkv", "folder/same.mp4", "folder_same.mp4", "m" * 251 + ".mp4",
        os.fsdecode(b"bytes\xff\xfd.mp4"), "new\nline.mp4", "new\\nline.mp4",
    ]  # fmt: skip
    for index, name in enumerate(names):
        yield case("strange name", name, put(short + bytes(index)), "too_short")  # no two are one file
    for index, name in enumerate(alike, start=1):
        yield case("names alike", name, put(tone + bytes(index)), ACCEPTED)


def _things(tone: bytes, other: Path) -> Iterator[Case]:
    things = {
        "nowhere.mp4": lambda path: path.symlink_to("gone.mp4"),
        "circle.mp4": lambda path: path.symlink_to(path.name),
        "pipe.mp4": lambda path: os.mkfifo(path),
        "device.mp4": lambda path: path.symlink_to("/dev/zero"),
        "endless.mp4": lambda path: path.symlink_to("/dev/urandom"),
        "socket.mp4": _socket,
    }
    for name, make in things.items():
        yield case("no plain file", name, make, FAILED)
    yield case("link", "link.mp4", lambda path: path.symlink_to(other), ACCEPTED)
    yield case("sparse", "hole.mp4", _sparse, FAILED)
    unread = FAILED if os.geteuid() else ACCEPTED  # the superuser reads everything
    yield case(
        "may not be read", "locked.mp4", lambda path: void((path.write_bytes(tone + b"\1"), path.chmod(0))), unread
    )


def _socket(path: Path) -> None:
    import socket

    short = os.open(path.parent, os.O_RDONLY)  # a socket's name has 108 bytes at most
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{short}/{path.name}")
    os.close(short)


def _sparse(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)
