"""A small world to train in: clips of 121 frames, a VAE for them, a SpeechAE for their speech, plans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from tests.training.made_up_talker import make_talkers
from visavis.models.presets import load_preset
from visavis.models.speech_ae import SpeechAE
from visavis.models.video_vae import CausalVideoVAE
from visavis.training.data.clips import read_shard
from visavis.training.motion.data import MotionData, motion_data
from visavis.training.plan import Plan, read_plan
from visavis.training.video_vae_task import as_video

PLAN = """\
task = "{task}"
preset = "tiny"
seed = 0
average_decay = 0.9

[every_minutes]
checkpoint = 1000.0
evaluation = 1000.0

[task_options]
mouth = 8.0
asynchronous = 0.5
drop_both = 0.1
drop_identity = 0.05
drop_speech = 0.05
other_portrait = 0.5
uniform = 0.1
mirrored = false
guidance_scale = 2.0

[[phases]]
name = "only"
steps = {steps}
learning_rate = 3e-3
warmup_steps = 2
accumulation = 1
gradient_checkpointing = {checkpointing}
options = {options}
"""
TEACHER = "{ batch = 4, speech_rate = 0.1 }"
STUDENT = "{ batch = 4, speech_rate = 0.1, clean_context = 0.5, context_noise = 0.05 }"


@dataclass(frozen=True, slots=True)
class World:
    """Folders: a data set, a VAE, a SpeechAE."""

    dataset: Path
    vae: Path
    speech_ae: Path

    def data(self, plan: Plan, run: Path) -> MotionData:
        """The data set in latent space."""
        return motion_data(plan, self.dataset, run, None, self.vae, announce=lambda line: None)


def make_world(folder: Path) -> World:
    """Random weights, but latents of mean 0 and deviation 1."""
    world = World(make_talkers(folder / "faces", frames=121), folder / "vae", folder / "speech_ae")
    preset = load_preset("tiny")
    torch.manual_seed(0)
    vae: CausalVideoVAE = CausalVideoVAE(**preset.vae)
    clips = [clip.frames_FHW3 for clip in read_shard(world.dataset / "train" / "train-00000.tar")]
    with torch.no_grad():
        latents = torch.cat(
            [vae.encode(as_video(torch.from_numpy(one)[None], vae.device)).flatten(0, 3) for one in clips]
        )
    vae.set_latent_statistics(latents.mean(dim=0), latents.std(dim=0))
    vae.save_pretrained(world.vae)
    SpeechAE(**preset.speech_ae).save_pretrained(world.speech_ae)
    return world


def write_plan(path: Path, task: str, steps: int = 6, *, checkpointing: bool = False) -> Path:
    """A plan of one phase."""
    options = TEACHER if task == "teacher" else STUDENT
    path.write_text(PLAN.format(task=task, steps=steps, options=options, checkpointing=str(checkpointing).lower()))
    return path


def make_plan(folder: Path, task: str, steps: int = 6, *, checkpointing: bool = False) -> Plan:
    """The same, read."""
    return read_plan(write_plan(folder / f"{task}.toml", task, steps, checkpointing=checkpointing))
