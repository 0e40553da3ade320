"""SyncNet: front end and protocol against second implementations, the checkpoint's layout, known offsets."""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.fft import dct
from scipy.signal import medfilt
from torch import Tensor, nn

from df_models.encoders import load_sync_network
from df_models.encoders.audio.mfcc import mel_filters, mfcc
from df_models.encoders.face.syncnet import (
    MIN_FRAMES,
    SyncNetTowers,
    crop_faces,
    offset_curve,
    running_median,
    sync_scores,
    to_int16,
)
from df_models.errors import UserError
from df_models.files import sha256_file

PUBLISHED_BYTES = 54_561_136
"""Of the tensors, with the counters; the published file is 54 MB."""


def random_tensors(seed: int) -> dict[str, Tensor]:
    """Weights of a scale at which every layer matters, on pixels of 0-255."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        state = SyncNetTowers().state_dict()
    tensors = {}
    for name, tensor in state.items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(1000)
        elif name.endswith("running_var"):
            tensors[name] = 1 + noise.abs()
        elif tensor.ndim == 1:
            tensors[name] = (0 if name.endswith(("bias", "running_mean")) else 1) + 0.2 * noise
        else:
            tensors[name] = 1.5 * noise / tensor[0].numel() ** 0.5
    tensors["netcnnlip.0.weight"] /= 100
    return tensors


@pytest.fixture(scope="module")
def tensors():
    return random_tensors(0)


@pytest.fixture(scope="module")
def published(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("syncnet") / "syncnet_v2.model"
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="module")
def syncnet(published):
    return load_sync_network(f"syncnet_v2:{published}")


def faces(count: int, seed: int = 0) -> np.ndarray:
    """Smooth images that change from frame to frame."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(coarse, size=(224, 224), mode="bilinear")
    return (smooth * 255).byte().permute(0, 2, 3, 1).numpy()


def speech(count: int, seed: int = 0) -> np.ndarray:
    """Noise in bursts, float32 of ``count`` frames."""
    rng = np.random.default_rng(seed)
    loudness = np.repeat(rng.random(4 * count) ** 3, 160)
    return (0.5 * rng.standard_normal(640 * count) * loudness).clip(-1, 1).astype(np.float32)


def mfcc_by_loops(signal: np.ndarray) -> np.ndarray:
    """python_speech_features' ``mfcc`` with its defaults, written from its definitions, frame by frame."""
    emphasised = [float(signal[0])] + [float(b) - 0.97 * float(a) for a, b in itertools.pairwise(signal)]
    frames = 1 if len(signal) <= 400 else 1 + math.ceil((len(signal) - 400) / 160)
    emphasised += [0.0] * ((frames - 1) * 160 + 400 - len(emphasised))
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 28)
    corners = [math.floor(513 * 700 * (10 ** (mel / 2595) - 1) / 16000) for mel in mels]
    out = []
    for frame in range(frames):
        power = np.abs(np.fft.fft(emphasised[160 * frame : 160 * frame + 400], 512))[:257] ** 2 / 512
        bands = []
        for low, peak, high in zip(corners, corners[1:], corners[2:]):
            up = sum(power[k] * (k - low) / (peak - low) for k in range(low, peak))
            down = sum(power[k] * (high - k) / (high - peak) for k in range(peak, high))
            bands.append(up + down or np.finfo(float).eps)
        cepstra = dct(np.log(bands), type=2, norm="ortho")[:13]
        lifted = [value * (1 + 11 * math.sin(math.pi * n / 22)) for n, value in enumerate(cepstra)]
        out.append([math.log(power.sum() or np.finfo(float).eps), *lifted[1:]])
    return np.array(out)


@pytest.mark.parametrize("samples", [1, 400, 401, 640 * 7, 640 * 7 + 33])
def test_the_mfcc_are_python_speech_features(samples):
    signal = to_int16(speech(8, seed=samples)[:samples])
    ours, theirs = mfcc(signal), mfcc_by_loops(signal)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_mfcc_of_silence_are_finite_and_its_filters_whole():
    found = mfcc(np.zeros(2000))
    assert found.shape == (11, 13) and np.isfinite(found).all()
    assert found[0, 0] == pytest.approx(math.log(np.finfo(float).eps))
    filters = mel_filters()
    assert filters.shape == (26, 257) and (filters.max(axis=1) == 1).all() and filters[:, 256].sum() == 0


def test_audio_becomes_the_integers_of_a_wav_file():
    assert to_int16(np.array([0.0, 1.0, -1.0, 2.0, 0.5 / 32768, 1.6 / 32768])).tolist() == [
        0,
        32767,
        -32768,
        32767,
        0,
        2,
    ]


def test_names_and_shapes_are_those_of_the_public_checkpoint():
    with torch.device("meta"):
        state = SyncNetTowers().state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    spelled = {
        "netcnnaud.0.weight": (64, 1, 3, 3),
        "netcnnaud.4.weight": (192, 64, 3, 3),
        "netcnnaud.14.weight": (256, 256, 3, 3),
        "netcnnaud.18.weight": (512, 256, 5, 4),
        "netcnnaud.19.running_var": (512,),
        "netfcaud.1.weight": (512,),
        "netfclip.3.weight": (1024, 512),
        "netcnnlip.0.weight": (96, 3, 5, 7, 7),
        "netcnnlip.4.weight": (256, 96, 1, 5, 5),
        "netcnnlip.18.weight": (512, 256, 1, 6, 6),
        "netcnnlip.19.num_batches_tracked": (),
    }
    assert spelled.items() <= shapes.items()
    assert sum(t.numel() * t.element_size() for t in state.values()) == PUBLISHED_BYTES
    listed = "\n".join(sorted(f"{name} {shape}" for name, shape in shapes.items()))
    assert (
        hashlib.sha256(listed.encode()).hexdigest()
        == "53f6823c17b1fa9ce1c41329cd52419a3f819882d22494d35252640de1db9d0f"
    )


def window_by_window(tensors: dict[str, Tensor], frames: np.ndarray, wave: np.ndarray) -> tuple[Tensor, Tensor]:
    """The original's loop: every window alone, through layers called by their names, with no module of ours."""
    f, t = nn.functional, tensors

    def unit(x: Tensor, at: str, norm: int, conv, **options) -> Tensor:
        x = conv(x, t[f"{at}.weight"], t[f"{at}.bias"], **options)
        tower, _, index = at.rpartition(".")
        n = f"{tower}.{int(index) + norm}"
        mean, var = t[f"{n}.running_mean"], t[f"{n}.running_var"]
        return f.batch_norm(x, mean, var, t[f"{n}.weight"], t[f"{n}.bias"]).relu()

    def head(x: Tensor, name: str) -> Tensor:
        x = unit(x.flatten(1), f"{name}.0", 1, f.linear)
        return f.linear(x, t[f"{name}.3.weight"], t[f"{name}.3.bias"])

    bgr = torch.from_numpy(frames[..., ::-1].astype(np.float32)).permute(3, 0, 1, 2)[None]
    coefficients = torch.from_numpy(mfcc_by_loops(to_int16(wave)).T).float()[None, None]
    lips, audio = [], []
    for start in range(min(len(frames), len(wave) // 640) - 5):
        x = unit(bgr[:, :, start : start + 5], "netcnnlip.0", 1, f.conv3d, stride=(1, 2, 2))
        x = f.max_pool3d(x, (1, 3, 3), (1, 2, 2))
        x = unit(x, "netcnnlip.4", 1, f.conv3d, stride=(1, 2, 2), padding=(0, 1, 1))
        x = f.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for layer in (8, 11, 14):
            x = unit(x, f"netcnnlip.{layer}", 1, f.conv3d, padding=(0, 1, 1))
        x = unit(f.max_pool3d(x, (1, 3, 3), (1, 2, 2)), "netcnnlip.18", 1, f.conv3d)
        lips.append(head(x, "netfclip"))
        x = unit(coefficients[..., 4 * start : 4 * start + 20], "netcnnaud.0", 1, f.conv2d, padding=1)
        x = f.max_pool2d(unit(x, "netcnnaud.4", 1, f.conv2d, padding=1), (3, 3), (1, 2))
        for layer in (8, 11, 14):
            x = unit(x, f"netcnnaud.{layer}", 1, f.conv2d, padding=1)
        audio.append(head(unit(f.max_pool2d(x, 3, 2), "netcnnaud.18", 1, f.conv2d), "netfcaud"))
    return torch.cat(lips), torch.cat(audio)


def test_a_clip_equals_the_originals_loop_over_windows(syncnet, tensors):
    frames, wave = faces(10), speech(9)
    lips, audio = window_by_window(tensors, frames, wave)
    assert lips.shape == audio.shape == (4, 1024)
    assert (lips[0] - lips[1]).norm() > 0.01 * lips.norm() and (audio[0] - audio[1]).norm() > 0.01 * audio.norm()
    torch.testing.assert_close(syncnet.lips(frames)[:4], lips, rtol=1e-4, atol=1e-4 * float(lips.abs().max()))
    torch.testing.assert_close(syncnet.audio(wave)[:4], audio, rtol=1e-4, atol=1e-4 * float(audio.abs().max()))
    found, expected = syncnet.compare(frames, wave), sync_scores(torch.tensor(curve_by_loops(lips, audio, 15)))
    assert found.offset == expected.offset
    assert found.confidence == pytest.approx(expected.confidence, rel=1e-3, abs=1e-5)
    assert found.distance == pytest.approx(expected.distance, rel=1e-4)


def curve_by_loops(lips: Tensor, audio: Tensor, shift: int) -> list[float]:
    """``calc_pdist`` and the mean over windows, one distance at a time, in float64."""
    a, b = lips.double().numpy(), audio.double().numpy()
    padded = [np.zeros(b.shape[1])] * shift + list(b) + [np.zeros(b.shape[1])] * shift
    each = [[math.sqrt(((x - padded[i + k] + 1e-6) ** 2).sum()) for k in range(2 * shift + 1)] for i, x in enumerate(a)]
    return [sum(row[k] for row in each) / len(each) for k in range(2 * shift + 1)]


@pytest.mark.parametrize(("windows", "shift"), [(1, 15), (12, 15), (40, 15), (40, 3)])
def test_the_curve_equals_the_originals_loop(windows, shift):
    generator = torch.Generator().manual_seed(windows)
    lips, audio = (torch.randn(windows, 16, generator=generator) for _ in range(2))
    np.testing.assert_allclose(offset_curve(lips, audio, shift), curve_by_loops(lips, audio, shift), rtol=1e-5)


@pytest.mark.parametrize("late", [-15, -3, 0, 1, 7])
def test_the_sign_of_the_offset(late):
    """Audio that comes ``late`` frames after its lips: the published offset is ``-late``."""
    track = torch.randn(80, 32, generator=torch.Generator().manual_seed(1))
    lips = track[20:60]
    scores = sync_scores(offset_curve(lips, track[20 - late : 60 - late]))
    assert scores.offset == -late
    assert scores.confidence > 1 and scores.distance < 4


def test_scores_are_median_and_minimum():
    curve = torch.full((31,), 9.0)
    curve[12], curve[:5] = 2.5, 20.0
    assert sync_scores(curve) == type(sync_scores(curve))(offset=3, confidence=6.5, distance=2.5)


def test_batches_change_nothing_and_too_little_is_refused(syncnet):
    frames = faces(26)
    whole = syncnet.lips(frames)
    torch.testing.assert_close(whole[20:], syncnet.lips(frames[20:]), rtol=1e-4, atol=1e-5)
    assert len(syncnet.audio(speech(30))) == 25  # the 26th window of 0.2 s lacks the last 2.5 ms of its last frame
    for action, what in (
        (lambda: syncnet.lips(frames[:4]), "4 are too few"),
        (lambda: syncnet.lips(frames[:, :200]), r"not uint8 \[26, 200, 224, 3\]"),
        (lambda: syncnet.audio(speech(4)), "0.160 s are too short"),
        (lambda: syncnet.compare(frames[:5], speech(5)), "6 frames"),
        (lambda: offset_curve(torch.zeros(3, 4), torch.zeros(2, 4)), "equally many"),
    ):
        with pytest.raises(UserError, match=what):
            action()
    assert MIN_FRAMES == 35


def crop_by_loops(frames: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
    """``crop_video`` of run_pipeline.py up to its resize: padded image, python slices."""
    sizes = medfilt(np.maximum(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]) / 2, 13)
    ys, xs = medfilt((boxes[:, 1] + boxes[:, 3]) / 2, 13), medfilt((boxes[:, 0] + boxes[:, 2]) / 2, 13)
    crops = []
    for frame, bs, y, x in zip(frames, sizes, ys, xs):
        pad = int(bs * 1.8)
        large = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)), constant_values=110)
        my, mx = y + pad, x + pad
        crops.append(large[int(my - bs) : int(my + bs * 1.8), int(mx - bs * 1.4) : int(mx + bs * 1.4)])
    return crops


def test_crops_are_the_originals():
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (20, 24, 30, 3)).astype(np.uint8)
    frames = np.stack([cv2.resize(image, (300, 240), interpolation=cv2.INTER_CUBIC) for image in coarse])
    corner = np.cumsum(rng.normal(0, 4, (20, 2)), axis=0) + np.array([150, 90])
    boxes = np.concatenate([corner, corner + np.array([110, 140]) + rng.normal(0, 3, (20, 2))], axis=1)
    theirs = np.stack([cv2.resize(crop, (224, 224)) for crop in crop_by_loops(frames, boxes)])
    ours = crop_faces(frames, boxes)
    assert (theirs == 110).all(axis=(0, 3)).any()  # the crop reaches beyond the image
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert (ours == theirs).mean() > 0.85  # the rest: cv2 counts in steps of 1 / 2048
    np.testing.assert_allclose(running_median(boxes[:, 0]), medfilt(boxes[:, 0], 13))


def test_files_that_are_read_and_files_that_are_not(published, tensors, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    syncnet = load_sync_network(f"syncnet_v2:{published.parent}")
    assert (syncnet.id, syncnet.sha256) == ("syncnet_v2", sha256_file(published)) and "MIT" in syncnet.licence
    old = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.model", _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / "syncnet_v2.safetensors")
    monkeypatch.setenv("DF_WEIGHTS", str(tmp_path))
    wave = speech(6)
    for other in (load_sync_network(f"syncnet_v2:{tmp_path / 'old.model'}"), load_sync_network("syncnet_v2")):
        assert torch.equal(other.audio(wave), syncnet.audio(wave))
    monkeypatch.delenv("DF_WEIGHTS")
    torch.save(nn.Linear(2, 2), tmp_path / "module.model")
    torch.save({**tensors, "netfcaud.3.weight": torch.zeros(256, 512)}, tmp_path / "narrow.model")
    (tmp_path / "page.model").write_text("<html>404</html>")
    for spec, what in (
        (f"syncnet_v2:{tmp_path / 'gone.model'}", "there is no .*gone.model; fetch syncnet_v2.model"),
        ("syncnet_v2", "no weights were given.*fetch syncnet_v2.model"),
        (f"syncnet_v2:{tmp_path / 'module.model'}", "pickled objects beside tensors"),
        (f"syncnet_v2:{tmp_path / 'narrow.model'}", r"netfcaud.3.weight is \[256, 512\], not \[1024, 512\]"),
        (f"syncnet_v2:{tmp_path / 'page.model'}", "damaged"),
        ("syncnet", "did you mean|there is syncnet_v2"),
    ):
        with pytest.raises(UserError, match=what) as refused:
            load_sync_network(spec)
        assert "\n" not in str(refused.value)
