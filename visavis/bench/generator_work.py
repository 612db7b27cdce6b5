"""What a chunk costs at least, counted from the transformer's configuration, and how long that takes at given rates.

Legend: N tokens of a chunk, K tokens of the whole window, D width, L blocks, C latent channels, M speech tokens of a
latent frame times heads, P tokens of the prompt.

Counted are the products of the algorithm as it is configured: every denoising step and the pass that makes the next
context, with the cache and the folded speech, for every row of the batch. Additions, norms and activations are not
counted, and of memory only what no implementation can keep on the chip: weights once a pass, sink and context of every
row, the folded speech, latents, and the context that is written. A bound, not a forecast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

SPEECH_TOKENS = 2


@dataclass(frozen=True, slots=True)
class TransformerSize:
    """The numbers that the work depends on."""

    blocks: int
    width: int
    heads: int
    channels: int
    speech_channels: int
    # 0: no text attention.
    prompt_tokens: int
    # Tokens of a latent frame.
    frame_tokens: int
    chunk_frames: int
    latent_prior: bool

    @classmethod
    def of(cls, arguments: Mapping[str, Any], latent_rows: int) -> Self:
        """From the arguments of an `A2VTransformer` and the rows of a square latent frame."""
        heads: int = arguments["num_attention_heads"]
        return cls(
            blocks=arguments["num_layers"],
            width=heads * arguments["attention_head_dim"],
            heads=heads,
            channels=arguments["in_channels"],
            speech_channels=arguments["audio_channels"],
            prompt_tokens=arguments["prompt_tokens"],
            frame_tokens=latent_rows**2,
            chunk_frames=arguments["chunk_latent_frames"],
            latent_prior=arguments["latent_prior"],
        )

    @property
    def chunk_tokens(self) -> int:
        """N."""
        return self.chunk_frames * self.frame_tokens

    @property
    def window_tokens(self) -> int:
        """K: sink, context and current chunk."""
        return self.frame_tokens + 2 * self.chunk_tokens


@dataclass(frozen=True, slots=True)
class Work:
    """Operations (a multiplication and an addition are two) and bytes between memory and chip.

    linear_operations: of the projections of the self-attention and of the feed-forward, which may be in 8 bits.
    other_operations: of all other products.
    """

    linear_operations: float
    other_operations: float
    moved_bytes: float

    @property
    def operations(self) -> float:
        """All of them."""
        return self.linear_operations + self.other_operations

    def __add__(self, other: Work) -> Work:
        return Work(
            self.linear_operations + other.linear_operations,
            self.other_operations + other.other_operations,
            self.moved_bytes + other.moved_bytes,
        )


@dataclass(frozen=True, slots=True)
class Rates:
    """What a device does in a second, measured: operations of large products, and bytes read and written."""

    linear_operations: float
    other_operations: float
    moved_bytes: float

    def seconds(self, work: Work) -> float:
        """At least: products and memory fully overlap."""
        computing = work.linear_operations / self.linear_operations + work.other_operations / self.other_operations
        return max(computing, work.moved_bytes / self.moved_bytes)


@dataclass(frozen=True, slots=True)
class ValueBytes:
    """Bytes of a value: of the weights of `linear_operations`, and of everything else."""

    linear_weight: int
    other: int


def chunk_passes(
    size: TransformerSize, *, sessions: int, branches: int, steps: int, clean_pass: bool, value_bytes: ValueBytes
) -> list[Work]:
    """The work of one chunk of each session, which all have a context: making speech ready, then pass by pass."""
    rows = sessions * branches
    step = velocity_pass(size, rows, value_bytes)
    passes = [folding(size, sessions, value_bytes), *[step] * steps]
    return [*passes, context_pass(size, rows, value_bytes)] if clean_pass else passes


def chunk_seconds(passes: list[Work], rates: Rates) -> float:
    """The bound: one pass after the other."""
    return sum(rates.seconds(work) for work in passes)


def velocity_pass(size: TransformerSize, rows: int, value_bytes: ValueBytes) -> Work:
    """One denoising step."""
    # First and last layer, and the prior's turn into its directions and back.
    layers = (3 if size.latent_prior else 2) * size.channels * size.width
    weights = layers + (size.channels**2 if size.latent_prior else 0)
    multiplications = layers + (2 * size.channels**2 if size.latent_prior else 0)
    ends = 2 * size.chunk_tokens * multiplications
    latents = rows * 2 * size.chunk_tokens * size.channels
    outside = Work(0, rows * ends, value_bytes.other * (weights + latents))
    return _blocks(size, rows, size.blocks, value_bytes) + outside


def context_pass(size: TransformerSize, rows: int, value_bytes: ValueBytes) -> Work:
    """The pass over clean latents: of the last block, only keys and values are needed."""
    tokens, width = size.chunk_tokens, size.width
    keys_values = 2 * tokens * width * 2 * width
    proj_in = 2 * tokens * size.channels * width
    recorded = 2 * size.blocks * tokens * width
    moved = value_bytes.linear_weight * 2 * width**2 + value_bytes.other * (
        size.channels * width + rows * (tokens * size.channels + recorded)
    )
    return _blocks(size, rows, size.blocks - 1, value_bytes) + Work(rows * keys_values, rows * proj_in, moved)


def folding(size: TransformerSize, sessions: int, value_bytes: ValueBytes) -> Work:
    """Making the speech of a chunk ready for all its passes."""
    tokens, width = size.chunk_frames * SPEECH_TOKENS, size.width
    keys_values = 2 * (2 * tokens * size.speech_channels * width)
    folded = 2 * (2 * tokens * width**2) + 2 * tokens * width
    weights = 2 * size.speech_channels * width + 2 * width**2
    operations = sessions * size.blocks * (keys_values + folded)
    return Work(0, operations, value_bytes.other * (size.blocks * weights + sessions * _folded_values(size)))


def _blocks(size: TransformerSize, rows: int, blocks: int, value_bytes: ValueBytes) -> Work:
    tokens, width, past = size.chunk_tokens, size.width, size.window_tokens - size.chunk_tokens
    speech_tokens = SPEECH_TOKENS * size.heads
    # Queries, keys, values, output: 4 D^2; feed-forward: 2 x 4 D^2.
    linear_weights = 12 * width**2
    attention = 2 * 2 * tokens * size.window_tokens * width
    speech = 2 * 2 * tokens * speech_tokens * width
    text = 2 * tokens * 2 * width**2 + 2 * 2 * tokens * size.prompt_tokens * width if size.prompt_tokens else 0
    text_weights = 2 * width**2 + 2 * size.prompt_tokens * width if size.prompt_tokens else 0
    other_values = (
        blocks * text_weights + rows * blocks * 2 * past * width + rows * _folded_values(size) * (blocks / size.blocks)
    )
    return Work(
        linear_operations=rows * blocks * 2 * tokens * linear_weights,
        other_operations=rows * blocks * (attention + speech + text),
        moved_bytes=value_bytes.linear_weight * blocks * linear_weights + value_bytes.other * other_values,
    )


def _folded_values(size: TransformerSize) -> int:
    """Numbers of one session's folded speech."""
    return size.blocks * size.chunk_frames * 2 * SPEECH_TOKENS * size.heads * size.width
