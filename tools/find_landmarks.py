"""Finds faces, hands and written text in pictures. A program of its own: MediaPipe pins protobuf and numpy below ours.

    PYTHON tools/find_landmarks.py INPUT.npy|VIDEO --out FILE.npz [--find faces hands text]
    PYTHON tools/find_landmarks.py --serve

INPUT.npy holds uint8 pictures [F, H, W, 3], RGB. --serve reads one JSON object a line, {"input", "out", "find"}, and
answers {"frames"} or {"error"}. Every picture is looked at for itself: nothing is tracked or smoothed over time.

FILE.npz, protocol 1 (what was not asked for is absent; boxes are left, top, right, bottom; all lengths in pixels):

    protocol                  1
    detectors                 names and versions
    size            [2]       height, width
    landmarks       [F, 478, 2]  MediaPipe's face mesh with irises (468 to 477), x and y; NaN where no face was found
    found           [F]       whether a face was found
    face_frames     [N], face_boxes [N, 4], face_scores [N]   every face, by frame
    hand_frames     [M], hand_boxes [M, 4], hand_scores [M]   every hand whose 21 points were found; its palm's score
    text_frames     [K], text_boxes [K, 4], text_scores [K]   every line of text

The environment: tools/detectors-requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from mediapipe.python.solution_base import SolutionBase
from mediapipe.python.solutions.face_detection import FaceDetection
from mediapipe.python.solutions.face_mesh import FaceMesh

PROTOCOL = 1
KINDS = ("faces", "hands", "text")
_LANDMARKS = 478
_LOWEST_SCORE = 0.5
_HANDS_GRAPH = "mediapipe/modules/hand_landmark/hand_landmark_tracking_cpu.binarypb"
_PALM_POINTS = (0, 5, 9, 13, 17)  # wrist and the roots of the fingers
_MOST_HANDS = 4

Pictures = Sequence[npt.NDArray[np.uint8]]
Arrays = dict[str, npt.NDArray[Any]]
Box = tuple[float, float, float, float]


class FaceFinder:
    """One face's mesh a picture, and the boxes of all faces."""

    def __init__(self, stack: ExitStack) -> None:
        self._mesh = stack.enter_context(FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True))
        # the full-range model: it also sees faces that are small in the picture
        self._boxes = stack.enter_context(FaceDetection(model_selection=1, min_detection_confidence=_LOWEST_SCORE))

    def find(self, pictures: Pictures) -> Arrays:
        """landmarks, found and the boxes of all faces."""
        landmarks_F = np.full((len(pictures), _LANDMARKS, 2), np.nan, dtype=np.float32)
        boxes: list[list[tuple[Box, float]]] = []
        for number, picture in enumerate(pictures):
            boxes.append(self._find_boxes(picture))
            mesh = self._find_mesh(picture, [box for box, _ in boxes[-1]])
            if mesh is not None:
                landmarks_F[number] = mesh
        found = np.asarray(np.isfinite(landmarks_F).all(axis=(1, 2)))
        return {"landmarks": landmarks_F, "found": found, **_columns("face", boxes)}

    def _find_boxes(self, picture: npt.NDArray[np.uint8]) -> list[tuple[Box, float]]:
        height, width = picture.shape[:2]
        faces = []
        for detection in self._boxes.process(picture).detections or []:
            area = detection.location_data.relative_bounding_box
            left, top = area.xmin * width, area.ymin * height
            box = (left, top, left + area.width * width, top + area.height * height)
            faces.append((box, float(detection.score[0])))
        return faces

    def _find_mesh(self, picture: npt.NDArray[np.uint8], boxes: list[Box]) -> npt.NDArray[np.float32] | None:
        """The mesh's own detector looks for near faces; around a far one it gets a closer view."""
        mesh_N2 = self._mesh_of(picture)
        if mesh_N2 is not None or not boxes:
            return mesh_N2
        left, top, right, bottom = max(boxes, key=lambda box: box[3] - box[1])
        reach = max(right - left, bottom - top)
        column, row = int(max((left + right) / 2 - reach, 0)), int(max((top + bottom) / 2 - reach, 0))
        closer = picture[row : row + int(2 * reach) + 1, column : column + int(2 * reach) + 1]
        mesh_N2 = self._mesh_of(np.ascontiguousarray(closer)) if closer.size else None
        return None if mesh_N2 is None else mesh_N2 + np.array((column, row), dtype=np.float32)

    def _mesh_of(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32] | None:
        faces = self._mesh.process(picture).multi_face_landmarks
        return _points(faces[0], picture) if faces else None


class HandFinder:
    """The boxes of hands; MediaPipe's own wrapper hides the palm detector's scores, so the graph is asked for them."""

    def __init__(self, stack: ExitStack) -> None:
        graph = SolutionBase(
            binary_graph_path=_HANDS_GRAPH,
            side_inputs={"model_complexity": 1, "num_hands": _MOST_HANDS, "use_prev_landmarks": False},
            calculator_params={
                "palmdetectioncpu__TensorsToDetectionsCalculator.min_score_thresh": _LOWEST_SCORE,
                "handlandmarkcpu__ThresholdingCalculator.threshold": _LOWEST_SCORE,
            },
            outputs=["multi_hand_landmarks", "palm_detections"],
        )
        self._graph = stack.enter_context(graph)

    def find(self, pictures: Pictures) -> Arrays:
        """The boxes around the 21 points of all hands."""
        return _columns("hand", [self._find(picture) for picture in pictures])

    def _find(self, picture: npt.NDArray[np.uint8]) -> list[tuple[Box, float]]:
        height, width = picture.shape[:2]
        seen = self._graph.process(input_data={"image": picture})
        palms = []
        for palm in seen.palm_detections or []:
            area = palm.location_data.relative_bounding_box
            centre = np.array([(area.xmin + area.width / 2) * width, (area.ymin + area.height / 2) * height])
            palms.append((centre, float(palm.score[0])))
        hands = []
        for hand in seen.multi_hand_landmarks or []:
            points_N2 = _points(hand, picture)
            middle = points_N2[list(_PALM_POINTS)].mean(axis=0)
            score = min(palms, key=lambda palm: float(np.linalg.norm(palm[0] - middle)))[1]
            hands.append(((*points_N2.min(axis=0), *points_N2.max(axis=0)), score))
        return hands


class TextFinder:
    """Lines of text, by the detector of PP-OCR (differentiable binarisation) that RapidOCR's wheel carries."""

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        # pictures as they are: enlarged to the default 736 pixels, the detector takes a whole soft picture for a line
        self._reader = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Det.limit_side_len": 32,
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            }
        )

    def find(self, pictures: Pictures) -> Arrays:
        """The boxes of all lines."""
        return _columns("text", [self._find(picture) for picture in pictures])

    def _find(self, picture: npt.NDArray[np.uint8]) -> list[tuple[Box, float]]:
        seen = self._reader(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), use_det=True, use_cls=False, use_rec=False)
        if seen.boxes is None:
            return []
        lines = zip(seen.boxes, seen.scores, strict=True)
        return [((*corners.min(axis=0), *corners.max(axis=0)), float(score)) for corners, score in lines]


class Finder:
    """All detectors, each loaded when it is first asked for. Use within an ExitStack."""

    def __init__(self, stack: ExitStack) -> None:
        self._makers: dict[str, Callable[[], FaceFinder | HandFinder | TextFinder]] = {
            "faces": lambda: FaceFinder(stack),
            "hands": lambda: HandFinder(stack),
            "text": TextFinder,
        }
        self._loaded: dict[str, FaceFinder | HandFinder | TextFinder] = {}

    def find(self, source: Path, destination: Path, kinds: Sequence[str]) -> int:
        """Writes what is seen in `source` and returns its number of pictures. Raises ValueError or OSError."""
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown or not kinds:
            raise ValueError(f"cannot find {', '.join(unknown) or 'nothing'}: choose from {', '.join(KINDS)}")
        pictures = read_pictures(source)
        arrays: Arrays = {
            "protocol": np.array(PROTOCOL),
            "detectors": np.array(f"mediapipe {version('mediapipe')}, rapidocr {version('rapidocr')}"),
            "size": np.array(pictures[0].shape[:2]),
        }
        for kind in kinds:
            if kind not in self._loaded:
                self._loaded[kind] = self._makers[kind]()
            arrays |= self._loaded[kind].find(pictures)
        partial = destination.with_name(destination.name + ".partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        partial.replace(destination)
        return len(pictures)


def read_pictures(source: Path) -> Pictures:
    """The pictures of an .npy, or the frames of a video. Raises ValueError or OSError."""
    if source.suffix == ".npy":
        pictures = np.load(source, allow_pickle=False)
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3 or not pictures.size:
            raise ValueError(f"{source} holds {pictures.dtype} {list(pictures.shape)}, not uint8 pictures [F, H, W, 3]")
        return list(pictures)
    if not source.is_file():
        raise FileNotFoundError(f"no file {source}")
    frames = list(_frames(source))
    if not frames:
        raise ValueError(f"{source} is not a video that can be read")
    return frames


def _frames(video: Path) -> Iterator[npt.NDArray[np.uint8]]:
    capture = cv2.VideoCapture(str(video))
    try:
        while True:
            there, picture = capture.read()
            if not there:
                return
            yield np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    finally:
        capture.release()


def _points(landmarks: Any, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    height, width = picture.shape[:2]
    return np.array([(point.x * width, point.y * height) for point in landmarks.landmark], dtype=np.float32)


def _columns(name: str, boxes: list[list[tuple[Box, float]]]) -> Arrays:
    rows = [(number, box, score) for number, seen in enumerate(boxes) for box, score in seen]
    return {
        f"{name}_frames": np.array([number for number, _, _ in rows], dtype=np.int32),
        f"{name}_boxes": np.array([box for _, box, _ in rows], dtype=np.float32).reshape(-1, 4),
        f"{name}_scores": np.array([score for _, _, score in rows], dtype=np.float32),
    }


def serve(finder: Finder) -> None:
    """Answers requests until standard input ends."""
    for line in sys.stdin:
        try:
            request = json.loads(line)
            answer: dict[str, object] = {
                "frames": finder.find(Path(request["input"]), Path(request["out"]), request["find"])
            }
        except (KeyError, OSError, TypeError, ValueError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Find faces, hands and written text in pictures.")
    parser.add_argument("input", type=Path, nargs="?", metavar="INPUT.npy|VIDEO")
    parser.add_argument("--out", type=Path, metavar="FILE.npz")
    parser.add_argument("--find", nargs="+", choices=KINDS, default=["faces", "hands"], metavar="WHAT")
    parser.add_argument("--serve", action="store_true", help="answer requests on standard input")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with ExitStack() as stack:
        finder = Finder(stack)
        if options.serve:
            serve(finder)
            return 0
        if options.input is None or options.out is None:
            parser.error("INPUT and --out are needed without --serve")
        try:
            print(f"{finder.find(options.input, options.out, options.find)} pictures")
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
