"""How well a lip-sync expert tells audio in sync from shifted audio: on clean latents, and on a model's predicted ones.

What `objective.sync` can do rests on this: where the expert cannot read the lips of a predicted clean latent, its
gradient is noise, and `objective.sync.sigma_max` should leave that level out. Held-out people only.

Rows: `clean`, the true latents; `still`, one latent frame of another clip all the time, which has to be at chance (else
the expert reads something other than lips, such as where the mouth box lies); `model`, for every sigma bucket, the
clean latents that a trained model predicts when all frames have levels of that bucket, the structure's drawn from the
same bucket, or known (`structure clean`), with the audio it is to be in sync with. `blind`: the same without audio,
where only the noisy latents themselves, and the structure, tell the lips.

    uv run df-data synth --out data/held --clips 1 --val-clips 64
    uv run python benchmarks/sync.py runs/sync/expert runs/quickstart --data data/held --clips 64

Shape legend: B pieces of a clip, T latent frames, N clips.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import DTYPES, RESULTS, resolve, table, write_result
from tqdm import tqdm

from df_data.format.manifest import read_manifest
from df_data.reading import Batch
from df_data.reading.peek import first_samples
from df_models import DualForce
from df_models.cli_support import run_cli
from df_models.errors import UserError
from df_models.flow import interpolate, keyed_generator, keyed_noise
from df_train.config import SyncLossConfig
from df_train.figures.meter import BUCKETS
from df_train.noising import Shown, Streams
from df_train.objective import predict, predicted_video
from df_train.sync.expert import SyncExpert
from df_train.sync.held_out import Accuracy, HeldOut, accuracy, judged, read_pieces, right_and_all
from df_train.sync.loss import open_judge

KINDS = "model", "structure clean", "blind"
FRAMES = 9
"""Latent frames of a piece: those of training."""
Predict = Callable[[Batch], torch.Tensor]


def rows_of(
    expert: SyncExpert, model: DualForce, clips: Sequence[HeldOut], kinds: Sequence[str]
) -> dict[str, list[Accuracy]]:
    """Each row's accuracies: against all shifts, and against each distance from 2 to 10 frames."""
    people, batches = [clip.person for clip in clips], [clip.pieces for clip in clips]
    frames = {id(batch): batches[i - 1].video[:1, FRAMES // 2 : FRAMES // 2 + 1] for i, batch in enumerate(batches)}
    makers: dict[str, Predict] = {
        "clean": lambda batch: batch.video,
        "still": lambda batch: frames[id(batch)].expand_as(batch.video).contiguous(),
    }
    for bucket in range(BUCKETS):
        name = f"{bucket / BUCKETS:.2f}-{(bucket + 1) / BUCKETS:.2f}"
        for kind in kinds:
            makers[f"{kind}, sigma {name}"] = lambda batch, b=bucket, k=kind: _predicted(model, batch, b, k)
    rows = {}
    for name, make in tqdm(makers.items(), desc="rows"):
        pairs = np.stack([right_and_all(judged(expert, batch, make(batch))) for batch in batches])
        rows[name] = [accuracy(pairs[:, column], people) for column in range(pairs.shape[1])]
    return rows


@torch.no_grad()
def _predicted(model: DualForce, batch: Batch, bucket: int, kind: str) -> torch.Tensor:
    shown = _shown(model, batch, bucket, kind)
    return predicted_video(predict(model, shown).video.float(), shown)


def _shown(model: DualForce, batch: Batch, bucket: int, kind: str) -> Shown:
    """Every frame at a level of the bucket; keyed by the clip, so that all kinds see the same noise."""
    clean = Streams(batch.video, model.normalize_structure(batch.structure))
    ids, frames = batch.sample_ids.tolist(), batch.video.shape[1]
    levels = [torch.rand(2, frames, generator=keyed_generator(0, bucket, sample, "bench:sync")) for sample in ids]
    sigma = Streams(*((bucket + torch.stack(levels).to(batch.video.device)) / BUCKETS).unbind(dim=1))
    if kind == "structure clean":
        sigma = sigma._replace(structure=torch.zeros_like(sigma.structure))
    noise = Streams(
        *(
            keyed_noise(x.shape[1:], seed=0, step=bucket, sample_ids=ids, stream=f"bench:{name}", device=x.device)
            for name, x in clean._asdict().items()
        )
    )
    return Shown(
        clean,
        noise,
        Streams(*(interpolate(x, n, s) for x, n, s in zip(clean, noise, sigma))),
        sigma,
        Streams(*(level > 0 for level in sigma)),
        torch.zeros_like(batch.audio) if kind == "blind" else batch.audio,
        batch.reference_latent,
        batch.reference_tokens,
        batch.reference_frame,
        None,
        batch.text,
    )


def _clips(args: argparse.Namespace, model: DualForce, device: torch.device) -> list[HeldOut]:
    split = args.data / "val"
    found, wanted = read_manifest(split).count, max(2, args.clips)  # `still` takes another clip's frame
    if found < wanted:
        raise UserError(
            f"{split} holds {found} clips, and {wanted} are to be measured (--clips); make a corpus that has them: "
            f"df-data synth --out data/held --clips 1 --val-clips {wanted}"
        )
    assert model.config.audio_pool is not None
    clips = read_pieces(first_samples(split), FRAMES, model.config.audio_pool, wanted)
    return [HeldOut(person, batch.to(device)) for person, batch in clips]


def _main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("expert", type=Path, help="what task: sync wrote, RUN/expert")
    parser.add_argument("run", type=Path, help="a trained model's run")
    parser.add_argument("--data", type=Path, required=True, help="dataset whose val/ is measured")
    parser.add_argument("--clips", type=int, default=64, help="held-out clips (default: 64)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="rows of the model (default: all)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: 1)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the result files")
    args = parser.parse_args(argv)
    args.preset, args.dtype = "quickstart", next(iter(DTYPES))
    device, _ = resolve(args)
    model = DualForce.from_pretrained(args.run / "model").to(device).eval()
    judge = open_judge(SyncLossConfig.model_validate({"weight": 1.0, "expert": str(args.expert)}), model.config)
    assert judge is not None
    expert = judge.expert.to(device)
    rows = rows_of(expert, model, _clips(args, model, device), args.kinds)
    figures: dict[str, Any] = {
        "expert_sha256": judge.sha256,
        "rows": {name: [asdict(cell) for cell in cells] for name, cells in rows.items()},
    }
    print(write_result(args.out, "sync", args, device, figures, _text(rows)))
    return 0


def _text(rows: dict[str, list[Accuracy]]) -> str:
    header = ("latents", "2 to 10 frames", "95 %", "2", "5", "10", "clips", "people", "comparisons")
    lines = [
        (
            name,
            f"{cells[0].value:.3f}",
            f"{cells[0].low:.3f} to {cells[0].high:.3f}",
            *(f"{cells[far - 1].value:.3f}" for far in (2, 5, 10)),
            cells[0].clips,
            cells[0].people,
            cells[0].comparisons,
        )
        for name, cells in rows.items()
    ]
    told = (
        "Share of windows that are closer to their own audio than to the same audio shifted; chance is 0.5. Intervals "
        "over people: value ± t × bootstrap standard error."
    )
    return f"{told}\n\n{table(header, lines)}"


if __name__ == "__main__":
    raise SystemExit(run_cli(_main, "sync"))
