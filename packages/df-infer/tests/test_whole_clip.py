"""A clip generated at once, for models with one noise level per clip."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from df_infer.cli import main
from df_infer.config import RolloutChanges, RolloutConfig
from df_infer.rollout import generate_latents
from df_infer.sampling.noise import FrameNoise
from df_models import DualForce
from df_models.errors import UserError
from df_models.flow import inference_sigmas

REFERENCE = torch.full((2, 16, 2, 2), 0.9)
AUDIO = torch.arange(5.0).view(1, 5, 1, 1).expand(2, 5, 4, 3) + 1
WHOLE = RolloutConfig(steps=4, start="generate", chunk=None, window=2)


def test_all_frames_go_from_noise_to_clean_at_one_level_and_nothing_is_written(spy) -> None:
    for audio in (AUDIO, iter([AUDIO[:, :2], AUDIO[:, 2:]])):
        spy.calls.clear()
        out = generate_latents(spy, audio, REFERENCE, config=WHOLE)
        torch.testing.assert_close(out.video, torch.full((2, 5, 16, 2, 2), spy.clean))
        assert len(spy.calls) == 4 and not any(call.write for call in spy.calls)
        assert all(call.frame == 0 and call.video.shape[1] == 5 for call in spy.calls)
        assert all(
            call.sigma_video.unique().numel() == 1 == call.sigma_structure.unique().numel() for call in spy.calls
        )
        assert spy.cache_arguments["window"] == 5


def test_a_whole_clip_is_the_full_sequence_denoised(model, inputs) -> None:
    audio = inputs.audio[:, :5]
    config = RolloutChanges(struct_start="noise", steps=3).applied_to(WHOLE)
    found = generate_latents(model, audio, *inputs[1:], config=config, seed=2)
    noise = FrameNoise(2, [0, 1])
    video, structure = noise.draw(0, 5, "video", (16, 2, 2)), noise.draw(0, 5, "structure", (4, 70))
    levels = [inference_sigmas(3, shift).float() for shift in (config.shift, config.structure_shift)]
    with torch.no_grad():
        for step in range(3):
            now, then = ([level[at].expand(2, 5) for level in levels] for at in (step, step + 1))
            velocity = model(video, structure, audio, *now, *inputs[1:])
            video = video + (then[0] - now[0])[..., None, None, None] * velocity.video
            structure = structure + (then[1] - now[1])[..., None, None] * velocity.structure
    torch.testing.assert_close(found.video, video, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.structure, structure, rtol=1e-4, atol=1e-5)


def test_a_model_with_one_level_per_clip_makes_whole_clips_only(model, inputs, files, tmp_path, capfd) -> None:
    one_level = DualForce(replace(model.config, one_level_frames=3)).eval()
    one_level.load_state_dict(model.state_dict())
    with pytest.raises(UserError, match=r"whole clips only.*rollout.chunk=null"):
        generate_latents(one_level, *inputs, config=RolloutConfig(steps=1))
    with pytest.raises(UserError, match=r"at most 3 latent frames.*at most 9 pixel frames"):
        generate_latents(one_level, *inputs, config=WHOLE)
    one_level.save_pretrained(tmp_path / "model")
    common = ["generate", "--run", str(tmp_path / "model"), "--image", str(files.image), "--audio", str(files.audio)]
    common += ["--device", "cpu", "--steps", "1", "--quiet", "--out", str(tmp_path / "out.mp4")]
    assert main([*common, "--chunk", "null"]) == 2
    assert "--frames 9" in capfd.readouterr().err
    assert main([*common, "--chunk", "null", "--frames", "9"]) == 0
    assert "made at once" in capfd.readouterr().out
