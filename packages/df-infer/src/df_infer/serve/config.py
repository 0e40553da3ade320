"""The settings of the server: where it listens, who may come in, and how much each may ask for."""

from __future__ import annotations

from pydantic import Field

from df_models.settings import FrozenModel, Location


class ServeConfig(FrozenModel):
    """How `df-infer serve` listens and what it allows.

    Attributes:
        host: address to listen on; any other than this machine's own (127.0.0.1, ::1) needs a token.
        port: TCP port; 0 takes a free one, which the log's line `serving` tells.
        token_file: file that holds the token which every request must bear, of 16 characters or more; null: the
            variable DF_INFER_TOKEN, or none.
        allow_hosts: names by which browsers reach the server (of a proxy in front of it, or in DNS), with commas; a
            request for another name is refused (DNS rebinding). The address it listens on is always allowed.
        portrait: image of the person that the page begins with; null: a rendered person that comes with the package.
        motion: a motion track (.npz, as `df-infer generate --structure-out` writes it) that a user may let drive the
            head; null: none.
        motion_fields: fields of it that are given, with commas, such as pitch,yaw,roll; null: all of it.
        sessions: people who talk at the same time; further ones wait.
        together: chunks of different people that are made in one batch at most, when they are due together; 1: each
            alone.
        waiting: people who wait for a place; further ones are refused.
        idle_s: a session in which nothing is spoken or sent for so long is closed.
        session_s: longest session.
        ahead_s: sound that comes in faster than it is heard (from a voice stack, a file) is made into video so far
            ahead of what is seen.
        sound_ahead_s: sound that may wait to be spoken; a session that sends more is closed.
        most_steps: most solver steps that a user may ask for.
        message_bytes: longest message of a live session.
        json_bytes: longest body of a request that carries no file.
        upload_bytes: longest body of a request that carries files.
        upload_s: longest time that such a body may take to arrive.
        portrait_pixels: most pixels of a portrait.
        audio_s: longest sound of a whole video.
        jobs: whole videos that wait, run or are kept, together.
        keep_s: a finished video is kept for so long.
        c2pa_certificate: certificate chain (PEM) with which whole videos are signed as generated (C2PA); null: they
            are not. The live stream never is.
        c2pa_key: the certificate's private key (PEM).
        turn: URL of a TURN server for WebRTC through firewalls, such as turn:turn.example.org:3478; its name and
            password are taken from DF_INFER_TURN_USER and DF_INFER_TURN_PASSWORD.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    token_file: Location | None = None
    allow_hosts: str | None = None
    portrait: Location | None = None
    motion: Location | None = None
    motion_fields: str | None = None
    sessions: int = Field(default=1, ge=1)
    together: int = Field(default=4, ge=1)
    waiting: int = Field(default=8, ge=0)
    idle_s: float = Field(default=300.0, gt=0)
    session_s: float = Field(default=3600.0, gt=0)
    ahead_s: float = Field(default=1.0, gt=0, le=2.0)
    sound_ahead_s: float = Field(default=120.0, gt=0)
    most_steps: int = Field(default=50, ge=1)
    message_bytes: int = Field(default=1_000_000, ge=1_000)
    json_bytes: int = Field(default=65_536, ge=1_000)
    upload_bytes: int = Field(default=50_000_000, ge=1_000)
    upload_s: float = Field(default=60.0, gt=0)
    portrait_pixels: int = Field(default=64_000_000, ge=1)
    audio_s: float = Field(default=600.0, gt=0)
    jobs: int = Field(default=8, ge=0)
    keep_s: float = Field(default=3600.0, gt=0)
    c2pa_certificate: Location | None = None
    c2pa_key: Location | None = None
    turn: str | None = None
