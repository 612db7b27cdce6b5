"""Makes a model folder from LTX-Video's weights: what the two share is loaded, the audio parts are new (paper C.4).

The ID-Context cache has no parameters of its own, so nothing of it needs initialising. SpeechAE and audio attention are
initialised randomly, as the paper does; until they are trained, pictures do not follow the speech.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file

from visavis.models import checkpoints
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.flow_matching import pinned_scheduler
from visavis.models.ltx_video_vae import LTXVideoVAE
from visavis.models.pipeline import RestPipeline
from visavis.models.presets import Arguments, Preset, load_preset

# The paper's prompt for every clip (section C.6.1).
PROMPT: Final = "A person is speaking, and his head moves rhythmically in a small range to follow the sound"
MAX_PROMPT_TOKENS: Final = 128

_WEIGHTS: Final = "diffusion_pytorch_model.safetensors"
# Arguments of LTXVideoTransformer3DModel that A2VTransformer has too.
_SHARED_ARGUMENTS: Final = (
    "in_channels",
    "out_channels",
    "num_attention_heads",
    "attention_head_dim",
    "cross_attention_dim",
    "num_layers",
    "activation_fn",
    "norm_eps",
    "caption_channels",
    "attention_bias",
    "attention_out_bias",
)
# Those it has no choice in.
_FIXED_ARGUMENTS: Final[Arguments] = {
    "patch_size": 1,
    "patch_size_t": 1,
    "qk_norm": "rms_norm_across_heads",
    "norm_elementwise_affine": False,
}


@dataclass(frozen=True, slots=True)
class ImportedModel:
    """What an import did: names of the transformer's tensors."""

    folder: Path
    loaded: tuple[str, ...]
    # Randomly initialised, to be trained.
    initialised: tuple[str, ...]
    # "given", "encoded" by the source's own text encoder, or "zero".
    prompt: str


def import_ltx(
    source: Path,
    destination: Path,
    *,
    prompt_embedding: torch.Tensor | None = None,
    preset_name: str = "base",
    dtype: torch.dtype = torch.bfloat16,
) -> ImportedModel:
    """Writes a model folder with the transformer and the VAE of an LTX-Video folder in diffusers' layout.

    Args:
        source: has `transformer` and `vae` (safetensors, sharded or not); with `text_encoder` and `tokenizer` the
        paper's
            prompt is encoded.
        destination: must not exist yet, or be empty.
        prompt_embedding: T5 embedding `[1, tokens, channels]` of the prompt, instead of the source's text encoder. With
            neither, the prompt is one zero token.
        preset_name: gives picture size, sampling and the speech parts.
        dtype: in which transformer and VAE are stored.

    Raises:
        ValueError: the source is no LTX-Video folder, does not fit, or the destination is not empty.
    """
    if destination.exists() and any(destination.iterdir()):
        raise ValueError(f"{destination.name} is not empty: choose a new folder")
    preset = load_preset(preset_name)
    how, prompt = _prompt(source, prompt_embedding)
    transformer, initialised = _transformer(source / "transformer", preset, prompt, dtype)
    vae: LTXVideoVAE = LTXVideoVAE.from_pretrained(
        _existing(source / "vae"), torch_dtype=dtype, use_safetensors=True, local_files_only=True
    )
    if vae.latents_mean.shape[0] != transformer.in_channels:
        raise ValueError(f"the VAE has {vae.latents_mean.shape[0]} channels, the transformer {transformer.in_channels}")
    pipeline = RestPipeline(
        transformer,
        vae,
        checkpoints.load_speech_ae(preset, None),
        checkpoints.load_whisper(preset, None),
        pinned_scheduler(preset.sampling.shift),
        model_name=destination.name,
        picture_size=preset.picture_size,
        steps=preset.sampling.steps,
        guidance_scale=preset.sampling.guidance_scale,
        cache_source=preset.sampling.cache_source,
        # The audio parts are; nobody should take this for a trained model.
        random_weights=True,
    )
    pipeline.save_pretrained(destination)
    loaded = tuple(name for name in transformer.state_dict() if name not in initialised)
    return ImportedModel(destination, loaded, initialised, how)


def _transformer(
    folder: Path, preset: Preset, prompt_1ND: torch.Tensor | None, dtype: torch.dtype
) -> tuple[A2VTransformer, tuple[str, ...]]:
    """Our transformer with the folder's weights, and the names of the tensors that were not in them."""
    config = _read_json(_existing(folder) / "config.json")
    for name, value in _FIXED_ARGUMENTS.items():
        if config.get(name, value) != value:
            raise ValueError(f"only {name}={value} is known in LTX-Video's transformer, got {config[name]}")
    arguments: Arguments = {name: config[name] for name in _SHARED_ARGUMENTS if name in config}
    prompt_1ND = torch.zeros(1, 1, config["caption_channels"]) if prompt_1ND is None else prompt_1ND
    if prompt_1ND.ndim != 3 or prompt_1ND.shape[0] != 1 or prompt_1ND.shape[2] != config["caption_channels"]:
        raise ValueError(f"the prompt embedding must be [1, tokens, {config['caption_channels']}]")
    arguments |= {
        "audio_channels": preset.transformer["audio_channels"],
        "chunk_latent_frames": preset.transformer["chunk_latent_frames"],
        "prompt_tokens": prompt_1ND.shape[1],
    }
    transformer = checkpoints.seeded(A2VTransformer, arguments, "transformer", dtype)
    missing, unexpected = transformer.load_state_dict(_read_weights(folder), strict=False)
    transformer.prompt_embedding.copy_(prompt_1ND)
    new = tuple(name for name in missing if ".attn3." in name)
    lost = [name for name in missing if name not in new and name != "prompt_embedding"]
    if lost or unexpected:
        raise ValueError(f"this is not LTX-Video's transformer: lacks {lost[:3]}, has unknown {unexpected[:3]}")
    return transformer, new


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    index = folder / f"{_WEIGHTS}.index.json"
    files = sorted(set(_read_json(index)["weight_map"].values())) if index.exists() else [_WEIGHTS]
    weights: dict[str, torch.Tensor] = {}
    for name in files:
        # A name from a file that somebody else wrote: only its last part counts.
        weights |= load_file(_existing(folder / Path(name).name))
    return weights


def _prompt(source: Path, given: torch.Tensor | None) -> tuple[str, torch.Tensor | None]:
    if given is not None:
        return "given", given
    if (source / "text_encoder").is_dir() and (source / "tokenizer").is_dir():
        return "encoded", encode_prompt(source, PROMPT)
    return "zero", None


@torch.no_grad()
def encode_prompt(source: Path, prompt: str) -> torch.Tensor:
    """The T5 embedding `[1, tokens, channels]` of a prompt, as diffusers' `LTXPipeline` makes it, padding left away."""
    from transformers import AutoTokenizer, T5EncoderModel

    tokenizer = AutoTokenizer.from_pretrained(source / "tokenizer", local_files_only=True)
    encoder = T5EncoderModel.from_pretrained(source / "text_encoder", local_files_only=True, use_safetensors=True)
    tokens = tokenizer(prompt, padding="max_length", max_length=MAX_PROMPT_TOKENS, truncation=True, return_tensors="pt")
    # LTXPipeline encodes the padding too, and masks it only in the transformer.
    embedding_1ND: torch.Tensor = encoder(tokens.input_ids).last_hidden_state
    return embedding_1ND[:, tokens.attention_mask[0].bool()]


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ValueError(
            f"{path.parent.name}/{path.name} is missing: the source must be LTX-Video in diffusers' layout"
        )
    return path


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_existing(path).read_text())
    return content
