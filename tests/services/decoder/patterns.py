"""Pictures to encode, and how close two of them are."""

import math

import numpy as np
import numpy.typing as npt

SIZE = 64


def moving_pattern(frames: int, size: int = SIZE) -> npt.NDArray[np.uint8]:
    """Smooth colours that move: [frames, size, size, 3]."""
    axis = np.linspace(0, 2 * math.pi, size)
    time = np.arange(frames)[:, None, None, None] * 0.1
    phase = axis[None, :, None, None] + axis[None, None, :, None] * np.array([0.5, 1.0, 1.5]) + time
    pictures: npt.NDArray[np.uint8] = (127.5 + 100 * np.sin(phase)).astype(np.uint8)
    return pictures


def psnr_db(left: npt.NDArray[np.uint8 | np.float64], right: npt.NDArray[np.uint8 | np.float64]) -> float:
    """Peak signal-to-noise ratio over all pictures."""
    error = np.mean((left.astype(np.float64) - right.astype(np.float64)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def halved(pictures_FHW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Averages of 2 x 2 pixels: what 4:2:0 keeps of noise, too."""
    frames, rows, columns, colours = pictures_FHW3.shape
    blocks = pictures_FHW3.astype(np.float64).reshape(frames, rows // 2, 2, columns // 2, 2, colours)
    averages: npt.NDArray[np.float64] = blocks.mean(axis=(2, 4))
    return averages
