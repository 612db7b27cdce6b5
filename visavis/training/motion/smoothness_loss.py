"""The smoothness term of Asynchronous Streaming Distillation (paper Eq. 22, 23 and 50; theorem C.4).

Legend: B clips, f moving latent frames (the ID latent, frame 0, stands before them), ... what a latent frame is made
of.
"""

from __future__ import annotations

import torch


def smoothness_errors(student_Bf: torch.Tensor, teacher_Bf: torch.Tensor) -> torch.Tensor:
    """Squares of what the second differences of student and teacher differ by, for the latent frames 1 to f - 1.

    Velocities `[B, f, ...]` of the moving latent frames in, `[B, f - 1, ...]` out. Second differences are linear, so
    they are taken of the error. Frame 0 is shared: its error is 0, whatever the networks would say of it. Raises
    `ValueError` below two latent frames.
    """
    if student_Bf.shape[1] < 2:
        raise ValueError(f"second differences need two moving latent frames, got {student_Bf.shape[1]}")
    error_Bf = student_Bf.float() - teacher_Bf.float()
    with_first = torch.cat([torch.zeros_like(error_Bf[:, :1]), error_Bf], dim=1)
    return with_first.diff(n=2, dim=1).square()


def smoothness_loss(student_Bf: torch.Tensor, teacher_Bf: torch.Tensor) -> torch.Tensor:
    """The mean of `smoothness_errors`.

    The paper sums over what a latent frame is made of and takes the mean over frames; like its reconstruction loss,
    which C.6.3 calls a mean square error, this is the mean over both.
    """
    return smoothness_errors(student_Bf, teacher_Bf).mean()
