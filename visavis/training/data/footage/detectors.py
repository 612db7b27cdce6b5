"""Faces, hands and text in pictures, by `tools/find_landmarks.py`, which runs in an environment of its own.

Legend: F pictures, N boxes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

PROTOCOL = 1
_CLONE = Path(__file__).parents[4]
_PROGRAM = _CLONE / "tools" / "find_landmarks.py"
OWN_PYTHON = _CLONE / ".venv-mediapipe" / "bin" / "python"

Kind = Literal["faces", "hands", "text"]
Pictures = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]


class DetectorError(RuntimeError):
    """The detectors are missing or failed. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """What one detector saw: picture [N], left, top, right, bottom in pixels [N, 4], score 0 to 1 [N]."""

    pictures_N: npt.NDArray[np.int32]
    boxes_N4: Singles
    scores_N: Singles


@dataclass(frozen=True, slots=True)
class Faces:
    """MediaPipe's mesh of one face a picture, 478 points in pixels (NaN where none was found), and all faces' boxes."""

    landmarks_FN2: Singles
    found_F: npt.NDArray[np.bool_]
    boxes: Boxes


class FindsFaces(Protocol):
    """Whoever looks at pictures [F, H, W, 3]. All of its methods raise DetectorError."""

    def faces(self, pictures_FHW3: Pictures) -> Faces: ...

    def hands(self, pictures_FHW3: Pictures) -> Boxes: ...

    def text(self, pictures_FHW3: Pictures) -> Boxes: ...


class Detectors:
    """The detectors' program, kept running. Use as a context manager; not for several threads.

    `python` is the interpreter of their environment; the default is the one that `make detectors` creates.
    """

    def __init__(self, python: Path | None = None) -> None:
        self._python = python or OWN_PYTHON

    def __enter__(self) -> Self:
        if not _PROGRAM.is_file():
            raise DetectorError(f"{_PROGRAM.name} is missing: footage needs a clone of the repository")
        if not self._python.is_file():
            raise DetectorError(f"no detectors at {self._python}: `make detectors` installs them")
        self._folder = TemporaryDirectory(prefix="visavis-detectors-")
        self._program = subprocess.Popen(
            [str(self._python), str(_PROGRAM), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # MediaPipe talks a lot
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._program:
            self._program.kill()
        self._folder.cleanup()

    def faces(self, pictures_FHW3: Pictures) -> Faces:
        """Faces in pictures [F, H, W, 3], RGB. Raises DetectorError."""
        arrays = self._find(pictures_FHW3, ["faces"])
        return Faces(arrays["landmarks"], arrays["found"], _boxes(arrays, "face"))

    def hands(self, pictures_FHW3: Pictures) -> Boxes:
        """Hands in pictures [F, H, W, 3], with the palm detector's scores. Raises DetectorError."""
        return _boxes(self._find(pictures_FHW3, ["hands"]), "hand")

    def text(self, pictures_FHW3: Pictures) -> Boxes:
        """Lines of text in pictures [F, H, W, 3]. Raises DetectorError."""
        return _boxes(self._find(pictures_FHW3, ["text"]), "text")

    def _find(self, pictures_FHW3: Pictures, kinds: Sequence[Kind]) -> dict[str, npt.NDArray[Any]]:
        source, destination = (Path(self._folder.name) / name for name in ("pictures.npy", "found.npz"))
        np.save(source, pictures_FHW3)
        answer = self._ask({"input": str(source), "out": str(destination), "find": list(kinds)})
        if "error" in answer:
            raise DetectorError(f"the detectors refused the pictures: {answer['error']}")
        with np.load(destination, allow_pickle=False) as arrays:
            found = dict(arrays)
        if int(found["protocol"]) != PROTOCOL:
            raise DetectorError(
                f"{_PROGRAM.name} speaks protocol {found['protocol']}, not {PROTOCOL}: update the clone"
            )
        return found

    def _ask(self, request: dict[str, object]) -> dict[str, object]:
        requests, answers = self._program.stdin, self._program.stdout
        assert requests is not None
        assert answers is not None
        line = _exchange(requests, answers, json.dumps(request))
        if not line:
            raise DetectorError(
                f"the detectors stopped (exit code {self._program.wait()}): try `{self._python} {_PROGRAM} --help`; "
                "`make detectors` installs them"
            )
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer


def _exchange(requests: IO[str], answers: IO[str], request: str) -> str:
    try:
        requests.write(request + "\n")
        requests.flush()
        return answers.readline()
    except BrokenPipeError:
        return ""


def _boxes(arrays: dict[str, npt.NDArray[Any]], name: str) -> Boxes:
    pictures, boxes, scores = (arrays[f"{name}_{part}"] for part in ("frames", "boxes", "scores"))
    return Boxes(pictures.astype(np.int32), boxes.astype(np.float32), scores.astype(np.float32))
