"""The files of one clip: H.264 video, FLAC speech, arrays and a JSON record, as bytes and back.

The video is yuv444p at crf 12, measured on a rendered clip: 46 dB over the frame, 43 dB around the mouth, 0.3 MB; with
yuv420p the mouth loses 2 dB, because lips are small and their colour matters. The same clip gives the same bytes: one
encoder thread, no version strings, and no macroblock tree (with it x264 gave other bytes at every fourth try at 32 and
64 pixels: it looks at memory that it did not write).

Legend: F frames, H W picture, S samples.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from visavis.training.data.performance import FRAME_RATE
from visavis.training.data.voices import SAMPLE_RATE_HZ

VIDEO, SPEECH, ARRAYS, RECORD = "mp4", "flac", "npz", "json"
_X264 = {"crf": "12", "preset": "faster", "x264-params": "mbtree=0"}
_FULL_SCALE = 32_767


class ClipFileError(ValueError):
    """A clip's file cannot be read."""


def encode_video(frames_FHW3: npt.NDArray[np.uint8]) -> bytes:
    """H.264 in MP4, 25 frames per second, BT.709."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("libx264", rate=FRAME_RATE, options={**_X264, "flags": "+bitexact"})
        stream.height, stream.width = frames_FHW3.shape[1:3]
        stream.pix_fmt = "yuv444p"
        stream.codec_context.thread_count = 1
        for number, pixels in enumerate(frames_FHW3):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv444p", dst_colorspace="ITU709", src_color_range="JPEG", dst_color_range="MPEG"
            )
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def decode_video(data: bytes) -> npt.NDArray[np.uint8]:
    """Frames [F, H, W, 3] RGB. Raises ClipFileError."""
    try:
        with av.open(io.BytesIO(data), "r") as container:
            container.streams.video[0].codec_context.thread_count = 1
            pictures = [
                frame.reformat(
                    format="rgb24", src_colorspace="ITU709", src_color_range="MPEG", dst_color_range="JPEG"
                ).to_ndarray()
                for frame in container.decode(video=0)
            ]
    except (av.error.FFmpegError, IndexError) as error:
        raise ClipFileError(f"the video cannot be decoded: {error}") from error
    return np.asarray(np.stack(pictures), dtype=np.uint8)


def encode_speech(samples_S: npt.NDArray[np.float32]) -> bytes:
    """Mono 16-bit FLAC at 16 kHz."""
    pcm = np.rint(np.clip(samples_S, -1, 1) * _FULL_SCALE).astype(np.int16)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("flac", rate=SAMPLE_RATE_HZ, options={"flags": "+bitexact"})
        stream.layout, stream.format = "mono", "s16"
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def decode_speech(data: bytes) -> npt.NDArray[np.float32]:
    """Samples [S], -1 to 1. Raises ClipFileError."""
    try:
        with av.open(io.BytesIO(data), "r") as container:
            blocks = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
    except (av.error.FFmpegError, IndexError) as error:
        raise ClipFileError(f"the speech cannot be decoded: {error}") from error
    return np.asarray(np.concatenate(blocks), dtype=np.float32) / np.float32(_FULL_SCALE)


def encode_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """A compressed .npz, whose members carry no time of writing."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def decode_arrays(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz. Raises ClipFileError."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise ClipFileError(f"the arrays cannot be read: {error}") from error


def encode_record(record: Mapping[str, Any], members: Mapping[str, bytes]) -> bytes:
    """The record as JSON, with the SHA-256 of the clip's other files."""
    hashes = {kind: hashlib.sha256(data).hexdigest() for kind, data in members.items()}
    return json.dumps({**record, "sha256": hashes}, ensure_ascii=False, sort_keys=True, indent=1).encode()


def decode_record(data: bytes) -> dict[str, Any]:
    """The record. Raises ClipFileError."""
    try:
        record = json.loads(data)
    except ValueError as error:
        raise ClipFileError("the record is not JSON") from error
    if not isinstance(record, dict) or not isinstance(record.get("sha256"), dict):
        raise ClipFileError("the record lacks the hashes of the clip's files")
    return record


def check_members(members: Mapping[str, bytes]) -> dict[str, Any]:
    """The record of a clip whose files are all there and unchanged. Raises ClipFileError."""
    missing = [kind for kind in (VIDEO, SPEECH, ARRAYS, RECORD) if kind not in members]
    if missing:
        raise ClipFileError(f"it lacks {', '.join(missing)}")
    record = decode_record(members[RECORD])
    for kind in (VIDEO, SPEECH, ARRAYS):
        if hashlib.sha256(members[kind]).hexdigest() != record["sha256"].get(kind):
            raise ClipFileError(f"its {kind} file has changed")
    return record
