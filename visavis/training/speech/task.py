"""What `visavis train speech-ae` learns: to give Whisper's states back from few numbers.

B batch, N chunks in a row, P = 56 states a chunk, L hidden states, X = L D channels
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from visavis.evaluation.explained_variance import ExplainedVariance
from visavis.models.speech_ae import WINDOW, SpeechAE
from visavis.training.errors import TrainingError
from visavis.training.plan import Phase
from visavis.training.speech.principal_start import start_from_principal_components
from visavis.training.speech.states_cache import CachedStates
from visavis.training.task import ParameterGroup

# For the statistics and the start: 38 minutes of speech, 1 GB.
_START_CHUNKS = 2_400
# From 0, features as they are (three fifths of their variance is the last hidden state's), to 1, all states the same.
_EQUALITY = 0.5
_EVALUATION_CLIPS = 24


@dataclass(frozen=True, slots=True)
class SpeechBatch:
    """States [B, N, 56, X] and the places of the window at which the reconstruction is compared."""

    states_BNPX: Tensor
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """Of a phase: clips a batch, chunks in a row of each, and how many of the window's 10 places are compared.

    Projecting to 1,920 channels is most of the work, so each batch draws some places instead of taking all.
    """

    batch: int
    chunks: int
    places: int


class SpeechAETask:
    """Fits `visavis.training.task.Task`."""

    def __init__(self, model: SpeechAE, training: CachedStates, held_out: CachedStates) -> None:
        self._model = model
        self._training, self._held_out = training, held_out

    @property
    def model(self) -> SpeechAE:
        return self._model

    def enter_phase(self, phase: Phase) -> None:
        """A model that knows no features yet gets their statistics, and starts from principal components."""
        if bool((self._model.feature_std == 1).all()):
            states_NPLD = self._some_chunks()
            mean_X, std_X = feature_statistics(states_NPLD)
            self._model.set_feature_statistics(mean_X, std_X)
            start_from_principal_components(self._model, states_NPLD.flatten(2))

    def begin_phase(self, phase: Phase) -> Sequence[ParameterGroup]:
        _options(phase)
        return [ParameterGroup(list(self._model.parameters()))]

    def batch(self, phase: Phase, chance: np.random.Generator) -> SpeechBatch:
        """Segments of clips drawn at random; the silence before a clip counts as its chunk 0."""
        options = _options(phase)
        segments = []
        for index in chance.integers(len(self._training), size=options.batch):
            states_NPLD = self._training[int(index)].states_NPLD
            if len(states_NPLD) < options.chunks:
                raise TrainingError(f"clips have {len(states_NPLD)} chunks: the plan asks for {options.chunks}")
            start = int(chance.integers(len(states_NPLD) - options.chunks + 1))
            segments.append(states_NPLD[start : start + options.chunks].flatten(2))
        places = sorted(chance.choice(WINDOW, size=options.places, replace=False).tolist())
        return SpeechBatch(torch.stack(segments).float(), tuple(places))

    def loss(self, forward: nn.Module, batch: SpeechBatch, device: torch.device) -> Mapping[str, Tensor]:
        """The mean square error of the normalised features: the share of variance that is lost."""
        rebuilt_BFWX, wanted_BFWX = forward(batch.states_BNPX.to(device), batch.places)
        return {"loss": functional.mse_loss(rebuilt_BFWX.float(), wanted_BFWX.float())}

    def evaluate(self, averaged: nn.Module, phase: Phase, device: torch.device, samples: Path) -> Mapping[str, float]:
        """Explained variance on clips of held-out voices. There is nothing to look at, so no picture is drawn."""
        assert isinstance(averaged, SpeechAE)
        clips = self._held_out.spread(_EVALUATION_CLIPS)
        variance = ExplainedVariance(averaged.feature_dim)
        for clip in clips:
            features_BFWX = clip.features()[None].to(device)
            variance.add(features_BFWX, averaged.decode(averaged.encode(features_BFWX)))
        layers = variance.of_groups(clips[0].states_NPLD.shape[2])
        named = {f"explained_variance_layer_{layer}": share for layer, share in enumerate(layers)}
        return {
            "explained_variance": variance.overall(),
            "explained_variance_channel_mean": variance.channel_mean(),
            **named,
        }

    def _some_chunks(self) -> Tensor:
        chunks_a_clip = len(self._training[0].states_NPLD) - 1
        clips = self._training.spread(max(1, _START_CHUNKS // chunks_a_clip))
        return torch.cat([clip.states_NPLD[1:] for clip in clips]).float()


def feature_statistics(states_NPLD: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each channel, and by what its hidden state is divided: the root of that state's deviation; [X] both.

    Half-way between states that count the same and states as they are: measured on held-out voices, the start explains
    0.76 of the variance so, 0.74 and 0.77 at the two ends, and neither end lets the jaw be read better. Within a state
    the strong channels stay stronger than those that hardly move.
    """
    mean_LD = states_NPLD.mean(dim=(0, 1))
    deviation_L = (states_NPLD - mean_LD).square().mean(dim=(0, 1, 3)).sqrt()
    return mean_LD.flatten(), deviation_L.pow(_EQUALITY)[:, None].expand_as(mean_LD).flatten()


def _options(phase: Phase) -> SpeechOptions:
    """Raises TrainingError for options that mean nothing here."""
    try:
        options = SpeechOptions(**phase.options)
    except TypeError as error:
        raise TrainingError(f"phase {phase.name}: options of a SpeechAE are batch, chunks and places") from error
    if min(options.batch, options.chunks, options.places) < 1 or options.places > WINDOW:
        raise TrainingError(f"phase {phase.name}: batch and chunks are at least 1, places 1 to {WINDOW}")
    return options
