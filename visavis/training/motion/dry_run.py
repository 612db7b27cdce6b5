"""What a plan of a teacher or a student takes, found out without the hardware: nothing is computed, all is counted.

The network runs forward, backward and through the optimiser at its real shapes on tensors that have no memory
(PyTorch's fake tensors); every tensor that would live, and every product, is counted on the way.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from visavis.models.a2v_dit import A2VTransformer
from visavis.models.presets import load_preset
from visavis.models.speech_ae import SpeechAE
from visavis.models.speech_features import CHUNK_STATES
from visavis.training.errors import TrainingError
from visavis.training.motion.batch import Conditions, MotionBatch
from visavis.training.motion.live_memory import LiveMemory
from visavis.training.motion.loss import velocity_error
from visavis.training.motion.network import MotionNetwork, StudentNetwork, TeacherNetwork
from visavis.training.motion.noise_levels import SEGMENTS
from visavis.training.motion.options import StudentOptions, TeacherOptions, read_options
from visavis.training.plan import Phase, Plan

# A clip of 121 frames.
_CLIP_CHUNKS: Final = 5
_GIB: Final = 2**30

Shape = Sequence[int]


def _attended(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attended_backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


# PyTorch's counter knows the attention of GPUs only; the fake tensors are a CPU's.
_ATTENTION: Final = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attended,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attended_backward,
}


@dataclass(frozen=True, slots=True)
class DryRun:
    """What one phase takes in each process (each GPU)."""

    phase: str
    # of the transformer and of the SpeechAE's encoder
    parameters: int
    # by what it is for, at the moment when most is in use; bytes. Activations are all that comes and goes.
    peak_bytes: dict[str, int]
    # operations of the products for a sample, forward and backward; a multiplication and an addition are two
    operations_a_sample: float
    samples_a_step: int

    @property
    def peak_gib(self) -> float:
        """All of it."""
        return sum(self.peak_bytes.values()) / _GIB


def dry_run(plan: Plan) -> list[DryRun]:
    """Every phase of a plan. Raises TrainingError for a plan of another task, or with options that are not there."""
    if plan.task not in ("teacher", "student"):
        raise TrainingError(f"a dry run is for a teacher or a student, not for {plan.task!r}")
    with warnings.catch_warnings():
        # Of autocast's roundings on a CPU; nothing is rounded here.
        warnings.filterwarnings("ignore", message="Mismatch dtype")
        return [_dry_phase(plan, phase) for phase in plan.phases]


def _dry_phase(plan: Plan, phase: Phase) -> DryRun:
    kind: type[TeacherOptions] | type[StudentOptions] = StudentOptions if plan.task == "student" else TeacherOptions
    options = read_options(kind, phase.options, f"phase {phase.name}")
    # The dearest batches count: those of a student that make contexts from clean latents.
    clean_context = isinstance(options, StudentOptions) and options.clean_context > 0
    with FakeTensorMode():
        network = _network(plan, phase, options)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, foreach=True)
        batch = _batch(plan, options.batch, clean_context)
        with LiveMemory() as memory:
            for _ in range(2):  # the optimiser's state is there from the second step on
                _step(network, batch)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as products:
            _step(network, batch)
    weights = sum(parameter.nbytes for parameter in network.parameters())
    learnt = sum(parameter.nbytes for parameter in trained)
    peak = {"weights": weights, "their average": weights, "gradients": learnt, "optimiser": 2 * learnt}
    peak["activations"] = memory.peak_bytes - 3 * learnt
    return DryRun(
        phase=phase.name,
        parameters=sum(parameter.numel() for parameter in trained),
        peak_bytes=peak,
        operations_a_sample=products.get_total_flops() / options.batch,
        samples_a_step=options.batch * phase.accumulation,
    )


def _network(plan: Plan, phase: Phase, options: TeacherOptions | StudentOptions) -> MotionNetwork:
    preset = load_preset(plan.preset)
    kind = StudentNetwork if plan.task == "student" else TeacherNetwork
    network = kind(A2VTransformer(**preset.transformer), SpeechAE(**preset.speech_ae)).train()
    network.speech_ae.requires_grad_(False)
    for parameter in network.speech_parameters():
        parameter.requires_grad_(options.speech_rate > 0)
    if phase.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    return network


def _batch(plan: Plan, samples: int, clean_context: bool) -> MotionBatch:
    preset = load_preset(plan.preset)
    cells = (preset.latent_rows, preset.latent_rows)
    frames = SEGMENTS * int(preset.transformer["chunk_latent_frames"])
    channels = int(preset.transformer["in_channels"])
    conditions = Conditions(
        portrait_BHWC=torch.zeros(samples, *cells, channels),
        states_BNPX=torch.zeros(samples, 1 + _CLIP_CHUNKS, CHUNK_STATES, int(preset.speech_ae["feature_dim"])),
        first_chunk_B=torch.zeros(samples, dtype=torch.long),
        has_identity_B=torch.ones(samples, dtype=torch.bool),
        has_speech_B=torch.ones(samples, dtype=torch.bool),
    )
    clean = torch.zeros(samples, frames, *cells, channels)
    return MotionBatch(clean, torch.zeros(clean.shape[:-1]), torch.zeros(samples, SEGMENTS), clean_context, conditions)


def _step(network: nn.Module, batch: MotionBatch) -> None:
    """As the task's: a forward pass in bfloat16 where it may be, the loss, a backward pass."""
    noise = torch.randn_like(batch.clean_BTHWC)
    context = (batch.clean_BTHWC,) if batch.clean_context else ()
    with torch.autocast("cpu", torch.bfloat16):
        predicted: Tensor = network(batch.noisy(noise), batch.levels_BS, batch.conditions, *context)
    velocity_error(predicted, noise - batch.clean_BTHWC, batch.mouth_BTHW, 1.0).backward()
