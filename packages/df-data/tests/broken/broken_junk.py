"""Files that are no videos: text, pages, programs, noise, stills, audio alone, and lists of other files."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from broken_cases import FAILED, Case, case, put
from broken_render import Recipe, drawn_image, render
from PIL import Image


def junk() -> list[Case]:
    return [*_texts(), *_stills(), *_bombs(), *_audio_alone()]


def _texts() -> Iterator[Case]:
    texts = {
        "empty.mp4": b"",
        "one-byte.mp4": b"\0",
        "one-letter.mp4": b"a",
        "text.mp4": b"not a video\n" * 100,
        "page.mp4": b"<!DOCTYPE html><html><title>404 Not Found</title><body>nginx</body></html>",
        "answer.mp4": b'{"error": "quota exceeded", "code": 429}',
        "program.mp4": b"#!/bin/sh\necho pwned > pwned\n",
        "noise.mp4": random.Random(1).randbytes(50_000),
        "zeros.mp4": bytes(50_000),
        "ones.mp4": b"\xff" * 50_000,
        "pointer.mp4": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "archive.mp4": b"PK\x03\x04" + bytes(200),
        "packed.mp4": zlib.compress(bytes(1_000_000)),
        "subtitles.mp4": b"1\n00:00:00,000 --> 00:00:02,000\nHello\n\n" * 20,
        "styled.mp4": b"[Script Info]\nScriptType: v4.00+\n[Events]\nDialogue: 0,0:00:00.00,0:00:02.00,,,,,,,Hello\n",
        "captions.mp4": b"WEBVTT\n\n00:00.000 --> 00:02.000\nHello\n",
        "only-ftyp.mp4": struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0),
        "endless-box.mp4": struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + struct.pack(">I4sQ", 1, b"moov", 2**62),
        "nested-boxes.mp4": b"".join(struct.pack(">I4s", 8 * (2000 - i), b"moov") for i in range(2000)),
    }
    for name, data in texts.items():
        yield case("no video at all", name, put(data), FAILED, *(["no_video_track"] if "box" in name else []))


def _stills() -> Iterator[Case]:
    image = Image.fromarray(drawn_image(0, 96, 96))
    for name, kind in {"photo.mp4": "JPEG", "drawing.mp4": "PNG", "still.mp4": "WEBP", "photo.jpg": "JPEG"}.items():
        data = io.BytesIO()
        image.save(data, kind, quality=90 + len(name))  # no two alike
        yield case("a still image", name, put(data.getvalue()), "no_sound_track", FAILED)
    moving = io.BytesIO()
    frames = [Image.fromarray(drawn_image(5 * i, 96, 96)) for i in range(3)]
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    yield case("a moving image", "moving.mp4", put(moving.getvalue()), "no_sound_track")


def png(width: int, height: int, rows: int) -> bytes:
    """A black PNG of one bit a pixel that says it is so large, with data for ``rows`` rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed, row = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
    data = b"".join(packed.compress(row) for _ in range(rows)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _bombs() -> Iterator[Case]:
    yield case(
        "decompression bomb", "bomb.png", put(png(16_384, 16_384, 16_384)), "picture_too_large", "no_sound_track"
    )
    yield case("decompression bomb", "bomb-larger.mp4", put(png(200_000, 200_000, 1)), FAILED, "no_sound_track")
    yield case("decompression bomb", "bomb.avi", _lying_mjpeg, FAILED)
    yield case("decompression bomb", "bomb-header.avi", _lying_header, "picture_too_large", FAILED)


def _mjpeg(path: Path) -> bytes:
    render(path, Recipe(format="avi", video="mjpeg", pix_fmt="yuvj420p", audio="pcm_s16le"))
    return path.read_bytes()


def _lying_mjpeg(path: Path) -> None:
    """Images that turn out to be 16000 pixels a side once they are decoded; the container says 96."""
    data, at = bytearray(_mjpeg(path)), 0
    while (at := data.find(b"\xff\xc0\x00\x11\x08", at + 1)) >= 0:
        data[at + 5 : at + 9] = struct.pack(">HH", 16_000, 16_000)
    path.write_bytes(data)


def _lying_header(path: Path) -> None:
    """A container that says 30000 pixels a side; so do its images."""
    _lying_mjpeg(path)
    data = bytearray(path.read_bytes())
    strf = data.index(b"strf") + 8
    data[strf + 4 : strf + 12] = struct.pack("<II", 30_000, 30_000)
    path.write_bytes(data)


def _audio_alone() -> Iterator[Case]:
    for name, form, codec in (
        ("speech.mp4", "wav", "pcm_s16le"),
        ("song.mp4", "flac", "flac"),
        ("radio.mp4", "mp3", "mp3"),
        ("book.m4a", "ipod", "aac"),
        ("talk.ogg", "ogg", "libopus"),
    ):
        recipe = Recipe(format=form, video=None, audio=codec)
        yield case("no video stream", name, lambda path, recipe=recipe: render(path, recipe), "no_video_track")
    yield case("cover image alone", "cover.mp3", _with_cover, "no_video_track")


def _with_cover(path: Path) -> None:
    render(path, Recipe(format="mp3", video=None, audio="mp3"))
    image = io.BytesIO()
    Image.fromarray(drawn_image(0, 64, 64)).save(image, "JPEG")
    body = b"\0image/jpeg\0\x03\0" + image.getvalue()
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = bytes((len(frame) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    tone = path.read_bytes()
    if tone.startswith(b"ID3"):
        old = sum(byte << shift for byte, shift in zip(tone[6:10], (21, 14, 7, 0)))
        tone = tone[10 + old :]
    path.write_bytes(b"ID3\x03\0\0" + size + frame + tone)


def lists(base: str, secret: Path, address: str) -> list[Case]:
    """Lists that name a video beside them, a video elsewhere, or an address; nobody may follow them."""
    video = str(secret)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.4,\n{}\n#EXT-X-ENDLIST\n"
    manifest = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    )
    texts = {
        "list.mp4": f"ffconcat version 1.0\nfile '{base}'\n",
        "list-far.ffconcat": f"ffconcat version 1.0\nfile 'file:{video}'\n",
        "list-web.mp4": f"ffconcat version 1.0\nfile '{address}/a.mp4'\n",
        "stream.m3u8": playlist.format(base),
        "stream.mp4": playlist.format(base),
        "stream-far.m3u8": playlist.format(f"file://{video}"),
        "stream-web.m3u8": playlist.format(f"{address}/a.ts"),
        "stream-key.m3u8": playlist.format(base).replace(
            "#EXTINF", f'#EXT-X-KEY:METHOD=AES-128,URI="{address}/key"\n#EXTINF'
        ),
        "dash.mpd": manifest.format(base),
        "dash-web.mpd": manifest.format(f"{address}/a.mp4"),
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 50404 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "quicktime.mp4": f"rtsptext\r\n{address}/a\r\n",
        "windows.asx": f'<asx version="3.0"><entry><ref href="{address}/a.wmv"/></entry></asx>',
        "playlist.pls": f"[playlist]\nFile1={video}\nNumberOfEntries=1\n",
        "drawing.svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{video}"/></svg>',
        "images.txt": f"{video}\n",
    }
    return [
        case("list of other files", name, put((text + "\n" * n).encode()), FAILED)
        for n, (name, text) in enumerate(texts.items())
    ]
