"""Measures a SpeechAE on speech of held-out voices.

F frames, W window, X feature channels, L hidden states, T latent frames
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visavis.evaluation.errors import EvaluationError
from visavis.evaluation.explained_variance import ExplainedVariance
from visavis.evaluation.linear_probe import probe
from visavis.evaluation.report import Measure
from visavis.models.speech_ae import TIME_COMPRESSION, SpeechAE
from visavis.models.speech_encoder import SpeechEncoder
from visavis.models.speech_features import CHUNK_SAMPLES, FRAME_STATES, LOOKAHEAD_SAMPLES, clip_features
from visavis.models.whisper import WhisperFeatures
from visavis.training.speech.states_cache import CachedClip

EXPLAINED_BAR = 0.8
PROBE_BAR = 0.03
# A live session computes Whisper one window at a time, a clip several at once: rounding differs, nothing else.
_LIVE_BAR = 1e-2


@dataclass(frozen=True, slots=True)
class ProbeSamples:
    """One row for each latent frame after the first: the jaw in its 8 frames, and what it is to be read from."""

    # the 24 different states that the windows of the 8 frames hold, [M, 24 X]
    features: Tensor
    # [M, 2 D]
    latents: Tensor
    # [M, 8]
    jaw: Tensor
    # [M]
    clips: Tensor


@torch.no_grad()
def explained_variance(clips: Iterable[CachedClip], speech_ae: SpeechAE, hidden_states: int) -> list[Measure]:
    """Of the features as Whisper gives them; all together, each hidden state, each voice.

    The mean over channels counts all 1,920 the same, also those that hardly move: harder, and no bar.
    """
    everything = ExplainedVariance(speech_ae.feature_dim)
    voices: dict[str, ExplainedVariance] = {}
    for clip in clips:
        features_BFWX = clip.features()[None]
        rebuilt_BFWX = speech_ae.decode(speech_ae.encode(features_BFWX))
        voice = voices.setdefault(clip.voice or "silence", ExplainedVariance(speech_ae.feature_dim))
        for counted in (everything, voice):
            counted.add(features_BFWX, rebuilt_BFWX)
    if not voices:
        raise EvaluationError("there is no clip to measure")
    return [
        Measure("explained_variance", everything.overall(), lowest=EXPLAINED_BAR),
        *(
            Measure(f"explained_variance_state_{number}", share)
            for number, share in enumerate(everything.of_groups(hidden_states))
        ),
        Measure("explained_variance_channel_mean", everything.channel_mean()),
        *(Measure(f"explained_variance_{name}", voices[name].overall()) for name in sorted(voices)),
    ]


def jaw_probe(known: ProbeSamples, judged: ProbeSamples) -> list[Measure]:
    """How well a linear map reads the jaw's opening from the features and from the latents, fitted on `known`."""
    if not bool(known.jaw.isfinite().all() and judged.jaw.isfinite().all()):
        return [Measure("jaw_probe_r2_lost", None, highest=PROBE_BAR, why_not="only rendered clips know the jaw")]
    raw = probe(known.features, known.jaw, known.clips, judged.features, judged.jaw)
    latent = probe(known.latents, known.jaw, known.clips, judged.latents, judged.jaw)
    return [
        Measure("jaw_probe_r2_features", raw.r2),
        Measure("jaw_probe_r2_latents", latent.r2),
        Measure("jaw_probe_r2_lost", raw.r2 - latent.r2, highest=PROBE_BAR),
    ]


@torch.no_grad()
def probe_samples(clips: Sequence[CachedClip], speech_ae: SpeechAE) -> ProbeSamples:
    """The samples of these clips. Raises EvaluationError for no clips."""
    if not clips:
        raise EvaluationError("there is no clip to probe")
    features, latents, jaws, numbers = [], [], [], []
    for number, clip in enumerate(clips):
        features_FWX = clip.features()
        latents.append(speech_ae.encode(features_FWX[None])[0, 1:].flatten(1))
        features.append(_states_of_latents(features_FWX[1:]))
        jaws.append(clip.jaw_F[1:].unflatten(0, (-1, TIME_COMPRESSION)))
        numbers.append(torch.full((len(jaws[-1]),), number))
    return ProbeSamples(torch.cat(features), torch.cat(latents), torch.cat(jaws), torch.cat(numbers))


@torch.no_grad()
def live_minus_whole(samples_S: Tensor, whisper: WhisperFeatures, speech_ae: SpeechAE) -> float:
    """The largest difference between the latents of a live session and those of the whole clip."""
    encoder = SpeechEncoder(whisper, speech_ae)
    state, parts = encoder.initial_state(), []
    for start in range(0, len(samples_S), CHUNK_SAMPLES):
        end = start + CHUNK_SAMPLES
        latents_TWD, state = encoder.encode_chunk(samples_S[start:end], samples_S[end : end + LOOKAHEAD_SAMPLES], state)
        parts.append(latents_TWD)
    whole_BTWD = speech_ae.encode(clip_features(samples_S, whisper)[None])
    return float((torch.cat(parts) - whole_BTWD[0, 1:]).abs().max())


def live_measure(differences: Sequence[float]) -> Measure:
    """Of the clips that were listened to live. Raises EvaluationError for none."""
    if not differences:
        raise EvaluationError("there is no clip to listen to")
    return Measure("live_minus_whole", max(differences), highest=_LIVE_BAR)


def _states_of_latents(features_FWX: Tensor) -> Tensor:
    """[8 T, 10, X] -> [T, 24 X]: the first frame's window, then what each further frame adds to it."""
    frames_TFWX = features_FWX.unflatten(0, (-1, TIME_COMPRESSION))
    added = frames_TFWX[:, 1:, -FRAME_STATES:].flatten(1)
    return torch.cat([frames_TFWX[:, 0].flatten(1), added], dim=1)
