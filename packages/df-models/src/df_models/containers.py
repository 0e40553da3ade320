"""Opening video and audio files that nobody vouches for.

FFmpeg tells a file's format from its contents, and some of the formats that it knows are lists of other files and
addresses (HLS, DASH, concat, SDP) or read the name as a pattern (image2). A file that came from elsewhere could so have
any local file, or any address of the network, read as a video. Here only formats that stand for themselves are opened;
FFmpeg is handed the open file (its protocol `fd`) and never learns the name, so a name means nothing; and images stay
below a size that fits into memory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from df_models.errors import UserError
from df_models.truncation import is_cut_off

if TYPE_CHECKING:
    import av.container

VIDEO_FORMATS = (
    "mov", "matroska", "mpeg", "mpegts", "mpegvideo", "avi", "flv", "asf", "ogg", "mxf", "dv", "nut", "rm", "ivf",
    "h264", "hevc", "m4v", "mjpeg", "yuv4mpegpipe",
)  # fmt: skip
"""FFmpeg's names of the containers that are read (`mov` is mp4, m4a and 3gp too, `matroska` is webm too)."""
AUDIO_FORMATS = ("wav", "w64", "flac", "mp3", "aac", "ac3", "eac3", "aiff", "au", "caf", "amr", "ape", "tta", "wv")
IMAGE_FORMATS = ("gif", "apng", "png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe")
FORMATS = (*VIDEO_FORMATS, *AUDIO_FORMATS, *IMAGE_FORMATS)
MOST_PIXELS = 8192 * 4608
"""Larger images (8K is 7680x4320) are not decoded: a small file may hold images that no memory does."""
NOT_READ = errno.EINVAL
"""What FFmpeg answers for a format that is not among those allowed (libavformat/demux.c, `format_whitelist`)."""


SLACK_S = 0.06
"""What a file may lack of its stated length: an image and a half, as the last one's duration is often not written."""


class FormatNotRead(UserError):
    """A file is of none of :data:`FORMATS`, or not a file."""


class FileCutOff(UserError):
    """The end of a file is missing."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(f"{Path(path).name} is truncated, its end is missing; copy, record or download it again")


def open_media(path: str | Path) -> av.container.InputContainer:
    """Open a file for reading, as one of :data:`FORMATS` and nothing else.

    Text in the file that is not UTF-8 is read with replacement characters, not refused.

    Raises:
        FormatNotRead: the file is of another format, or no plain file.
        FileCutOff: its end is missing, and with it what tells where its images lie.
        av.FFmpegError, OSError: it cannot be opened; for its decoders, see :func:`limit_images`.
    """
    import av

    options = {
        "format_whitelist": ",".join(FORMATS),
        "protocol_whitelist": "fd",
        "max_pixels": str(MOST_PIXELS),
    }
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise FormatNotRead(f"{Path(path).name} is not a plain file")
        return av.open("fd:", "r", options=options | {"fd": str(number)}, metadata_errors="replace")
    except av.FFmpegError as error:
        if error.errno == NOT_READ:
            raise FormatNotRead(
                f"{Path(path).name} is of a format that is not read (a playlist, subtitles, a rare container); "
                "convert it to mp4 or mkv"
            ) from error
        if is_cut_off(path):
            raise FileCutOff(path) from error
        raise
    finally:
        os.close(number)  # FFmpeg has a copy


def gives_what_it_promises(path: str | Path) -> bool:
    """Whether all images and audio are there that a file's index counts or, without one, that its length needs.

    Containers with a wrong length, or with something behind their end, look as if they were cut off, and are not.
    Packets are read, not decoded. An MP4 in fragments promises nothing, so of it this is False.
    """
    import av

    try:
        with open_media(path) as container:
            streams = [*container.streams.video, *container.streams.audio]
            counts, end = dict.fromkeys((stream.index for stream in streams), 0), 0.0
            for packet in container.demux(streams):
                if not packet.size or packet.is_corrupt:
                    continue
                counts[packet.stream.index] += 1
                if packet.pts is not None and packet.time_base is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if "mov" in container.format.name:
                return bool(streams) and all(0 < stream.frames <= counts[stream.index] for stream in streams)
            return bool(container.duration) and end >= float(container.duration or 0) / av.time_base - SLACK_S
    except (av.FFmpegError, OSError, UserError, IndexError):
        return False


def limit_images(stream: Any) -> None:
    """Make a video stream's decoder refuse images of more than :data:`MOST_PIXELS`, whatever the header says."""
    stream.codec_context.options = {**stream.codec_context.options, "max_pixels": str(MOST_PIXELS)}


def default_stream(streams: Sequence[Any]) -> Any:
    """Return the stream that a player takes: the first that the file marks as default, else the first of all."""
    from av.stream import Disposition

    return next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])
