"""Models of one stream, or without audio: the same rules hold, and what they lack is not there."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from df_models import DualForce, History, UserError, preset_config
from df_models.attention.masks import FrameLayout
from df_models.cli import main
from df_models.model.describe import Workload, count_cache_bytes, count_flops, count_parameters
from df_models.model.flops import clip_flops, video_tokens

FORMS = {
    "video": {"streams": "video"},
    "silent video": {"streams": "video", "audio_dim": 0},
    "structure": {"streams": "structure"},
    "silent structure": {"streams": "structure", "audio_dim": 0},
    "silent": {"audio_dim": 0},
    "silent, causal": {"audio_dim": 0, "bridge_mask": "causal"},
    "silent, apart": {"audio_dim": 0, "bridge_direction": "none"},
}
STREAMS = ("video", "structure")
forms = pytest.mark.parametrize("form", FORMS)


def _inputs(model, make_clip, frames, **options):
    """What the model takes: None for what it lacks."""
    clip = make_clip(model, frames, **options)
    absent = [] if model.config.has_video else ["video", "sigma_video", "reference_latent", "reference_frame"]
    absent += [] if model.config.has_structure else ["structure", "sigma_structure"]
    absent += [] if model.config.audio_dim else ["audio"]
    clip |= dict.fromkeys(absent)
    if not model.config.reads_reference:
        clip.pop("reference_tokens", None)
    return clip


def _has(model, stream):
    return getattr(model.config, f"has_{stream}")


def _step(model, clip, cache, frame, count, write=True):
    names = ("video", "structure", "audio", "sigma_video", "sigma_structure")
    given = [None if clip[name] is None else clip[name][:, frame : frame + count] for name in names[:2]]
    audio = None if clip["audio"] is None else clip["audio"][:, frame:]
    sigmas = [None if clip[name] is None else clip[name][:, frame : frame + count] for name in names[3:]]
    return model.step(*given, audio, *sigmas, cache, frame=frame, write=write)


def _cache(model, clip, window, sinks):
    conditions = ("reference_latent", "reference_tokens", "text", "reference_frame")
    return model.new_cache(2, 4, 6, window, sinks, **{name: clip.get(name) for name in conditions})


@forms
def test_joined_products_are_those_of_the_layers_in_every_form(build, make_clip, form):
    found = []
    for joined in (False, True):
        model = build(**FORMS[form])
        if joined:
            model.join_products()
        clip = _inputs(model, make_clip, 2)
        cache = _cache(model, clip, 2, 1)
        found.append([x for frame in range(2) for x in _step(model, clip, cache, frame, 1)])
    for alone, together in zip(*found, strict=True):
        torch.testing.assert_close(together, alone, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("chunk", [1, 3])
@forms
def test_cached_generation_equals_the_whole_forward(build, make_clip, difference, figure, form, chunk):
    model = build(**FORMS[form])
    clip = _inputs(model, make_clip, 7)
    with torch.no_grad():
        wanted = model(**clip)
    for window, sinks in ((7, 0), (6, 1)):
        cache = _cache(model, clip, window, sinks)
        found = [_step(model, clip, cache, frame, min(chunk, 7 - frame)) for frame in range(0, 7, chunk)]
        for index, stream in enumerate(STREAMS):
            got, want = torch.cat([velocity[index] for velocity in found], dim=1), wanted[index]
            assert got.shape == want.shape and (want.numel() > 0) == _has(model, stream)
            if want.numel():
                assert want.any()
                figure(f"cached against whole, {form} alone, {stream}, fp32", difference(got, want), 1e-5)


@forms
def test_later_frames_never_reach_earlier_ones(build, make_clip, form):
    model = build(**FORMS[form], audio_future=2)
    clip = _inputs(model, make_clip, 5)
    with torch.no_grad():
        before = model(**clip)
        for name in ("video", "structure", "sigma_video", "sigma_structure", "audio"):
            if clip[name] is None:
                continue
            later = clip[name].clone()
            later[:, 3] += 0.1
            if name == "audio":
                later[:, 3, :2] = clip["audio"][:, 3, :2]  # which frame 2 hears
            after = model(**{**clip, name: later})
            for old, new in zip(before, after):
                assert torch.equal(old[:, :3], new[:, :3]), name
            assert any(not torch.equal(old[:, 3], new[:, 3]) for old, new in zip(before, after)), name


@forms
def test_only_the_parts_that_there_are_have_parameters(build, tmp_path, make_clip, form):
    model = build(**FORMS[form])
    whole, names = build().state_dict(), model.state_dict().keys()
    lacks = [] if _has(model, "video") else ["video.", "reference."]
    lacks += [] if _has(model, "structure") else ["structure", "flame."]
    lacks += [] if model.config.audio_dim else ["audio"]
    assert names <= whole.keys()
    bridged = model.config.bridge_to_video
    for name in whole:
        bridge = ".to_" in name or "gate_to_" in name
        assert (name in names) == (not any(part in name for part in lacks) and (bridged or not bridge)), name
    model.save_pretrained(tmp_path)
    again = DualForce.from_pretrained(tmp_path)
    assert again.config == model.config and again.state_dict().keys() == names
    moved = again.bfloat16().float()
    clip = _inputs(model, make_clip, 2)
    assert [v.shape for v in moved(**clip)] == [v.shape for v in model(**clip)]


PINNED = {
    "video": (10_577_344, "3bafa00c2696"),
    "silent video": (9_651_904, "27e2ad4a76f1"),
    "structure": (1_321_893, "e0238c5e5912"),
    "silent": (10_906_917, "d9bc995b1acb"),
}


@pytest.mark.parametrize("form", PINNED)
def test_parameters_and_their_names_are_pinned(form):
    with torch.device("meta"):
        model = DualForce(preset_config("quickstart", **FORMS[form]))
    names = json.dumps(sorted((name, list(tensor.shape)) for name, tensor in model.state_dict().items()))
    found = sum(p.numel() for p in model.parameters()), hashlib.sha256(names.encode()).hexdigest()[:12]
    assert found == PINNED[form]


@forms
def test_gradients_reach_every_parameter(build, make_clip, form):
    """Teacher-forced, with layers computed anew."""
    model = build(**FORMS[form], structure_known=True).train()
    model.gradient_checkpointing = 1
    clip = _inputs(model, make_clip, 3)
    names = ("video", "structure", "sigma_video", "sigma_structure")
    history = History(*(torch.zeros(2, 3, 0) if clip[name] is None else clip[name] for name in names))
    known = torch.rand_like(clip["structure"]) > 0.5 if model.config.has_structure else None
    velocity = model(**clip, history=history, structure_known=known)
    loss = sum(stream.square().sum() for stream in velocity)
    if model.config.reads_flame:
        loss = loss + model.predict_flame(velocity.structure).square().sum()
    loss.backward()
    unread = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not unread


@forms
def test_operations_and_cache_equal_what_is_counted(build, make_clip, form):
    model = build(reference_tokens=7, **FORMS[form])
    workload = Workload(size=64, window=4, sinks=2)
    clip = _inputs(model, make_clip, 2, size=(8, 8), batch=1)
    conditions = ("reference_latent", "reference_tokens")
    cache = model.new_cache(1, 8, 8, workload.window, workload.sinks, **{name: clip.get(name) for name in conditions})
    with FlopCounterMode(display=False) as counter:
        _step(model, clip, cache, 0, 1, write=False)
    assert counter.get_total_flops() == sum(count_flops(model.config, workload).values())
    assert cache.bytes == count_cache_bytes(model.config, workload, element=4)
    assert sum(count_parameters(model).values()) == sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter:
        model(**clip)
    tokens = video_tokens(model.config, 8, 8)
    layout = FrameLayout.clip(2)
    config = model.config
    pairs = tokens**2 * config.dim * config.num_layers
    pairs += 4**2 * config.structure_width * config.structure_layers * config.has_structure
    if config.causal_bridge:
        pairs += 2 * tokens * 4 * config.bridge_width * config.fusion_depth
    features = 7 if config.reads_reference else 0
    assert clip_flops(config, layout, tokens, features=features) == counter.get_total_flops() - 4 * pairs


def test_what_a_model_lacks_is_refused_and_what_it_has_is_needed(build, make_clip):
    video, structure = build(streams="video", audio_dim=0), build(streams="structure")
    whole = make_clip(build(), 2)
    silent = {**_inputs(video, make_clip, 2)}
    for model, changes, message in (
        (video, {"structure": whole["structure"]}, "structure was given, but this model has none"),
        (video, {"audio": whole["audio"]}, "audio was given, but this model has none"),
        (video, {"video": None}, "the model needs video, but there is none"),
        (video, {"sigma_video": None}, "the model needs sigma_video"),
        (video, {"reference_latent": None}, "the model needs reference_latent"),
        (video, {"structure_known": torch.ones(2, 2, 4, 10)}, "this model has no structure"),
    ):
        with pytest.raises(UserError, match=message):
            model(**{**silent, **changes})
    clip = _inputs(structure, make_clip, 2)
    with pytest.raises(UserError, match="this model has no video and reads none"):
        structure(**clip, reference_tokens=torch.zeros(2, 3, 8))
    with pytest.raises(UserError, match="the model needs audio"):
        structure(**{**clip, "audio": None})
    empty = {**clip, "video": torch.zeros(2, 2, 0, 4, 6)}
    assert torch.equal(structure(**empty).structure, structure(**clip).structure)
    with pytest.raises(UserError, match="no structure"):
        video.set_structure_statistics(torch.zeros(10), torch.ones(10))
    with pytest.raises(UserError, match="no FLAME head"):
        video.predict_flame(torch.zeros(1, 1, 4, 10))
    assert not video.has_structure_statistics
    assert video.normalize_structure(torch.ones(2, 3)).shape == video.denormalize_structure(torch.ones(2, 3)).shape


def test_settings_of_one_stream_are_checked():
    assert preset_config("quickstart", streams="video", structure_layers=1).fusion_depth == 2
    with pytest.raises(UserError, match=r"the number of layers that the tower has \(num_layers=1\)"):
        preset_config("quickstart", streams="video", num_layers=1)
    with pytest.raises(UserError, match=r"streams='vdeo' is none of both, video, structure .did you mean 'video'"):
        preset_config("quickstart", streams="vdeo")
    with pytest.raises(UserError, match="needs structure_text=True"):
        preset_config("dualforce-1.5b", streams="structure")


def test_text_reaches_the_structure_alone(build, make_clip):
    model = build(streams="structure", text_dim=12, structure_text=True)
    clip = _inputs(model, make_clip, 2)
    with torch.no_grad():
        assert not torch.equal(model(**clip).structure, model(**{**clip, "text": clip["text"] + 1}).structure)
    with pytest.raises(UserError, match="reads no text"):
        build(streams="structure")(**clip)


def test_describe_leaves_out_what_there_is_not(capsys):
    assert main(["describe", "quickstart", "streams=video", "audio_dim=0", "--size", "64"]) == 0
    text = capsys.readouterr().out
    assert "video tower" in text and "reference" in text
    assert not any(part in text for part in ("structure tower", "bridge", "flame head", "  audio "))
    assert main(["describe", "quickstart", "streams=structure", "--size", "64"]) == 0
    text = capsys.readouterr().out
    assert "structure tower" in text and "video tower" not in text
