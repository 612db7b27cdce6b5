"""A long stream whose first and last utterance are the same: what has changed between them.

S samples, F frames of an utterance
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from visavis.contract import CHUNK_SAMPLES, CHUNK_SECONDS
from visavis.evaluation.colour import colour_distance
from visavis.evaluation.errors import EvaluationError
from visavis.evaluation.estimate import Estimate, Rows, defined, estimate, mean_over_clips, ratio_of_sums
from visavis.evaluation.judges import Judges, SeenClip, look
from visavis.evaluation.lip_motion import lip_gap, moments_at_lag
from visavis.evaluation.portraits import Portraits
from visavis.evaluation.report import Measure
from visavis.evaluation.talkers import SAMPLES_PER_FRAME, Talker
from visavis.training.data.clips import Clip

SHARE_BAR: Final = 0.05

Pictures = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StreamEnds:
    """The frames of the first and of the last utterance of a stream, [F, H, W, 3] both."""

    first_FHW3: Pictures
    last_FHW3: Pictures


def long_speech(utterance_S: Samples, others: Sequence[Samples], seconds: float) -> Samples:
    """The utterance, others again and again, and the utterance; all of it whole chunks, about `seconds` long.

    Raises ValueError where there is no time or nothing to say between the first and the last.
    """
    utterance_S = _whole_chunks(utterance_S)
    wanted = round(seconds / CHUNK_SECONDS) * CHUNK_SAMPLES
    between = wanted - 2 * len(utterance_S)
    if between <= 0 or not any(len(other) for other in others):
        raise ValueError(f"a stream of {seconds:g} s has no room between the first utterance and the last")
    parts, length = [], 0
    for other in cycle(others):
        if length >= between:
            break
        parts.append(_whole_chunks(other))
        length += len(parts[-1])
    return np.concatenate([utterance_S, np.concatenate(parts)[:between], utterance_S])


def stream_ends(talker: Talker, clip: Clip, speech_S: Samples, seed: int) -> StreamEnds:
    """Streams a portrait with the speech, and keeps the frames of the clip's own utterance at both ends."""
    frames, total = len(clip.samples_S) // SAMPLES_PER_FRAME, len(speech_S) // SAMPLES_PER_FRAME
    last_starts = total - len(_whole_chunks(clip.samples_S)) // SAMPLES_PER_FRAME
    first, last = [], []
    for number, picture in enumerate(_pictures(talker, clip, speech_S, seed)):
        if number < frames:
            first.append(picture)
        elif last_starts <= number < last_starts + frames:
            last.append(picture)
    if len(first) != frames or len(last) != frames:
        found = f"{len(first)} and {len(last)} of {frames} frames"
        raise EvaluationError(f"the stream of clip {clip.key} broke off: {found}")
    return StreamEnds(np.stack(first), np.stack(last))


@dataclass(slots=True)
class StreamMeasures:
    """Collects sessions."""

    judges: Judges
    portraits: Portraits | None
    _identity: list[tuple[float, float]] = field(default_factory=list)
    _lips: list[tuple[float, ...]] = field(default_factory=list)
    _detail: list[tuple[float, float]] = field(default_factory=list)
    _colour_changes: list[float] = field(default_factory=list)
    _colour_differences: list[float] = field(default_factory=list)

    def add(self, clip: Clip, ends: StreamEnds) -> None:
        """One session with the portrait and the utterance of `clip`."""
        truth_FHW3 = clip.frames_FHW3[1 : 1 + len(ends.first_FHW3)]
        first, last = look(ends.first_FHW3, self.judges), look(ends.last_FHW3, self.judges)
        self._detail.append((float(last.sharpness_F.mean()), float(first.sharpness_F.mean())))
        self._add_colour(ends, first, last)
        if first.faces is not None and last.faces is not None and self.judges.faces is not None:
            truth_F = lip_gap(self.judges.faces.faces(truth_FHW3))
            moments = [moments_at_lag(truth_F, lip_gap(seen), 0) for seen in (last.faces, first.faces)]
            self._lips.append(tuple(x for m in moments for x in (m.covariance, m.variance, m.other_variance)))
        if self.portraits is not None and first.embeddings_FD is not None and last.embeddings_FD is not None:
            own = self.portraits.cosines
            first_F, last_F = own(first.embeddings_FD, clip.key), own(last.embeddings_FD, clip.key)
            self._identity.append((float(last_F.mean()), float(first_F.mean())))

    def results(self) -> list[Measure]:
        """The last utterance over the first; 1 is no change."""
        if not self._detail:
            raise EvaluationError("no session was streamed")
        why = self.judges.why_no_faces if self.judges.faces is None else "no face was found"
        still = "the lips of the first utterance do not follow" if self._lips else why
        no_embedder = self.judges.why_no_embedder if self.judges.embedder is None else why
        return [
            _kept("stream_identity_ratio", _estimate(self._identity, ratio_of_sums), no_embedder),
            _kept("stream_lip_gap_correlation_ratio", _estimate(self._lips, _correlation_ratio), still),
            Measure("stream_lip_gap_correlation_first", _estimate(self._lips, _first_correlation), why_not=why),
            Measure("stream_lip_gap_correlation_last", _estimate(self._lips, _last_correlation), why_not=why),
            _kept(
                "stream_sharpness_ratio",
                defined(estimate(self._detail, ratio_of_sums)),
                "the first utterance is all flat",
            ),
            Measure("stream_colour_change", mean_over_clips(self._colour_changes), highest=SHARE_BAR),
            Measure("stream_colour_difference", mean_over_clips(self._colour_differences)),
        ]

    def _add_colour(self, ends: StreamEnds, first: SeenClip, last: SeenClip) -> None:
        """As a share of the mean colour, and as people see it."""
        means = [frames.mean(axis=(0, 1, 2), dtype=np.float64) for frames in (ends.first_FHW3, ends.last_FHW3)]
        self._colour_changes.append(float(np.linalg.norm(means[1] - means[0]) / np.linalg.norm(means[0])))
        seen = [each.colours_F3.mean(axis=0) for each in (first, last)]
        self._colour_differences.append(float(colour_distance(seen[1][None], seen[0])[0]))


def _pictures(talker: Talker, clip: Clip, speech_S: Samples, seed: int) -> Iterator[Pictures]:
    for some_FHW3 in talker.stream(clip.frames_FHW3[0], speech_S, seed):
        yield from some_FHW3


def _whole_chunks(samples_S: Samples) -> Samples:
    return np.pad(samples_S, (0, -len(samples_S) % CHUNK_SAMPLES))


def _kept(name: str, value: Estimate | None, why_not: str) -> Measure:
    return Measure(name, value, lowest=1 - SHARE_BAR, highest=1 + SHARE_BAR, why_not=why_not)


def _estimate(rows: Sequence[tuple[float, ...]], statistic: Any) -> Estimate | None:
    return defined(estimate(rows, statistic)) if rows else None


def _last_correlation(rows: Rows) -> Rows:
    return _correlation(rows[..., :3])


def _first_correlation(rows: Rows) -> Rows:
    return _correlation(rows[..., 3:])


def _correlation_ratio(rows: Rows) -> Rows:
    last, first = _last_correlation(rows), _first_correlation(rows)
    return np.where(first != 0, last / np.where(first != 0, first, 1.0), np.nan)


def _correlation(rows: Rows) -> Rows:
    covariance, one, other = np.moveaxis(rows.sum(axis=-2), -1, 0)
    power = np.sqrt(one * other)
    correlation: Rows = np.where(power > 0, covariance / np.where(power > 0, power, 1.0), 0.0)
    return correlation
