"""The two ways in which a model samples, and what the fast one needs.

`standard` is the paper's: the preset's steps, two branches of guidance. `fast` has guidance and steps distilled into an
adapter of the transformer: its steps, one branch. The adapter is the folder `fast` beside the folder `transformer`, in
weights/PRESET or in a model folder.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, get_args

from visavis.models.a2v_dit import A2VTransformer
from visavis.models.adapter import CONFIG_FILE, adapter_fingerprint, merge_adapter, read_adapter, weights_sha256
from visavis.models.generation import SamplingSettings

Sampling = Literal["standard", "fast"]
SAMPLINGS: Final[tuple[Sampling, ...]] = get_args(Sampling)

FAST_FOLDER: Final = "fast"
_SHOWN_DIGITS: Final = 16


def fast_settings(standard: SamplingSettings) -> SamplingSettings:
    """Half the steps and one branch: what is distilled, and what weights that were never trained are measured with."""
    return replace(standard, steps=max(1, standard.steps // 2), guidance_scale=1.0)


def checked_sampling(sampling: str) -> Sampling:
    """Raises `ValueError` for a way of sampling that there is not."""
    for known in SAMPLINGS:
        if sampling == known:
            return known
    raise ValueError(f"the sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}")


def make_fast(
    transformer: A2VTransformer, standard: SamplingSettings, weights: Path | None, *, random_weights: bool
) -> tuple[SamplingSettings, str]:
    """Merges the adapter in `weights` into the transformer loaded from there, before it is fused.

    Gives how to sample, and the name of this way of sampling (`ModelIdentity.sampling`): two adapters have different
    ones. A transformer that was never trained needs no adapter. Raises `ValueError` for a trained one without, or with
    the adapter of another one.
    """
    folder = None if weights is None else weights / FAST_FOLDER
    if weights is None or folder is None or not (folder / CONFIG_FILE).is_file():
        if random_weights:
            return fast_settings(standard), "fast"
        raise ValueError(f"this model has no adapter for fast sampling ({FAST_FOLDER}): train one, or sample standard")
    adapter = read_adapter(folder)
    if adapter.student_sha256 != weights_sha256(weights / "transformer"):
        raise ValueError(f"the adapter in {folder} belongs to another transformer than the one beside it")
    merge_adapter(transformer, adapter.tensors)
    return adapter.sampling, f"fast:{adapter_fingerprint(folder)[:_SHOWN_DIGITS]}"
