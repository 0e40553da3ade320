"""The command ``df-infer``."""

from __future__ import annotations

import argparse
import collections
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from df_infer.config import GenerateConfig, RolloutChanges
from df_infer.credentials import Credentials, credentials
from df_infer.generate_options import EXIT_CODES, ROLLOUT, add_generate
from df_infer.model_options import open_pipeline
from df_infer.run_dir import open_run
from df_infer.serve.command import add_serve
from df_models.cli_support import CommandParser, add_version, announce_loading, run_cli
from df_models.errors import UserError
from df_models.files import check_output, check_output_directory, require_file
from df_models.settings import config_from_flags, dump_config
from df_models.time import FPS

if TYPE_CHECKING:
    from df_infer.clip_decoder import GeneratedClip

_MAKES = {"both": "video and structure", "video": "video alone", "structure": "structure alone"}
OVERVIEW = f"""\
example:
  df-infer generate --run runs/quickstart --image face.png --audio speech.wav \\
      --out out.mp4
  df-infer serve --run runs/quickstart      # then open http://127.0.0.1:8080

A run is what df-train writes. All options: df-infer COMMAND --help. How the
server is used, proxies, security, protocols: docs/serving.md.

{EXIT_CODES}"""


def main(argv: list[str] | None = None) -> int:
    """Run ``df-infer``; return its exit code."""
    return run_cli(_main, "df-infer", argv)


def _main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    return args.run_command(args)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``df-infer`` and its subcommands."""
    parser = CommandParser(
        prog="df-infer",
        description="Make a talking head from one portrait and speech with a trained DualForce model.",
        epilog=OVERVIEW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(parser, "df-infer")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_generate(commands, _generate)
    add_serve(commands)
    return parser


def _generate(args: argparse.Namespace) -> int:
    changes = config_from_flags(RolloutChanges, args, ROLLOUT)
    if args.print_config:
        run = open_run(args.run, args.checkpoint)
        print(dump_config(GenerateConfig(rollout=changes.applied_to(run.rollout))), end="")
        return 0
    if args.manifest is not None:
        return _generate_many(args, changes)
    if args.together is not None:
        raise UserError("--together is for clips of a list; give one with --manifest")
    _check_outputs(args)
    fields = _fields(args)
    signer = credentials(args.c2pa_certificate, args.c2pa_key)
    open_run(args.run, args.checkpoint)
    for path in filter(None, (args.image, args.audio)):
        require_file(path)
    announce_loading("df-infer")
    _check_asked(args)
    from df_models.media import read_audio, read_image

    image = None if args.image is None else read_image(args.image)
    wave = None if args.audio is None else read_audio(args.audio)
    from df_infer.hearing.speech import frames_covering
    from df_infer.threads import core_beside
    from df_models.model.describe import latency_of
    from df_models.motion import Motion, read_motion, write_motion

    motion = None if args.drive is None else read_motion(args.drive)
    pipeline = open_pipeline(args)
    rollout = changes.applied_to(pipeline.rollout)
    several = rollout.chunk is not None and args.profile is None  # a profile tells of a stage at a time
    pipeline.beside = several and core_beside(pipeline.model.device, args.threads)
    if args.compile and rollout.chunk is None:
        raise UserError("--compile pays for many short steps, and chunk=null makes the whole clip in few; leave it out")
    count = args.frames
    if count is None:
        assert wave is not None, "checked before"
        count = frames_covering(wave)
    clips = pipeline.stream(
        image,
        wave,
        num_frames=count,
        seed=args.seed,
        rollout=rollout,
        cropped=args.cropped,
        keep_level=args.keep_level,
        motion=motion,
        fields=fields,
    )
    began = time.perf_counter()
    with contextlib.closing(clips), _watched(args, count):
        structure = _write(args, clips, count, signer)
    taken = time.perf_counter() - began
    if args.structure_out is not None:
        made = Motion(np.concatenate(structure), pipeline.model.config.structure_layout)
        write_motion(args.structure_out, made)
    if pipeline.prompt is not None:
        print(f"the model was told: {pipeline.prompt.words}")
    written = args.structure_out if args.out is None else args.out
    told = " with audio" if args.out is not None and args.audio is not None else ""
    print(f"wrote {written}: {count} frames, {count / FPS:.2f} s{told}, {count / FPS / taken:.2f}x real time")
    if wave is not None and (beyond := count - frames_covering(wave)) > 0:
        print(f"the last {beyond} frames are beyond the audio: silence")
    if image is not None and not pipeline.looks_for_faces:
        print("no face was looked for: this model has no face detector, and took the middle square of the image")
    if motion is not None or rollout.structure_from is not None:
        source = rollout.structure_from if args.drive is None else args.drive
        print(f"the structure was given: {', '.join(fields) or 'all of it'}, from {source}")
    if rollout.chunk is None:
        print("no live stream: the whole clip was made at once (rollout.chunk=null)")
    else:
        latency = latency_of(pipeline.model.config, rollout.chunk, rollout.audio_future)
        print(f"latency of a live stream, computing apart: {latency}")
    return 0


def _watched(args: argparse.Namespace, count: int) -> contextlib.AbstractContextManager[None]:
    """Profile what follows, if that was asked for."""
    if args.profile is None:
        return contextlib.nullcontext()
    from df_infer.profiling import TRACED_FRAMES, profiled

    if count > TRACED_FRAMES:
        raise UserError(f"--profile watches at most {TRACED_FRAMES} frames, not {count}; give --frames {TRACED_FRAMES}")
    return profiled(args.profile, count, print)


def _generate_many(args: argparse.Namespace, changes: RolloutChanges) -> int:
    """Make the clips of a list."""
    from df_infer.many.manifest import read_manifest

    for option in ("image", "audio", "structure_out", "drive", "drive_fields", "frames", "profile"):
        if getattr(args, option) is not None:
            raise UserError(f"--{option.replace('_', '-')} is for one clip; leave it out with --manifest")
    if args.seed:
        raise UserError("--seed is for one clip; with --manifest each has its own (a column seed)")
    if args.out is None:
        raise UserError("--out is missing: with --manifest, the directory to write the clips to")
    if args.out.suffix.lower() == ".mp4":
        raise UserError(f"--out {args.out}: with --manifest it is the directory to write the clips to, not a video")
    if args.together is not None and args.together < 1:
        raise UserError(f"--together {args.together}: give 1 or more")
    items = read_manifest(args.manifest, args.out)
    signer = credentials(args.c2pa_certificate, args.c2pa_key)
    check_output_directory(args.out, inputs=[args.manifest])
    open_run(args.run, args.checkpoint)
    announce_loading("df-infer")
    from df_infer.many.make import Job, make_all
    from df_infer.threads import core_beside
    from df_models.model.adapter import weights_hash

    pipeline = open_pipeline(args)
    pipeline.beside = core_beside(pipeline.model.device, args.threads)
    rollout = changes.applied_to(pipeline.rollout)
    if rollout.chunk is None or rollout.structure_from is not None:
        what = "chunk=null" if rollout.chunk is None else "structure_from"
        raise UserError(f"rollout.{what}: a list of clips cannot be made so; make them one by one")
    model = weights_hash(open_run(args.run, args.checkpoint).model)
    if args.adapter is not None:
        from df_infer.run_dir import find_adapter
        from df_models.files import sha256_file
        from df_models.model.adapter import ADAPTER_WEIGHTS

        model += sha256_file(find_adapter(args.adapter) / ADAPTER_WEIGHTS)
    job = Job(pipeline, rollout, model, args.out, args.together or 1, args.cropped, args.keep_level, signer)
    with tqdm(total=len(items), unit="clip", desc="generating", disable=args.quiet or None) as bar:

        def tell(line: str) -> None:
            tqdm.write(line)
            bar.update()

        made = make_all(job, items, tell)
    print(f"{args.out}: {made}")
    return 1 if made.failed else 0


def _write(
    args: argparse.Namespace, clips: Iterator[GeneratedClip], count: int, signer: Credentials | None
) -> list[np.ndarray]:
    """Write the video as it is made, and sign it; return the structure if it is asked for."""
    from df_models.media import AudioFile, write_video

    structure: list[np.ndarray] = []
    finished = None if signer is None else signer.sign
    with tqdm(total=count, unit="frame", desc="generating", disable=args.quiet or None) as bar:

        def frames() -> Iterator[np.ndarray]:
            for clip in clips:
                if args.structure_out is not None:
                    structure.append(clip.structure)
                yield from clip.frames
                bar.update(len(clip.frames))

        if args.out is None:
            collections.deque(frames(), maxlen=0)
        elif args.audio is None:
            write_video(args.out, frames(), finished=finished)
        else:
            with AudioFile(args.audio) as audio:
                write_video(args.out, frames(), audio=audio, finished=finished)
    return structure


def _fields(args: argparse.Namespace) -> tuple[str, ...]:
    """The names of `--drive-fields`; errors of what needs no model to see."""
    if args.drive is not None and args.drive.suffix.lower() != ".npz":
        raise UserError(
            f"--drive {args.drive}: give a motion as .npz; for that of a video, build a dataset of it (df-data build) "
            "and take it from there (df-data motion)"
        )
    if args.drive_fields is None:
        return ()
    if args.drive is None:
        raise UserError("--drive-fields names what to give of a motion; give one with --drive")
    fields = tuple(name.strip() for name in args.drive_fields.split(","))
    if not all(fields):
        raise UserError(f"--drive-fields {args.drive_fields!r}: write names with commas, as in pitch,yaw,roll")
    return fields


def _check_asked(args: argparse.Namespace) -> None:
    """Refuse what the model cannot make or does not take, and name what it needs; its weights are not read."""
    from df_models.model.config import DualForceConfig
    from df_models.model.pretrained import CONFIG_FILE, read_header

    config = DualForceConfig.from_dict(read_header(open_run(args.run, args.checkpoint).model / CONFIG_FILE)["config"])
    needs = {
        "--audio": config.audio_dim > 0 or args.frames is None,
        "--image": config.has_video,
        "--out": config.has_video,
        "--structure-out": not config.has_video,
    }
    lacks = {"--image": config.has_video, "--out": config.has_video}
    lacks |= {"--structure-out": config.has_structure, "--drive": config.has_structure}
    for option, needed in needs.items():
        if needed and getattr(args, option[2:].replace("-", "_")) is None:
            why = f"the model of {args.run} makes {_MAKES[config.streams]}"
            raise UserError(f"{option} is missing: {why}; see df-infer generate --help")
    for option, has in lacks.items():
        if not has and getattr(args, option[2:].replace("-", "_")) is not None:
            raise UserError(f"{option} was given, but the model of {args.run} makes {_MAKES[config.streams]}")


def _inputs(args: argparse.Namespace) -> list[Path]:
    return [path for path in (args.image, args.audio, args.drive) if path is not None]


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse, before any work, outputs that cannot be written or that are inputs."""
    if args.out is None and args.c2pa_certificate is not None:
        raise UserError("--c2pa-certificate signs a video, and none is written; give one with --out")
    inputs = [*_inputs(args), *([args.face_detector] if args.face_detector is not None else [])]
    for path, suffix in ((args.out, ".mp4"), (args.structure_out, ".npz"), (args.profile, ".json")):
        if path is None:
            continue
        if path.suffix.lower() != suffix:
            raise UserError(f"{path} must end in {suffix}")
        check_output(path, inputs=inputs)


if __name__ == "__main__":
    raise SystemExit(main())
