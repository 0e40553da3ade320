"""df-eval's metrics beside the implementations that the field quotes, on the same inputs.

The other packages are no dependencies of this repository; uv puts them beside it for one run:

    uv run --with pytorch-fid==0.3.0 --with torch-fidelity==0.4.0 --with cd-fvd==0.1.1 --with lpips==0.1.4 \\
        --with scikit-image==0.26.0 python benchmarks/reference_metrics.py

No published weights are needed: a network gets random weights in the layout of the published file, is saved as the
archive that df-eval takes, and is given to both sides. So this compares ranges, resizing, order of axes, windows,
statistics and distances, which is what implementations differ in, and says nothing of the archives that users bring.
What is compared are numbers of the same inputs; `tools/make_metrics.py` puts them into docs/metrics.md.

Shape suffixes: C clips, T frames, H W height and width, D features, W windows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from common import add_common_arguments, resolve, table, write_result
from reference_networks import (
    CalledLpips,
    First,
    InceptionArchive,
    LpipsArchive,
    VideoArchive,
    called,
    module,
    randomise,
    save,
    without_download,
)
from torch import Tensor

from df_eval.config import ReadersConfig
from df_eval.metrics import SetDistance, frames, identity, syncnet
from df_eval.metrics.frechet import frechet_of_sets
from df_eval.reading.networks import Networks
from df_models.settings import Location

SIDE = 96
FRAMES = 16
INCEPTION_CLIPS = 3
I3D_CLIPS = 4


@dataclass(frozen=True)
class Compared:
    """One number of both sides."""

    metric: str
    reference: str
    inputs: str
    ours: float
    theirs: float

    @property
    def difference(self) -> float:
        """Relative to theirs."""
        return abs(self.ours - self.theirs) / max(abs(self.theirs), 1e-12)

    def cells(self) -> tuple[str, ...]:
        return (self.metric, self.reference, self.inputs, f"{self.ours:.7g}", f"{self.theirs:.7g}",
                f"{self.difference:.1e}")  # fmt: skip


def videos(seed: int, clips: int, length: int = FRAMES) -> np.ndarray:
    """Coloured waves that wander, each clip its own, with grain: uint8 ``[C, T, H, W, 3]``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    wave = rng.uniform(1, 6, (clips, 1, 1, 1, 3)) * x[..., None] + rng.uniform(1, 6, (clips, 1, 1, 1, 3)) * y[..., None]
    moved = wave + rng.uniform(-1, 1, (clips, 1, 1, 1, 3)) * np.arange(length)[:, None, None, None] / 8
    grain = rng.normal(scale=8.0, size=moved.shape)
    return np.clip(127 + 100 * np.sin(2 * np.pi * moved) + grain, 0, 255).astype(np.uint8)


def scored(name: str, true: list[np.ndarray], made: list[np.ndarray]) -> float:
    """Our distance of distributions of clips' features ``[n, D]``."""
    metric = SetDistance(name)
    metric.update(true, range(len(true)), real=True)
    metric.update(made, range(len(made)), real=False)
    return float(metric.compute())


def pictures() -> Iterator[Compared]:
    """PSNR and SSIM."""
    metrics = module("scikit-image", ".metrics")
    true, made = videos(1, 1)[0], videos(1, 1)[0]
    made = np.clip(made + np.random.default_rng(2).normal(scale=20.0, size=made.shape), 0, 255).astype(np.uint8)
    ours = frames.psnr(frames.squared_errors(made, true)).value
    theirs = metrics.peak_signal_noise_ratio(true, made, data_range=255)
    yield Compared("PSNR", called("scikit-image"), f"{FRAMES} frames with noise", float(ours or 0), float(theirs))
    each = [
        metrics.structural_similarity(
            a, b, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        for a, b in zip(true, made, strict=True)
    ]
    ours = frames.ssim(frames.similarities(made, true)).value
    theirs = float(np.mean(each))
    yield Compared("SSIM", called("scikit-image"), f"{FRAMES} frames with noise", float(ours or 0), theirs)


def inception(folder: Path) -> Iterator[Compared]:
    """FID and KID."""
    states, fidelity = folder / "inception.pth", module("torch-fidelity")
    extractors = module("torch-fidelity", ".feature_extractor_inceptionv3")
    bare = extractors.FeatureExtractorInceptionV3
    network = without_download(extractors, lambda: bare("inception-v3-compat", ["2048"]))
    torch.save(randomise(network, 3).state_dict(), states)
    example = torch.zeros(8, 3, SIDE, SIDE, dtype=torch.uint8)
    save(folder / "inception.pt", InceptionArchive, First(network), example)
    extract = Networks(ReadersConfig(inception=Location(folder / "inception.pt"))).extractors["inception"]
    true, made = videos(4, INCEPTION_CLIPS), videos(5, INCEPTION_CLIPS)
    ours = [[extract(clip) for clip in clips] for clips in (true, made)]
    found = fidelity.calculate_metrics(
        input1=Images(true), input2=Images(made), fid=True, cuda=False, verbose=False, cache=False, save_cpu_ram=True,
        batch_size=8, feature_extractor_weights_path=str(states),
    )  # fmt: skip
    what = f"{INCEPTION_CLIPS} + {INCEPTION_CLIPS} clips, random Inception"
    fid = scored("fid", *ours)
    yield Compared("FID", called("torch-fidelity"), what, fid, found["frechet_inception_distance"])
    state = torch.load(states, weights_only=True)
    theirs = frechet_of_sets(*(_by_pytorch_fid(state, clips) for clips in (true, made)), ddof=1)
    yield Compared("FID, other resizing", called("pytorch-fid"), what + ", resized as torch does", fid, theirs)
    both = [np.concatenate(clips) for clips in ours]
    kernels = module("torch-fidelity", ".metric_kid")
    single = [clips[:, None] for clips in both]
    about = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1.0}
    pairs = ((0, 0), (0, 1), (1, 1))
    products = [kernels.kernel_poly(both[a], both[b], **about) for a, b in pairs]
    theirs = kernels.mmd2(*products, mmd_est="u-statistic")
    yield Compared("KID, a frame a clip", called("torch-fidelity"), what, scored("kid", *map(list, single)), theirs)


class Images(torch.utils.data.Dataset):
    """Clips' frames as torch-fidelity takes them: uint8 ``[3, H, W]``."""

    def __init__(self, clips: np.ndarray) -> None:
        self.all = torch.from_numpy(clips).flatten(0, 1).permute(0, 3, 1, 2).contiguous()

    def __len__(self) -> int:
        return len(self.all)

    def __getitem__(self, index: int) -> Tensor:
        return self.all[index]


@torch.no_grad()
def _by_pytorch_fid(state: dict[str, Tensor], clips: np.ndarray) -> np.ndarray:
    """Features ``[N, D]`` by pytorch-fid's network and resizing, of images in [0, 1] as it reads them."""
    where = module("pytorch-fid", ".inception")
    network = without_download(where, where.InceptionV3, state).eval()
    images = Images(clips).all.float() / 255
    return torch.cat([network(part)[0].flatten(1) for part in images.split(8)]).double().numpy()


def video(folder: Path) -> Iterator[Compared]:
    """FVD by cd-fvd's I3D, on the first 16 of 20 frames."""
    package, port = module("cd-fvd", ".fvd"), module("cd-fvd", ".third_party.i3d.pytorch_i3d")
    network = randomise(port.InceptionI3d(400, in_channels=3), 6)
    torch.save(network.state_dict(), folder / "i3d.pth")
    save(folder / "i3d.pt", VideoArchive, network, torch.zeros(2, 3, FRAMES, 224, 224))
    extract = Networks(ReadersConfig(cd_i3d=Location(folder / "i3d.pt"))).extractors["cd_i3d"]
    true, made = videos(7, I3D_CLIPS, FRAMES + 4), videos(8, I3D_CLIPS, FRAMES + 4)
    theirs = package.cdfvd("i3d", ckpt_path=str(folder / "i3d.pth"), device="cpu")
    found = theirs.compute_fvd(true[:, :FRAMES], made[:, :FRAMES])
    ours = scored("cd_fvd", [extract(clip) for clip in true], [extract(clip) for clip in made])
    yield Compared("FVD (cd-fvd)", called("cd-fvd"), f"{I3D_CLIPS} + {I3D_CLIPS} clips, random I3D", ours, float(found))


def gaussians() -> Iterator[Compared]:
    """The distances of random features, at the sizes of the protocols."""
    stats, fid = module("cd-fvd", ".utils.metric_utils"), module("pytorch-fid", ".fid_score")
    for count in (256, 2048):
        rng = np.random.default_rng(count)
        true, made = rng.normal(size=(count, 400)), rng.normal(size=(count, 400)) * 1.1 + 0.05
        gathered = [stats.FeatureStats(capture_mean_cov=True) for _ in range(2)]
        for each, values in zip(gathered, (true, made), strict=True):
            each.append(values)
        theirs = module("cd-fvd", ".fvd").cdfvd.compute_fvd_from_stats(None, *reversed(gathered))
        windows = [list(values[:, None]) for values in (true, made)]
        what = f"{count} + {count} random vectors of 400"
        yield Compared("FVD, of features", called("cd-fvd"), what, scored("fvd2048_16f", *windows), float(theirs))
        moments = [part for values in (true, made) for part in (values.mean(axis=0), np.cov(values, rowvar=False))]
        theirs = fid.calculate_frechet_distance(*moments)
        ours = frechet_of_sets(true, made, ddof=1)
        yield Compared("Frechet distance, ddof 1", called("pytorch-fid"), what, ours, float(theirs))


@torch.no_grad()
def lpips(folder: Path) -> Iterator[Compared]:
    """LPIPS by VGG-16, its published weights of the layers and random ones of the trunk."""
    package = module("lpips")
    network = package.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    randomise(network.net, 9)
    vectors = LpipsArchive(network, package.normalize_tensor)
    save(folder / "vgg16.pt", CalledLpips, vectors, torch.zeros(16, 3, SIDE, SIDE))
    distance = Networks(ReadersConfig(lpips=Location(folder / "vgg16.pt"))).lpips
    assert distance is not None
    true, made = videos(10, 1)[0], videos(11, 1)[0]
    images = [torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 127.5 - 1 for clip in (made, true)]
    theirs = float(network(*images).mean())
    ours = float(distance(made, true).mean())
    yield Compared("LPIPS", called("lpips"), f"{FRAMES} frames, random VGG-16", ours, theirs)


def formulas() -> Iterator[Compared]:
    """Definitions written out pair by pair and shift by shift, of which no package can be had."""
    vectors = np.random.default_rng(12).normal(size=(33, 512))
    unit = [vector / np.sqrt((vector**2).sum()) for vector in vectors]
    every = [float(np.sqrt(((a - b) ** 2).sum())) for i, a in enumerate(unit) for b in unit[:i]]
    ours = identity.pairwise_distance(vectors).value
    theirs = sum(every) / len(every)
    yield Compared("ACD, all pairs", "MoCoGAN's formula", "33 vectors of 512", float(ours or 0), theirs)
    rng = np.random.default_rng(13)
    heard = rng.normal(size=(75, 64))
    seen = np.roll(heard, 3, axis=0) + 0.5 * rng.normal(size=heard.shape)
    curve = _published_curve(seen, heard)
    wanted = {"Sync-C": float(np.sort(curve)[len(curve) // 2] - curve.min()), "Sync-D": float(curve.min()),
              "Sync offset": float(15 - curve.argmin())}  # fmt: skip
    for (name, value), pair in zip(wanted.items(), syncnet.sync_scores(seen, heard), strict=True):
        yield Compared(name, "the published evaluation path", "75 frames, sound 3 frames off", pair.numerator, value)


def _published_curve(seen: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Mean distance at each of 31 shifts: the lips of each window but the last against the sound around it, zeros
    beyond its ends; every difference has the 1e-6 of torch's distance (Chung and Zisserman 2016, as syncnet_python and
    the evaluation of Prajwal et al. 2020 have it)."""
    last = len(seen) - 5
    totals = np.zeros(31)
    for window in range(last):
        for shift in range(31):
            place = window + shift - 15
            sound = heard[place] if 0 <= place < last else np.zeros_like(heard[0])
            totals[shift] += np.sqrt(((seen[window] - sound + 1e-6) ** 2).sum())
    return totals / last


def main() -> None:
    """Compare and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    args = parser.parse_args()
    args.preset, args.device = "random-weights", "cpu"
    device, _ = resolve(args)
    found: list[Compared] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in (pictures(), inception(folder), video(folder), gaussians(), lpips(folder), formulas()):
            for compared in part:
                found.append(compared)
                print(" | ".join(compared.cells()), flush=True)
    text = table(("metric", "beside", "of", "df-eval", "the other", "relative difference"), [c.cells() for c in found])
    figures = {"compared": [asdict(each) for each in found]}
    print(write_result(args.out, "reference-metrics", args, device, figures, text))


if __name__ == "__main__":
    main()
