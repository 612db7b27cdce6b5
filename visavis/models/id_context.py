"""The ID-Context cache (paper section 3.2, Eq. 7 to 12, and B.1): what the tokens of a chunk attend to.

Legend: L blocks, R rows of the batch (the branches of guidance), N tokens, D width, K tokens of the whole window.

The ID latent attends only to itself, at timestep 0 and without audio, so its keys and values (`Sink`) belong to the
avatar. Those of the preceding chunk (`Context`) stand in slots 1 to 3 of the window, those of the current chunk in 4
to 6. Keys are stored turned to the slot in which they are read: a chunk's keys are turned once more, from their
normalised form, when it becomes context. Sink and context are never written after they are made, so an older state
stays good to go back to.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch

from visavis.models.attention import attend_heads
from visavis.models.rotary import rotate, rotation

# What of the cache a chunk sees. The two that lack something are for ablations (paper section 4.3): without the sink
# the first chunk alone sees the ID latent, without context no chunk sees the one before it.
Cache = Literal["full", "no_sink", "no_context"]


@dataclass(frozen=True, slots=True)
class Sink:
    """Keys (turned to slot 0) and values of an ID latent, per block: `[L, N, D]`."""

    keys_LND: torch.Tensor
    values_LND: torch.Tensor


@dataclass(frozen=True, slots=True)
class Context:
    """Keys (turned to the context's slots) and values of the preceding chunk, per block and row: `[L, R, N, D]`."""

    keys_LRND: torch.Tensor
    values_LRND: torch.Tensor


@dataclass(frozen=True, slots=True)
class SlotRotations:
    """Rotations of the three parts of the window, complex `[N, D / 2]`."""

    sink_NP: torch.Tensor
    context_NP: torch.Tensor
    current_NP: torch.Tensor


def slot_rotations(
    chunk_latent_frames: int, rows: int, columns: int, width: int, device: torch.device
) -> SlotRotations:
    """Slot 0 for the sink, then the context's latent frames, then the current chunk's: 0, 1-3, 4-6."""
    slots = (range(1), range(1, 1 + chunk_latent_frames), range(1 + chunk_latent_frames, 1 + 2 * chunk_latent_frames))
    return SlotRotations(*(rotation(part, rows, columns, width).to(device) for part in slots))


class IsolatedMemory:
    """Tokens attend to each other and to nothing else; all keys and values are kept in `keys` and `values`.

    For the ID latent, and for a whole clip in full attention. Safe for gradients.
    """

    def __init__(self, rotation_NP: torch.Tensor) -> None:
        self._rotation_N1P = rotation_NP[:, None]
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def attend(self, block: int, queries_keys_RN2D: torch.Tensor, values_RND: torch.Tensor, heads: int) -> torch.Tensor:
        """Full attention among the given tokens."""
        queries_RND, keys_RND = rotate(queries_keys_RN2D, self._rotation_N1P).unbind(2)
        self._keep(block, keys_RND, values_RND)
        return attend_heads(queries_RND, keys_RND, values_RND, heads)

    def remember(self, block: int, keys_RND: torch.Tensor, values_RND: torch.Tensor) -> None:
        """Keeps turned keys and values."""
        self._keep(block, rotate(keys_RND, self._rotation_N1P[:, 0]), values_RND)

    def _keep(self, block: int, keys_RND: torch.Tensor, values_RND: torch.Tensor) -> None:
        assert block == len(self.keys), "blocks come in order"
        self.keys.append(keys_RND)
        self.values.append(values_RND)


class Window:
    """The attention window of one chunk while it is generated: `[context | sink | current]` in one tensor per block.

    Only the current part is written during the denoising steps, so nothing is copied in between. The context stands
    in front so that a first chunk, which has none, reads the rest as it is: its context slots are masked by not being
    read. For inference only; training goes through `SequenceMemory`.
    """

    def __init__(
        self, sinks: Sequence[Sink], context: Context | None, rotations: SlotRotations, cache: Cache = "full"
    ) -> None:
        if cache == "no_context":
            context = None
        blocks, sink_tokens, width = sinks[0].keys_LND.shape
        chunk_tokens = rotations.current_NP.shape[0]
        shape = (blocks, len(sinks), 2 * chunk_tokens + sink_tokens, width)
        self._rotations = rotations
        self._keys_LRKD = sinks[0].keys_LND.new_empty(shape)
        self._values_LRKD = sinks[0].values_LND.new_empty(shape)
        self._first_visible = chunk_tokens if context is None else 0
        self._hides_sink = cache == "no_sink" and context is not None
        self._current = slice(chunk_tokens + sink_tokens, None)
        for row, sink in enumerate(sinks):
            self._keys_LRKD[:, row, chunk_tokens : self._current.start] = sink.keys_LND
            self._values_LRKD[:, row, chunk_tokens : self._current.start] = sink.values_LND
        if context is not None:
            self._keys_LRKD[:, :, :chunk_tokens] = context.keys_LRND
            self._values_LRKD[:, :, :chunk_tokens] = context.values_LRND
        self._recorded: Context | None = None

    @property
    def rows(self) -> int:
        """Rows of the batch that this window serves."""
        return self._keys_LRKD.shape[1]

    @property
    def has_context(self) -> bool:
        """False for a first chunk, which attends to less."""
        return self._first_visible == 0

    def by_first_row(self) -> list[tuple[int, Window]]:
        """As `Windows.by_first_row`."""
        return [(0, self)]

    @property
    def records(self) -> bool:
        """Whether keys and values are kept as the next chunk's context."""
        return self._recorded is not None

    def blank(self, rows: int) -> Window:
        """A window of this size for `rows` rows, with a context; what is in it is still undefined."""
        blank = copy(self)
        blocks, _, tokens, width = self._keys_LRKD.shape
        blank._keys_LRKD, blank._values_LRKD = (self._keys_LRKD.new_empty(blocks, rows, tokens, width) for _ in "kv")
        blank._first_visible, blank._recorded = 0, None
        return blank

    def copy_past_of(self, other: Window, first_row: int) -> None:
        """Takes sink and context of a window that has one, for the rows from `first_row` on."""
        assert other.has_context, "a row of a batch with contexts has one"
        rows, past = slice(first_row, first_row + other.rows), slice(self._current.start)
        self._keys_LRKD[:, rows, past] = other._keys_LRKD[:, :, past]
        self._values_LRKD[:, rows, past] = other._values_LRKD[:, :, past]

    def copy_recorded_to(self, other: Window, first_row: int) -> None:
        """Hands what was recorded in the rows from `first_row` on to a window that records."""
        rows, recorded, target = slice(first_row, first_row + other.rows), self.recorded(), other.recorded()
        target.keys_LRND.copy_(recorded.keys_LRND[:, rows])
        target.values_LRND.copy_(recorded.values_LRND[:, rows])

    def part(self, rows: slice) -> Window:
        """The window of some of the rows; what is written through it is written here."""
        part = copy(self)
        part._keys_LRKD, part._values_LRKD = self._keys_LRKD[:, rows], self._values_LRKD[:, rows]
        if self._recorded is not None:
            part._recorded = Context(self._recorded.keys_LRND[:, rows], self._recorded.values_LRND[:, rows])
        return part

    def start_recording(self) -> None:
        """From now on, keys and values are also kept as the next chunk's context."""
        blocks, rows, _, width = self._keys_LRKD.shape
        shape = (blocks, rows, self._rotations.context_NP.shape[0], width)
        self._recorded = Context(self._keys_LRKD.new_empty(shape), self._values_LRKD.new_empty(shape))

    def recorded(self) -> Context:
        """The context for the next chunk; complete when a pass has run through all blocks since `start_recording`."""
        assert self._recorded is not None, "start_recording comes first"
        return self._recorded

    def attend(self, block: int, queries_keys_RN2D: torch.Tensor, values_RND: torch.Tensor, heads: int) -> torch.Tensor:
        """Attention to sink, context and current chunk (Eq. 10 to 12)."""
        turned_RN2D = rotate(queries_keys_RN2D, self._rotations.current_NP[:, None])
        self._keys_LRKD[block, :, self._current] = turned_RN2D[:, :, 1]
        self._values_LRKD[block, :, self._current] = values_RND
        if self._recorded is not None:
            self.remember(block, queries_keys_RN2D[:, :, 1], values_RND)
        keys_RKD = self._seen(self._keys_LRKD[block])
        values_RKD = self._seen(self._values_LRKD[block])
        return attend_heads(turned_RN2D[:, :, 0], keys_RKD, values_RKD, heads)

    def _seen(self, window_RKD: torch.Tensor) -> torch.Tensor:
        if self._hides_sink:
            chunk_tokens = window_RKD.shape[1] - self._current.start
            return torch.cat([window_RKD[:, :chunk_tokens], window_RKD[:, self._current]], dim=1)
        return window_RKD[:, self._first_visible :]

    def remember(self, block: int, keys_RND: torch.Tensor, values_RND: torch.Tensor) -> None:
        """Records keys, turned to the context's slots, and values."""
        recorded = self.recorded()
        recorded.keys_LRND[block] = rotate(keys_RND, self._rotations.context_NP)
        recorded.values_LRND[block] = values_RND


class Windows:
    """The windows of several chunks, one after the other along the rows of one batch."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._windows = windows
        self._rows = [window.rows for window in windows]

    def by_first_row(self) -> list[tuple[int, Window]]:
        """Each window and the first of its rows."""
        firsts = [0, *accumulate(self._rows[:-1])]
        return list(zip(firsts, self._windows, strict=True))

    def part(self, rows: slice) -> Windows:
        """The windows of some of the rows."""
        parts, first = [], 0
        for window in self._windows:
            own = slice(max(rows.start - first, 0), max(rows.stop - first, 0))
            if own.start < min(own.stop, window.rows):
                parts.append(window.part(own))
            first += window.rows
        return Windows(parts)

    def attend(self, block: int, queries_keys_RN2D: torch.Tensor, values_RND: torch.Tensor, heads: int) -> torch.Tensor:
        """Each chunk's rows attend in their own window."""
        parts = zip(self._windows, queries_keys_RN2D.split(self._rows), values_RND.split(self._rows), strict=True)
        return torch.cat([window.attend(block, qk_RN2D, v_RND, heads) for window, qk_RN2D, v_RND in parts])

    def remember(self, block: int, keys_RND: torch.Tensor, values_RND: torch.Tensor) -> None:
        """Each window records its own rows."""
        parts = zip(self._windows, keys_RND.split(self._rows), values_RND.split(self._rows), strict=True)
        for window, window_keys_RND, window_values_RND in parts:
            window.remember(block, window_keys_RND, window_values_RND)


class SequenceMemory:
    """All chunks of a clip at once, for training: chunk i sees the sink, chunk i - 1 and itself. Safe for gradients.

    Rows are ordered by clip and chunk. With `clean`, each clip's rows begin with what contexts are made from: its clean
    chunks at timestep 0, as for the default cache, all but the last, which is nobody's context. Then come the chunks
    that velocities are wanted for; without `clean`, contexts are made from these.
    """

    def __init__(
        self,
        sink: IsolatedMemory,
        clips: int,
        chunks: int,
        rotations: SlotRotations,
        cache: Cache = "full",
        *,
        clean: bool = False,
    ) -> None:
        self._sink = sink
        self._chunks, self._clean = chunks, clean
        self._rotations = rotations
        sink_tokens, chunk_tokens = rotations.sink_NP.shape[0], rotations.current_NP.shape[0]
        visible = torch.ones(chunks, 2 * chunk_tokens + sink_tokens, dtype=torch.bool, device=rotations.sink_NP.device)
        visible[: chunks if cache == "no_context" else 1, sink_tokens : sink_tokens + chunk_tokens] = False
        if cache == "no_sink":
            visible[1:, :sink_tokens] = False
        visible_IK = torch.cat([visible[:-1], visible]) if clean else visible
        self._rows = len(visible_IK)
        self._visible_R11K = visible_IK.repeat(clips, 1)[:, None, None]

    def attend(self, block: int, queries_keys_RN2D: torch.Tensor, values_RND: torch.Tensor, heads: int) -> torch.Tensor:
        """Attention of every chunk to its own window."""
        queries_RND, keys_RND = rotate(queries_keys_RN2D, self._rotations.current_NP[:, None]).unbind(2)
        context_RND = rotate(queries_keys_RN2D[:, :, 1], self._rotations.context_NP)
        keys_RKD = self._windows(self._sink.keys[block], context_RND, keys_RND)
        values_RKD = self._windows(self._sink.values[block], values_RND, values_RND)
        return attend_heads(queries_RND, keys_RKD, values_RKD, heads, self._visible_R11K)

    def remember(self, block: int, keys_RND: torch.Tensor, values_RND: torch.Tensor) -> None:
        """Nothing outlives the pass."""

    def _windows(self, sink_BND: torch.Tensor, context_RND: torch.Tensor, current_RND: torch.Tensor) -> torch.Tensor:
        sink_RND = sink_BND[:, None].expand(-1, self._rows, -1, -1).flatten(0, 1)
        made = context_RND.unflatten(0, (-1, self._rows))
        # The first chunk's context is masked; what stands there does not matter.
        before = torch.cat([made[:, :1], made[:, : self._chunks - 1]], dim=1)
        if self._clean:
            before = torch.cat([before[:, :-1], before], dim=1)
        return torch.cat([sink_RND, before.flatten(0, 1), current_RND], dim=1)
