"""The contrastive term of Asynchronous Streaming Distillation (paper Eq. 21 and 32; theorem C.2).

Legend: B clips, f moving latent frames (the ID latent, frame 0, is not among them), ... what a latent frame is made of.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F

# Section C.6.3.
TEMPERATURE: Final = 0.1


def contrastive_loss(
    student_Bf: torch.Tensor, teacher_Bf: torch.Tensor, temperature: float = TEMPERATURE
) -> torch.Tensor:
    """How badly each of the student's latent frames picks its own among the teacher's of the same clip (InfoNCE).

    Velocities `[B, f, ...]` of the moving latent frames; frame 0 is shared and stays out. Similarity is the cosine
    between whole latent frames. Mean over frames and clips: 0 at best, log f where the teacher's frames do not differ.
    """
    student_BfD = F.normalize(student_Bf.flatten(2).float(), dim=2)
    teacher_BfD = F.normalize(teacher_Bf.flatten(2).float(), dim=2)
    logits_Bff = student_BfD @ teacher_BfD.transpose(1, 2) / temperature
    frames = torch.arange(logits_Bff.shape[1], device=logits_Bff.device)
    return F.cross_entropy(logits_Bff.flatten(0, 1), frames.repeat(len(logits_Bff)))
