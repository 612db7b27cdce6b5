"""LTX-Video's weights in diffusers' layout become a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from visavis.models.a2v_dit import A2VTransformer
from visavis.models.checkpoints import load_part
from visavis.models.ltx_import import MAX_PROMPT_TOKENS, PROMPT, import_ltx
from visavis.models.pipeline import RestPipeline

CHANNELS, TEXT_CHANNELS = 16, 24


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random LTX-Video; its transformer is saved in several shards."""
    folder = tmp_path_factory.mktemp("ltx")
    torch.manual_seed(0)
    transformer: Any = LTXVideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=TEXT_CHANNELS,
    )
    transformer.save_pretrained(folder / "transformer", max_shard_size="60KB")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    vae: Any = AutoencoderKLLTXVideo(
        latent_channels=CHANNELS,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    vae.save_pretrained(folder / "vae")
    return folder


def shared_weights(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        weights |= load_file(path)
    return weights


def test_shared_weights_are_loaded_and_audio_parts_new(source: Path, tmp_path: Path) -> None:
    prompt = torch.randn(1, 5, TEXT_CHANNELS)
    imported = import_ltx(source, tmp_path / "model", prompt_embedding=prompt, preset_name="tiny", dtype=torch.float32)
    assert imported.prompt == "given"

    loaded = load_part(str(tmp_path / "model"), "transformer", "cpu", "float32")
    assert isinstance(loaded.module, A2VTransformer)
    ours, theirs = loaded.module.state_dict(), shared_weights(source / "transformer")
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert set(ours) - set(theirs) == {*imported.initialised, "prompt_embedding"}
    assert torch.equal(ours["prompt_embedding"], prompt)
    # Random, not zero: the paper initialises the new modules randomly (C.4).
    weights = [ours[name] for name in imported.initialised if name.endswith("to_out.0.weight")]
    assert len(weights) == 2
    assert all(weight.std() > 0.01 for weight in weights)

    vae = load_part(str(tmp_path / "model"), "vae", "cpu", "float32").module.state_dict()
    assert all(torch.equal(vae[name], tensor) for name, tensor in shared_weights(source / "vae").items())
    assert loaded.identity.random_weights


def test_the_imported_model_renders(source: Path, tmp_path: Path) -> None:
    import_ltx(source, tmp_path / "model", preset_name="tiny")
    pipeline = RestPipeline.from_pretrained(tmp_path / "model", device="cpu", dtype="float32")
    portrait = np.full((64, 64, 3), 128, np.uint8)
    clip = pipeline(portrait, np.zeros(16_000, np.float32))
    assert clip.pictures_FHW3.shape == (25, 64, 64, 3)
    assert clip.video_latents_THWC.isfinite().all()


def test_the_prompt_is_encoded_where_the_source_can(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ltx"
    folder.mkdir()
    for part in ("transformer", "vae"):
        (folder / part).symlink_to(source / part)
    words = list(dict.fromkeys(PROMPT.replace(",", " , ").split()))
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<unk>", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        folder / "tokenizer"
    )
    torch.manual_seed(1)
    config = T5Config(vocab_size=len(vocabulary), d_model=TEXT_CHANNELS, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    encoder = T5EncoderModel(config).eval()
    encoder.save_pretrained(folder / "text_encoder")

    imported = import_ltx(folder, tmp_path / "model", preset_name="tiny", dtype=torch.float32)
    assert imported.prompt == "encoded"
    tokens = [vocabulary[word] for word in PROMPT.replace(",", " , ").split()]
    padded = torch.tensor([tokens + [0] * (MAX_PROMPT_TOKENS - len(tokens))])
    with torch.no_grad():
        expected = encoder(padded).last_hidden_state[:, : len(tokens)]
    transformer = load_part(str(tmp_path / "model"), "transformer", "cpu", "float32").module
    torch.testing.assert_close(transformer.state_dict()["prompt_embedding"], expected, atol=1e-5, rtol=1e-5)


def test_what_is_not_ltx_video_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing"):
        import_ltx(tmp_path / "nowhere", tmp_path / "model", preset_name="tiny")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ValueError, match="not empty"):
        import_ltx(source, tmp_path / "full", preset_name="tiny")
    with pytest.raises(ValueError, match="prompt embedding"):
        import_ltx(source, tmp_path / "model", prompt_embedding=torch.zeros(1, 3, 5), preset_name="tiny")
    for name, value, message in (
        ("patch_size", 2, "patch_size"),
        ("num_layers", 3, "lacks"),
    ):
        broken = tmp_path / name
        (broken / "transformer").mkdir(parents=True)
        for path in (source / "transformer").iterdir():
            (broken / "transformer" / path.name).write_bytes(path.read_bytes())
        config = json.loads((source / "transformer" / "config.json").read_text()) | {name: value}
        (broken / "transformer" / "config.json").write_text(json.dumps(config))
        (broken / "vae").symlink_to(source / "vae")
        with pytest.raises(ValueError, match=message):
            import_ltx(broken, tmp_path / "model", preset_name="tiny")
    assert not (tmp_path / "model").exists()
