"""Hand-made histories for the tests of measures."""

from visavis.bench.load_events import ChunkSeen, ClientHealth, SessionOver, SessionStarted
from visavis.bench.load_tally import LoadTally
from visavis.client.events import ChunkTiming, Frame, Segment, StageTiming
from visavis.contract import CHUNK_FRAMES, FRAME_RATE

RATE_HZ = 16_000
STAGE = StageTiming(queued_seconds=0.01, computed_seconds=0.2)
TIMING = ChunkTiming(audio_encoder=STAGE, generator=STAGE, decoder=STAGE, total_seconds=0.7)


def segment(
    chunk_index: int, *, utterance_id: int = 1, epoch: int = 1, first: int = 0, count: int = CHUNK_FRAMES
) -> Segment:
    """Frames [first, first + count) of a chunk, with their sound at 16 kHz mono."""
    index = CHUNK_FRAMES * (chunk_index - 1) + first + 1
    per_frame = RATE_HZ // FRAME_RATE
    last = first + count == CHUNK_FRAMES
    return Segment(
        epoch=epoch,
        utterance_id=utterance_id,
        chunk_index=chunk_index,
        idle=utterance_id == 0,
        first_frame_index=index,
        presentation_seconds=(index - 1) / FRAME_RATE,
        frames=(Frame(b"jpeg", key_frame=True),) * count,
        audio_start_sample=(index - 1) * per_frame,
        audio_end_sample=(index - 1 + count) * per_frame,
        pcm=bytes(2 * count * per_frame),
        last_in_chunk=last,
        timing=TIMING if last else None,
        synthetic=True,
    )


def seen(moment: float, wait: float | None, *, late: float = 0.0, first: bool = False) -> ChunkSeen:
    """A chunk of 1000 bytes."""
    return ChunkSeen(moment, wait, first, late, 1000, TIMING)


def over(moment: float, outcome: str = "completed", reason: str = "", *, started: bool = True) -> SessionOver:
    """The end of a session in which nothing went wrong otherwise."""
    assert outcome in ("completed", "rejected", "failed", "stopped")
    return SessionOver(moment, started, outcome, reason, 0.0, 0, 0, 0.0)  # type: ignore[arg-type]


def good_run(sessions: int = 2, chunks: int = 100) -> LoadTally:
    """Sessions side by side, a chunk a second, each 0.3 s after its audio; nothing late."""
    tally = LoadTally()
    for _ in range(sessions):
        tally.add(SessionStarted(0.0, 0.05))
        for index in range(chunks):
            tally.add(seen(index + 1.3, 0.3, first=index == 0))
        tally.add(over(float(chunks)))
    for second in range(chunks):
        tally.add(ClientHealth(float(second), 0, 0.001, 0.002, 0.2))
    tally.wall_seconds = float(chunks)
    return tally
