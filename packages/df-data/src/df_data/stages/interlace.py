"""Interlaced images made whole, by FFmpeg's filter bwdif; others pass as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

FILTER = "mode=send_frame:parity=auto:deint=interlaced"
"""One image for each, its first field completed; the order of the fields is as each image says."""


def deinterlaced(frames: Iterator[Any]) -> Iterator[Any]:
    """Yield PyAV's video frames, those that say that they are interlaced (and from the first such on, all) filtered."""
    graph: _Filter | None = None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        if graph is None or graph.takes != _kind(frame):
            yield from graph.pushed(None) if graph is not None else ()
            graph = _Filter(frame)
        yield from graph.pushed(frame)
    if graph is not None:
        yield from graph.pushed(None)


def _kind(frame: Any) -> tuple[object, ...]:
    return frame.width, frame.height, frame.format.name, frame.time_base


class _Filter:
    """A filter graph for frames of one size and format."""

    def __init__(self, frame: Any) -> None:
        from av.filter import Graph

        self.takes = _kind(frame)
        self._graph = Graph()
        self._graph.threads = 1
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        bwdif, sink = self._graph.add("bwdif", FILTER), self._graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        self._graph.configure()

    def pushed(self, frame: Any | None) -> Iterator[Any]:
        """Hand in a frame, or that there are no more, and yield what comes out."""
        import av

        self._graph.push(frame)
        while True:
            try:
                yield self._graph.pull()
            except (BlockingIOError, EOFError, av.EOFError):
                return
