"""The weights that are measured: of a preset, of a model folder, or of a folder with one part alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from visavis.configs import config_names
from visavis.evaluation.errors import EvaluationError
from visavis.models.checkpoints import VAE_CLASSES, load_speech_ae, load_vae, load_whisper, read_settings
from visavis.models.presets import load_preset
from visavis.models.speech_ae import SpeechAE
from visavis.models.video_autoencoder import VideoAutoencoder
from visavis.models.whisper import WhisperFeatures

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class TestedPart(Generic[Part]):
    """One part in float32, ready to run."""

    module: Part
    # as the user named it
    name: str
    # SHA-256 (hex) over names, shapes and values of its weights, in float32
    fingerprint: str


def tested_vae(model: str) -> TestedPart[VideoAutoencoder]:
    """Raises EvaluationError when there is no such model."""
    module = _load(model, VAE_CLASSES.values(), lambda: load_vae(*read_settings(model), torch.float32))
    return TestedPart(module, model, weights_fingerprint(module))


def tested_speech_ae(model: str) -> TestedPart[SpeechAE]:
    """Raises EvaluationError when there is no such model."""
    module = _load(model, [SpeechAE], lambda: load_speech_ae(*read_settings(model)))
    return TestedPart(module, model, weights_fingerprint(module))


def whisper_of(model: str) -> WhisperFeatures:
    """The encoder that a model's SpeechAE listens to; `mini`'s where a folder holds the SpeechAE alone."""
    if _is_part(Path(model)):
        return load_whisper(load_preset("mini"), None)
    return load_whisper(*read_settings(model))


def weights_fingerprint(module: torch.nn.Module) -> str:
    """SHA-256 (hex) over names, shapes and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _load(model: str, kinds: Any, from_model: Callable[[], Any]) -> Any:
    folder = Path(model)
    try:
        module = _part(folder, kinds) if _is_part(folder) else from_model()
    except (OSError, ValueError) as error:
        raise EvaluationError(f"cannot load {model}: {error}") from error
    return module.float().eval().requires_grad_(False)


def _is_part(folder: Path) -> bool:
    return str(folder) not in config_names() and (folder / "config.json").is_file()


def _part(folder: Path, kinds: Any) -> Any:
    for kind in kinds:
        if kind.load_config(folder)["_class_name"] == kind.__name__:
            return kind.from_pretrained(
                folder, torch_dtype=torch.float32, local_files_only=True, low_cpu_mem_usage=False
            )
    raise ValueError(f"it is no {' or '.join(kind.__name__ for kind in kinds)}")
