"""The held-out clips as files, so that another system can make its videos of them (`--baseline NAME=DIR`)."""

from __future__ import annotations

from pathlib import Path

from df_eval.config import EvalConfig
from df_eval.dataset import dataset_of
from df_eval.evaluate import structure_encoder
from df_eval.protocols.held_out import held_out_clips, person_of
from df_infer.run_dir import open_run, open_run_dir
from df_models import DualForce
from df_models.files import check_owned, mark_owned
from df_models.media import write_image, write_video, write_wav
from df_models.time import samples_for

PROGRAM = "df-eval-clips"
ENDINGS = (".png", ".wav", ".mp4")


def export_clips(run_dir: Path, config: EvalConfig, out: Path, quiet: bool = False) -> int:
    """Write each clip's first frame, its sound and its true video, named as the clip; returns how many there are.

    Files of an earlier export to the same place that are not written again are removed: they are other clips.

    Raises:
        UserError: no run or no held-out clips, or ``out`` holds something else.
    """
    run = open_run_dir(run_dir, config.checkpoint)
    root = dataset_of(run, config)
    size = DualForce.from_pretrained(open_run(run.root, config.checkpoint).model).config.video_size
    clips, _ = held_out_clips(root, config, structure_encoder(root), size, person_of(run, root), quiet=quiet)
    names = [f"{clip.key}{ending}" for clip in clips for ending in ENDINGS]
    check_owned(out, PROGRAM, names)
    mark = mark_owned(out, PROGRAM)
    for name in set(mark.read_text().splitlines()).difference(names):
        if Path(name).name == name and name.endswith(ENDINGS):  # the mark is a file, and may say anything
            (out / name).unlink(missing_ok=True)
    mark.write_text("".join(f"{name}\n" for name in names))
    for clip in clips:
        frames, wave = clip.frames_THWC[: clip.length], clip.wave_N[: samples_for(clip.length)]
        write_image(out / f"{clip.key}.png", frames[0])
        write_wav(out / f"{clip.key}.wav", wave)
        write_video(out / f"{clip.key}.mp4", frames, audio=wave)
    return len(clips)
