"""What a client has received of a session: where a resumed stream must go on."""

from __future__ import annotations

from typing import Final

from visavis.client.journal import InputJournal, Position
from visavis.contract import CHUNK_FRAMES
from visavis.v1 import talking_head_pb2


class Progress:
    """The place in the output that the client has reached, and in its input that belongs to it."""

    def __init__(self, journal: InputJournal) -> None:
        self.epoch = 1
        self.last_frame_index = 0
        self._journal: Final = journal
        # At the end of the last chunk that came completely, and of the one that came in part.
        self._position = Position()
        self._partial: Position | None = None
        self._begun_utterances = 0
        self._told_utterances = 0
        # Its last chunk has come; the notice should follow.
        self._ending: talking_head_pb2.UtteranceEnded | None = None

    @property
    def position(self) -> Position:
        """How much input lies before the last chunk border that was reached."""
        return self._position

    def accept(self, response: talking_head_pb2.TalkResponse) -> bool:
        """Note a response. False for what the client has already, or what an interruption has dropped."""
        match response.WhichOneof("response"):
            case "segment":
                return self._accept_segment(response.segment)
            case "interrupted" if response.interrupted.epoch <= self.epoch:
                return False
            case "interrupted":
                self._enter_epoch(response.interrupted.epoch, response.interrupted.last_chunk_index * CHUNK_FRAMES)
            case "utterance_ended" if response.utterance_ended.utterance_id <= self._told_utterances:
                return False
            case "utterance_ended":
                self._told_utterances, self._ending = response.utterance_ended.utterance_id, None
            case "dropped":
                self.last_frame_index = response.dropped.last_chunk_index * CHUNK_FRAMES
                self._confirm(Position.from_message(response.dropped.input_position))
        return True

    def resumed(self, message: talking_head_pb2.SessionResumed) -> list[talking_head_pb2.TalkResponse]:
        """Note where the server goes on, and give the notices that were lost with the old stream."""
        lost = []
        if self._ending is not None:
            lost.append(talking_head_pb2.TalkResponse(utterance_ended=self._ending))
            self._told_utterances, self._ending = self._ending.utterance_id, None
        if message.epoch > self.epoch:
            last_frame_index = message.next_frame_index - 1
            self._enter_epoch(message.epoch, last_frame_index)
            interrupted = talking_head_pb2.Interrupted(
                epoch=message.epoch, last_chunk_index=last_frame_index // CHUNK_FRAMES
            )
            lost.append(talking_head_pb2.TalkResponse(interrupted=interrupted))
        return lost

    def request(self, resume_token: str) -> talking_head_pb2.TalkRequest:
        """The first request of a stream that goes on from here."""
        partial = self._partial.to_message() if self._partial is not None else None
        resume = talking_head_pb2.ResumeSession(
            resume_token=resume_token,
            epoch=self.epoch,
            last_frame_index=self.last_frame_index,
            input_position=self._position.to_message(),
            partial_chunk_position=partial,
            in_utterance=self._begun_utterances > self._position.utterances,
        )
        return talking_head_pb2.TalkRequest(resume=resume)

    def _accept_segment(self, segment: talking_head_pb2.VideoSegment) -> bool:
        last_frame_index = segment.first_frame_index + len(segment.frames) - 1
        if segment.epoch < self.epoch or (segment.epoch == self.epoch and last_frame_index <= self.last_frame_index):
            return False
        self.epoch, self.last_frame_index = segment.epoch, last_frame_index
        position = Position.from_message(segment.input_position)
        if segment.last_in_chunk:
            self._begun_utterances = max(self._begun_utterances, segment.utterance_id)
            self._confirm(position)
            if segment.utterance_id and segment.utterance_id <= position.utterances:
                self._ending = talking_head_pb2.UtteranceEnded(
                    utterance_id=segment.utterance_id, last_chunk_index=segment.chunk_index
                )
        else:
            self._partial = position
        return True

    def _confirm(self, position: Position) -> None:
        self._position, self._partial = position, None
        self._journal.confirm(self.epoch, position)

    def _enter_epoch(self, epoch: int, last_frame_index: int) -> None:
        self.epoch, self.last_frame_index, self._ending = epoch, last_frame_index, None
        self._confirm(self._journal.position_of_epoch(epoch))
