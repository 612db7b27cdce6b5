"""Forward passes as CUDA graphs: a pass of the `base` transformer launches some 700 kernels, a graph is one launch.

Legend: L blocks, R rows of the batch, T latent frames, H W latent rows and columns, C latent channels, D width.

A graph reads and writes the addresses that it was captured with. So all batches go through the same buffers, as large
as the largest batch, and a batch of fewer rows uses the first of them. Latents, modulation and speech are copied before
every pass; sink and context, which are far larger, only when another chunk takes the row.

All graphs are captured when the first pass with a context comes, which in a service is before the first session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING
from weakref import ref

import torch

from visavis.models.a2v_dit import Modulation
from visavis.models.attention import FoldedSpeech
from visavis.models.forward_pass import ForwardPass
from visavis.models.id_context import Window

if TYPE_CHECKING:
    from visavis.models.step_runner import StepRunner

# Computes the outputs again, from and to the same addresses.
Replay = Callable[[], None]
# Makes a replay of a function that reads and writes buffers.
Capture = Callable[[Callable[[], None]], Replay]


class GraphedRunner:
    """Implements `StepRunner` with one graph for each number of rows and kind of pass.

    Rows of first chunks, which attend to less, go to `inner` beside the others' graph; so do whole clips, and batches
    of other numbers of rows than `graphed_rows`. The host waits for nothing, once graphs are captured; a result is
    overwritten by the next pass.
    """

    def __init__(self, inner: StepRunner, graphed_rows: Iterable[int], capture: Capture) -> None:
        self._inner = inner
        self._graphed_rows = frozenset(graphed_rows)
        self._capture = capture
        # None before the first pass with a context, whose shapes they take.
        self._buffers: PassBuffers | None = None
        # By rows, whether velocities are wanted, and whether keys and values are recorded.
        self._graphs: dict[tuple[int, bool, bool], Replay] = {}

    def velocities(self, forward_pass: ForwardPass) -> torch.Tensor:
        """Implements `StepRunner`."""
        graphed, others = self._shares(forward_pass)
        if graphed is None:
            return self._inner.velocities(forward_pass)
        found_RTHWC = self._replay(graphed, wants_velocities=True)
        if others is None:
            return found_RTHWC
        shares = {True: (graphed, found_RTHWC), False: (others, self._inner.velocities(others))}
        parts = {
            share: iter(velocities_RTHWC.split([window.rows for _, window in part.windows()]))
            for share, (part, velocities_RTHWC) in shares.items()
        }
        return torch.cat([next(parts[window.has_context]) for _, window in forward_pass.windows()])

    def remember(self, forward_pass: ForwardPass) -> None:
        """Implements `StepRunner`."""
        graphed, others = self._shares(forward_pass)
        if graphed is not None:
            self._replay(graphed, wants_velocities=False)
        if others is not None:
            self._inner.remember(others)

    def _shares(self, forward_pass: ForwardPass) -> tuple[ForwardPass | None, ForwardPass | None]:
        """What goes through a graph, and what does not."""
        windows = forward_pass.windows()
        rows = sum(window.rows for _, window in windows if window.has_context)
        if rows not in self._graphed_rows:
            return None, forward_pass
        if rows == len(forward_pass.latents_RTHWC):
            return forward_pass, None
        return (
            forward_pass.of_windows(lambda window: window.has_context),
            forward_pass.of_windows(lambda window: not window.has_context),
        )

    def _replay(self, forward_pass: ForwardPass, *, wants_velocities: bool) -> torch.Tensor:
        """The velocities' buffer, which a pass that wants none leaves as it was."""
        buffers = self._buffers = self._buffers or self._captured(forward_pass)
        buffers.load(forward_pass)
        rows = len(forward_pass.latents_RTHWC)
        records = any(window.records for _, window in forward_pass.windows())
        self._graphs[rows, wants_velocities, records]()
        buffers.store_recorded(forward_pass)
        return buffers.velocities_RTHWC[:rows]

    def _captured(self, example: ForwardPass) -> PassBuffers:
        """Buffers for passes like `example`, and all graphs between them."""
        buffers = PassBuffers(example, max(self._graphed_rows))
        # The largest first: the others then find room in the memory that it took.
        for rows in sorted(self._graphed_rows, reverse=True):
            for records in (True, False):
                run = partial(self._write_velocities, buffers, buffers.forward_pass(rows, records=records))
                self._graphs[rows, True, records] = self._capture(run)
            # A pass that wants no velocities is there to record.
            remember = partial(self._inner.remember, buffers.forward_pass(rows, records=True))
            self._graphs[rows, False, True] = self._capture(remember)
        return buffers

    def _write_velocities(self, buffers: PassBuffers, forward_pass: ForwardPass) -> None:
        buffers.velocities_RTHWC[: len(forward_pass.latents_RTHWC)] = self._inner.velocities(forward_pass)


class PassBuffers:
    """The arguments of a forward pass, and its result, at addresses that stay: what graphs read is kept here."""

    def __init__(self, example: ForwardPass, rows: int) -> None:
        """Shapes, device and dtype are those of `example`, but for the number of rows."""
        latents, modulation = example.latents_RTHWC, example.modulation
        self._latents_RTHWC = latents.new_empty(rows, *latents.shape[1:])
        self.velocities_RTHWC = torch.empty_like(self._latents_RTHWC)
        self._modulation = Modulation(
            modulation.blocks.new_empty(len(modulation.blocks), rows, *modulation.blocks.shape[2:]),
            modulation.output.new_empty(rows, *modulation.output.shape[1:]),
            modulation.levels.new_empty(rows, *modulation.levels.shape[1:]),
        )
        self._speech = [
            FoldedSpeech(
                *(
                    part.new_empty(rows, *part.shape[1:])
                    for part in (speech.keys_RTDM, speech.bias_RT1M, speech.values_RTMD)
                )
            )
            for speech in example.speech
        ]
        # The text never changes: it stays where the example has it.
        self._text = example.text
        _, window = example.windows()[0]
        self._window = window.blank(rows)
        self._recording_window = self._window.part(slice(None))
        self._recording_window.start_recording()
        # Whose sink and context stand in which rows.
        self._occupants: dict[range, ref[Window]] = {}

    def forward_pass(self, rows: int, *, records: bool) -> ForwardPass:
        """The buffers' first rows as the arguments of a pass."""
        window = self._recording_window if records else self._window
        whole = ForwardPass(self._latents_RTHWC, self._modulation, window, self._speech, self._text)
        return whole.part(slice(0, rows))

    def load(self, given: ForwardPass) -> None:
        """Copies the arguments of a pass in."""
        rows = slice(0, len(given.latents_RTHWC))
        self._latents_RTHWC[rows] = given.latents_RTHWC
        self._modulation.blocks[:, rows] = given.modulation.blocks
        self._modulation.output[rows] = given.modulation.output
        self._modulation.levels[rows] = given.modulation.levels
        for own, speech in zip(self._speech, given.speech, strict=True):
            own.keys_RTDM[rows] = speech.keys_RTDM
            own.bias_RT1M[rows] = speech.bias_RT1M
            own.values_RTMD[rows] = speech.values_RTMD
        for first_row, window in given.windows():
            self._take_past(first_row, window)

    def store_recorded(self, given: ForwardPass) -> None:
        """Copies what was recorded out to the windows that record."""
        for first_row, window in given.windows():
            if window.records:
                self._recording_window.copy_recorded_to(window, first_row)

    def _take_past(self, first_row: int, window: Window) -> None:
        taken = range(first_row, first_row + window.rows)
        occupant = self._occupants.get(taken)
        if occupant is not None and occupant() is window:
            return
        self._window.copy_past_of(window, first_row)
        others = {rows: other for rows, other in self._occupants.items() if not _overlap(rows, taken)}
        self._occupants = {**others, taken: ref(window)}


class CudaCapture:
    """Captures CUDA graphs that share their memory.

    They can be replayed in any order, but only one after the other; and nothing that was allocated while one was
    captured may be read afterwards. So they have to read and write buffers from elsewhere.
    """

    def __init__(self) -> None:
        """On the current device."""
        self._pool = torch.cuda.graph_pool_handle()
        # Memory is reused within a stream.
        self._stream = torch.cuda.Stream()

    def __call__(self, function: Callable[[], None]) -> Replay:
        """A graph of what `function` launches, after two runs for what is only done the first time."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(2):
                function()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            function()
        return graph.replay


def _overlap(rows: range, others: range) -> bool:
    return rows.start < others.stop and others.start < rows.stop
