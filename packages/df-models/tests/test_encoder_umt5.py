"""UMT5: Wan's convention for prompts, parity with diffusers, and checkpoints that do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from df_models.encoders import TextEncoder, load_text_encoder
from df_models.encoders.text import umt5
from df_models.errors import UserError
from df_models.files import sha256_file

SIZES = {"vocab_size": 48, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4}
XXL = {"vocab_size": 256_384, "d_model": 4096, "d_kv": 64, "d_ff": 10_240, "num_layers": 24, "num_heads": 64}
LETTERS = "abcdefghijklmnopqrstuvwxyz&<>;"
FILES = ["text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/tokenizer.json"]
RELATIVE_BIAS = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"
PROMPTS = ["a talking head", "", "she   says\n&amp;lt;hello&amp;gt;", "x" * 20]


def write_tokenizer(path: Path, letters: str = LETTERS, *, end: bool = True) -> None:
    """Write a ``tokenizer.json`` of UMT5's kind: unigrams with ``<pad>`` 0 and ``</s>`` 1, ``</s>`` at the end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tokenizer = Tokenizer(models.Unigram([*special, ("▁", -2.0), *((letter, -3.0) for letter in letters)], 2))
    tokenizer.add_special_tokens([piece for piece, _ in special])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    if end:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))


def write_encoder(folder: Path, *, whole: bool = False, **settings: Any) -> None:
    """Write random weights with Wan's settings, among them the one that says embeddings are not tied."""
    from transformers import UMT5Config, UMT5EncoderModel, UMT5ForConditionalGeneration

    config = UMT5Config(**(SIZES | settings), feed_forward_proj="gated-gelu")
    torch.manual_seed(0)
    model = (UMT5ForConditionalGeneration if whole else UMT5EncoderModel)(config)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    edit(folder / "config.json", tie_word_embeddings=False, tokenizer_class="T5Tokenizer")


def edit(path: Path, **settings: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A repository of diffusers, of which only two folders matter."""
    root = tmp_path_factory.mktemp("wan")
    write_encoder(root / "text_encoder")
    write_tokenizer(root / "tokenizer" / "tokenizer.json")
    (root / "model_index.json").write_text("{}")
    return root


@pytest.fixture
def encoder(checkpoint) -> umt5.UMT5:
    return umt5.load("umt5-xxl", str(checkpoint))


@pytest.fixture
def copy(tmp_path, checkpoint) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def as_diffusers_does(checkpoint: Path, prompts: list[str]) -> torch.Tensor:
    """Encode by WanPipeline's own method, with a pipeline that has nothing else."""
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline
    from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

    file = str(checkpoint / "tokenizer" / "tokenizer.json")
    reference = UMT5EncoderModel.from_pretrained(checkpoint / "text_encoder").eval()
    # the files say that embeddings are not tied and hold them once; transformers 5.0 leaves the copy uninitialized
    reference.encoder.embed_tokens = reference.shared
    parts = SimpleNamespace(
        tokenizer=PreTrainedTokenizerFast(tokenizer_file=file, pad_token="<pad>", eos_token="</s>"),
        text_encoder=reference,
        _execution_device=torch.device("cpu"),
    )
    with torch.no_grad():
        return WanPipeline._get_t5_prompt_embeds(parts, prompts, max_sequence_length=512)


def test_it_equals_diffusers(encoder, checkpoint):
    features = encoder.encode(PROMPTS)
    assert isinstance(encoder, TextEncoder)
    assert features.shape == (4, 512, 16) and features.dtype == torch.float32
    torch.testing.assert_close(features, as_diffusers_does(checkpoint, PROMPTS), atol=1e-5, rtol=1e-5)


def test_a_prompt_past_512_tokens_loses_its_end(encoder, checkpoint):
    long = "abcdefgh" * 100
    features = encoder.encode([long])
    assert features[0].any(dim=1).all()
    torch.testing.assert_close(features, as_diffusers_does(checkpoint, [long]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features, encoder.encode([long[:510]]), atol=1e-5, rtol=1e-5)  # "▁" in front


def test_rows_past_the_length_are_zero(encoder):
    counts = encoder.encode(["ab", "", "a b c"]).any(dim=2).sum(dim=1).tolist()
    assert counts == [4, 1, 7]  # one token a letter, one a space and one in front, and the end


def test_the_mask_hides_the_padding(encoder):
    alone = torch.cat([encoder.encode([prompt]) for prompt in PROMPTS])
    torch.testing.assert_close(encoder.encode(PROMPTS), alone, atol=1e-5, rtol=1e-5)


def test_no_prompts_are_no_rows(encoder):
    assert encoder.encode([]).shape == (0, 512, 16)


def test_a_prompt_is_not_taken_for_its_letters(encoder):
    with pytest.raises(UserError, match="a list of strings"):
        encoder.encode("hello")


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("  a \t b\n\nc ", "a b c"),
        ("&amp;lt;b&amp;gt; &quot;x&quot;", '<b> "x"'),
        ("a&nbsp;b", "a b"),
        ("", ""),
        ("caf\u00c3\u00a9 \u2019s", "caf\u00e9 's"),
        ("\u201ca\u201d \uff0cb\uff0c \ufb01ne", '"a" ,b, fine'),
        (
            "\u8272\u8c03\u8273\u4e3d\uff0c\u8fc7\u66dd\uff0c\u9759\u6001",
            "\u8272\u8c03\u8273\u4e3d,\u8fc7\u66dd,\u9759\u6001",
        ),  # how Wan's own negative prompt begins
    ],
)
def test_prompts_are_cleaned_as_by_diffusers(prompt, wanted):
    from diffusers.pipelines.wan import pipeline_wan

    assert pipeline_wan.is_ftfy_available(), "without ftfy diffusers cleans less, and this compares nothing"
    assert umt5.clean(prompt) == wanted == pipeline_wan.prompt_clean(prompt)


def test_the_embeddings_are_the_checkpoints(encoder, checkpoint, monkeypatch):
    """Early versions 5 of transformers left them untied, and zero, where the configuration says that they are not."""
    from transformers import UMT5EncoderModel

    exact = encoder.encode(PROMPTS)
    assert json.loads((checkpoint / "text_encoder" / "config.json").read_text())["tie_word_embeddings"] is False
    tensors = load_file(checkpoint / "text_encoder" / "model.safetensors")
    assert "encoder.embed_tokens.weight" not in tensors
    assert torch.equal(encoder.module.encoder.embed_tokens.weight, tensors["shared.weight"])
    assert encoder.module.encoder.embed_tokens.weight is encoder.module.shared.weight
    monkeypatch.setattr(UMT5EncoderModel, "tie_weights", lambda *_, **__: None)
    untied = UMT5EncoderModel.from_pretrained(checkpoint / "text_encoder")
    assert untied.encoder.embed_tokens.weight is not untied.shared.weight
    assert torch.equal(umt5.load("umt5-xxl", str(checkpoint)).encode(PROMPTS), exact)


def test_the_published_layout(checkpoint):
    tensors = load_file(checkpoint / "text_encoder" / "model.safetensors")
    layer = "encoder.block.1.layer"
    shapes = {
        "shared.weight": [48, 16],
        f"{layer}.0.SelfAttention.q.weight": [16, 16],
        f"{layer}.0.SelfAttention.relative_attention_bias.weight": [32, 4],
        f"{layer}.0.layer_norm.weight": [16],
        f"{layer}.1.DenseReluDense.wi_0.weight": [32, 16],
        f"{layer}.1.DenseReluDense.wo.weight": [16, 32],
        "encoder.final_layer_norm.weight": [16],
    }
    assert {key: list(tensors[key].shape) for key in shapes} == shapes
    assert len(tensors) == 2 * 10 + 2


def test_the_published_size():
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        model = UMT5EncoderModel(UMT5Config(**XXL, feed_forward_proj="gated-gelu"))
    model.encoder.embed_tokens.weight = model.shared.weight
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_680_910_336


def test_it_says_what_it_is(encoder, checkpoint):
    import transformers

    assert (encoder.id, encoder.licence, encoder.dim, encoder.num_tokens) == ("umt5-xxl", "Apache-2.0", 16, 512)
    assert encoder.sha256 == sha256_file(checkpoint / "text_encoder" / "model.safetensors")
    assert encoder.library == f"transformers {transformers.__version__}"
    assert not encoder.module.training
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())


def test_the_name_is_known(checkpoint):
    assert load_text_encoder(f"umt5-xxl:{checkpoint}").id == "umt5-xxl"


def test_the_dtype_is_the_checkpoints_or_the_callers(encoder, copy):
    assert encoder.module.dtype == torch.float32
    exact = encoder.encode(PROMPTS)
    half = umt5.load("umt5-xxl", str(copy), dtype=torch.bfloat16)
    assert half.module.dtype == torch.bfloat16 and half.module.shared.weight.dtype == torch.bfloat16
    features = half.encode(PROMPTS)
    assert features.dtype == torch.float32
    assert 0 < (features - exact).square().mean().sqrt() < 0.05 * exact.std()
    half.module.save_pretrained(copy / "text_encoder")
    assert umt5.load("umt5-xxl", str(copy)).module.dtype == torch.bfloat16


def test_moving_returns_itself(encoder):
    exact = encoder.encode(PROMPTS)
    assert encoder.to("cpu", torch.bfloat16) is encoder
    assert encoder.encode(PROMPTS).dtype == torch.float32
    assert encoder.module.encoder.embed_tokens.weight is encoder.module.shared.weight
    assert 0 < (encoder.encode(PROMPTS) - exact).square().mean().sqrt() < 0.05 * exact.std()


@pytest.mark.parametrize(
    ("published", "wanted"),
    [
        (
            ["text_encoder/model-00001-of-00005.safetensors", "text_encoder/model.safetensors.index.json", *FILES],
            ["text_encoder/model-00001-of-00005.safetensors", "text_encoder/model.safetensors.index.json", *FILES],
        ),
        (
            ["model_index.json", "vae/config.json", "transformer/diffusion_pytorch_model.safetensors", "README.md"],
            [],
        ),
        (
            ["config.json", "tokenizer.json", "pytorch_model-00001-of-00006.bin", "spiece.model"],
            ["config.json", "tokenizer.json"],
        ),
    ],
)
def test_no_more_is_fetched_than_is_read(published, wanted):
    from huggingface_hub.utils import filter_repo_objects

    assert list(filter_repo_objects(published, allow_patterns=list(umt5.ORIGIN.files))) == wanted


def test_googles_own_layout(tmp_path):
    """google/umt5-xxl: one flat directory, pickled tensors, and the half that writes."""
    write_encoder(tmp_path, whole=True)
    write_tokenizer(tmp_path / "tokenizer.json")
    tensors = load_file(tmp_path / "model.safetensors")
    assert any(key.startswith("decoder.") for key in tensors)
    tensors["lm_head.weight"] = tensors["shared.weight"].clone()
    flat = umt5.load("umt5-xxl", str(tmp_path)).encode(PROMPTS)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    again = umt5.load("umt5-xxl", str(tmp_path))
    assert again.sha256 == sha256_file(tmp_path / "pytorch_model.bin")
    assert torch.equal(again.encode(PROMPTS), flat)


@pytest.mark.parametrize(
    "file", ["text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/tokenizer.json"]
)
def test_a_missing_file_is_named_with_how_to_get_it(copy, file):
    (copy / file).unlink()
    with pytest.raises(UserError, match=rf"{Path(file).name}.*hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers"):
        load_text_encoder(f"umt5-xxl:{copy}")


@pytest.mark.parametrize(
    "file", ["text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/tokenizer.json"]
)
def test_a_damaged_file_is_one_sentence(copy, file):
    data = (copy / file).read_bytes()
    (copy / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="damaged") as caught:
        load_text_encoder(f"umt5-xxl:{copy}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("letters", "end", "problem"),
    [("abc", False, "without an end"), (LETTERS + "ABCDEFGHIJKLMNOPQRSTUVWXYZ", True, "too many words")],
)
def test_a_foreign_tokenizer_is_refused(copy, letters, end, problem):
    write_tokenizer(copy / "tokenizer" / "tokenizer.json", letters, end=end)
    with pytest.raises(UserError, match="is not the tokenizer of umt5-xxl"):
        load_text_encoder(f"umt5-xxl:{copy}")


def test_other_special_tokens_are_refused(copy):
    edit(copy / "text_encoder" / "config.json", pad_token_id=2)
    with pytest.raises(UserError, match="is not the tokenizer of umt5-xxl"):
        load_text_encoder(f"umt5-xxl:{copy}")


def test_t5_is_not_taken_for_umt5(copy):
    edit(copy / "text_encoder" / "config.json", model_type="t5")
    with pytest.raises(UserError, match="states the model 't5', not 'umt5'"):
        load_text_encoder(f"umt5-xxl:{copy}")


@pytest.mark.parametrize("key", ["shared.weight", RELATIVE_BIAS])
def test_a_foreign_checkpoint_is_refused_not_filled_with_random_weights(copy, key):
    """T5 has a relative bias in its first block alone."""
    path = copy / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    del tensors[key]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(UserError, match=f"no checkpoint of umt5-xxl: {key} is missing"):
        load_text_encoder(f"umt5-xxl:{copy}")
