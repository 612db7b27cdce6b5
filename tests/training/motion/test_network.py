"""Teacher and student: the same weights, and for the student the same numbers as a live session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.motion.talkers import World, make_plan
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.checkpoints import load_whisper
from visavis.models.generation import ChunkInProgress, SamplingSettings, begin_session, prepare_sampling
from visavis.models.noise import chunk_noise
from visavis.models.presets import load_preset
from visavis.models.speech_ae import SpeechAE
from visavis.models.speech_encoder import SpeechEncoder
from visavis.training.data.clips import read_shard
from visavis.training.motion.batch import MotionBatch
from visavis.training.motion.data import MotionData
from visavis.training.motion.draw import batch_of, draw_sample, whole_sample
from visavis.training.motion.network import StudentNetwork, TeacherNetwork, start_quietly
from visavis.training.motion.options import MotionOptions
from visavis.training.motion.prior import fit_prior
from visavis.training.motion.weights import make_network

CHUNKS = 4


@pytest.fixture(scope="module")
def data(world: World, tmp_path_factory: pytest.TempPathFactory) -> MotionData:
    folder = tmp_path_factory.mktemp("network")
    return world.data(make_plan(folder, "teacher"), folder / "run")


def teacher(world: World, folder: Path, *, awake: bool = True) -> TeacherNetwork:
    network = make_network(TeacherNetwork, make_plan(folder, "teacher"), None, world.speech_ae).eval()
    if awake:
        _wake(network)
    return network


def _wake(network: torch.nn.Module) -> None:
    """Weights as after a long training: nothing is zero any more."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not bool(parameter.any()):
                parameter.normal_(std=0.2)


def whole_batch(data: MotionData, samples: int = 2) -> MotionBatch:
    levels = torch.tensor([[0.2, 0.4, 0.7, 0.9], [0.5, 0.5, 0.5, 0.5]])[:samples]
    drawn = [whole_sample(data.train[index]) for index in range(samples)]
    return batch_of(drawn, levels, clean_context=True).to(torch.device("cpu"))


@torch.no_grad()
def test_a_student_computes_what_a_live_session_computes(world: World, data: MotionData, tmp_path: Path) -> None:
    """From the samples of the sound to velocities, chunk by chunk, each after the clean chunk before it."""
    preset = load_preset("tiny")
    network = StudentNetwork(*_parts(teacher(world, tmp_path)))
    settings = SamplingSettings(steps=2, shift=2.5857, guidance_scale=1.0, cache_source="clean")
    clip = next(iter(read_shard(world.dataset / "train" / "train-00000.tar")))
    batch = whole_batch(data, samples=1).at_level(1.0)
    encoder = SpeechEncoder(load_whisper(preset, None), network.speech_ae)
    plan = prepare_sampling(network.transformer, settings, 2, 2)
    state = begin_session(network.transformer, batch.conditions.portrait_BHWC, 5, settings, plan=plan)
    heard = encoder.initial_state()
    live, noises = [], []
    for index in range(CHUNKS):
        samples_S = torch.from_numpy(clip.samples_S[15_360 * index : 15_360 * (index + 1)])
        lookahead_S = torch.from_numpy(clip.samples_S[15_360 * (index + 1) :][:1_280])
        speech_TWA, heard = encoder.encode_chunk(samples_S, lookahead_S, heard)
        noises.append(chunk_noise(5, index + 1, plan.chunk_shape))
        chunk = ChunkInProgress(speech_TWA, state)
        chunk.advance()
        live.append((chunk.latents_THWC - noises[-1]) / (plan.schedule.times[1] - plan.schedule.times[0]))
        clean_THWC = batch.clean_BTHWC[0, 3 * index : 3 * index + 3]
        remembered = ChunkInProgress(speech_TWA, state, replayed_latents_THWC=clean_THWC)
        remembered.advance()
        _, state = remembered.result()

    trained = network(torch.cat(noises)[None], batch.levels_BS, batch.conditions, batch.clean_BTHWC)

    # Whisper's states are kept in float16.
    torch.testing.assert_close(trained[0], torch.cat(live), atol=5e-3, rtol=5e-3)
    assert float(trained.std()) > 0.1


@torch.no_grad()
def test_a_sample_from_the_middle_hears_its_own_part_of_the_clip(
    world: World, data: MotionData, tmp_path: Path
) -> None:
    network = teacher(world, tmp_path)
    whole = batch_of([whole_sample(data.train[0])], torch.ones(1, CHUNKS), clean_context=False)
    later = batch_of([replace(whole_sample(data.train[0]), first_chunk=1)], torch.ones(1, CHUNKS), clean_context=False)
    torch.testing.assert_close(later.clean_BTHWC[:, :9], whole.clean_BTHWC[:, 3:])
    torch.testing.assert_close(later.mouth_BTHW[:, :9], whole.mouth_BTHW[:, 3:])
    cpu = torch.device("cpu")
    first = network.speech(whole.conditions.to(cpu), 12)
    torch.testing.assert_close(network.speech(later.conditions.to(cpu), 12)[:, :9], first[:, 3:])


def test_weights_of_teacher_and_student_load_into_each_other(world: World, data: MotionData, tmp_path: Path) -> None:
    made = teacher(world, tmp_path)
    student = make_network(StudentNetwork, make_plan(tmp_path, "student"), None, world.speech_ae).eval()
    student.load_state_dict(made.state_dict())
    batch = whole_batch(data)
    noisy = batch.noisy(torch.randn_like(batch.clean_BTHWC))
    with torch.no_grad():
        seen_whole = made(noisy, batch.levels_BS, batch.conditions)
        in_chunks = student(noisy, batch.levels_BS, batch.conditions)
    assert seen_whole.shape == in_chunks.shape == batch.clean_BTHWC.shape
    # not the same function: the teacher's last chunk changes its first, the student's does not
    assert not torch.allclose(seen_whole, in_chunks, atol=1e-3)
    noisy[:, 9:] += 1.0
    with torch.no_grad():
        changed = [one(noisy, batch.levels_BS, batch.conditions) for one in (made, student)]
    assert not torch.allclose(changed[0][:, :3], seen_whole[:, :3], atol=1e-4)
    torch.testing.assert_close(changed[1][:, :9], in_chunks[:, :9])


@torch.no_grad()
def test_dropped_conditions_are_not_seen(world: World, data: MotionData, tmp_path: Path) -> None:
    batch = whole_batch(data)
    noisy = batch.noisy(torch.randn_like(batch.clean_BTHWC))
    nothing = torch.zeros(2, dtype=torch.bool)
    for network in (teacher(world, tmp_path), StudentNetwork(*_parts(teacher(world, tmp_path)))):

        def run(has_identity: Tensor, has_speech: Tensor, **changes: Tensor) -> Tensor:
            conditions = replace(batch.conditions, has_identity_B=has_identity, has_speech_B=has_speech, **changes)
            velocities: Tensor = network(noisy, batch.levels_BS, conditions)  # noqa: B023
            return velocities

        other_face = torch.randn_like(batch.conditions.portrait_BHWC)
        other_speech = batch.conditions.states_BNPX.flip(0)
        there = ~nothing
        assert torch.equal(run(nothing, there), run(nothing, there, portrait_BHWC=other_face))
        assert torch.equal(run(there, nothing), run(there, nothing, states_BNPX=other_speech))
        assert not torch.allclose(run(there, there), run(there, there, portrait_BHWC=other_face), atol=1e-3)
        assert not torch.allclose(run(there, there), run(there, there, states_BNPX=other_speech), atol=1e-3)


def test_recomputed_activations_give_the_same_gradients(world: World, data: MotionData, tmp_path: Path) -> None:
    batch = whole_batch(data)
    noisy = batch.noisy(torch.randn_like(batch.clean_BTHWC))
    for kind in (TeacherNetwork, StudentNetwork):
        network = kind(*_parts(teacher(world, tmp_path)))
        gradients = []
        for recomputed in (False, True):
            (network.enable_gradient_checkpointing if recomputed else network.disable_gradient_checkpointing)()
            assert network.is_gradient_checkpointing == recomputed
            network.zero_grad()
            network(noisy, batch.levels_BS, batch.conditions).square().mean().backward()
            gradients.append({name: value.grad for name, value in network.named_parameters() if value.grad is not None})
        assert gradients[0].keys() == gradients[1].keys()
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, msg=name)
        assert float(gradients[0]["speech_ae.project_in.weight"].abs().sum()) > 0


def test_a_quiet_start_predicts_nothing_and_learns_everywhere(world: World, data: MotionData, tmp_path: Path) -> None:
    network = teacher(world, tmp_path, awake=False)
    batch = whole_batch(data)
    noise = torch.randn_like(batch.clean_BTHWC)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for step in range(4):
        predicted = network(batch.noisy(noise), batch.levels_BS, batch.conditions)
        if step == 0:
            assert not bool(predicted.any())
        optimizer.zero_grad()
        (predicted - (noise - batch.clean_BTHWC)).square().mean().backward()
        optimizer.step()
    still = [name for name, value in network.named_parameters() if value.grad is None or not bool(value.grad.any())]
    assert [name for name in still if "speech_ae" not in name] == []
    start_quietly(network.transformer)
    assert not bool(network(batch.noisy(noise), batch.levels_BS, batch.conditions).any())


def test_a_quiet_start_with_a_prior_guesses_as_the_data_lie(world: World, data: MotionData, tmp_path: Path) -> None:
    network = teacher(world, tmp_path, awake=False)
    torch.manual_seed(0)
    transformer: A2VTransformer = A2VTransformer(**{**load_preset("tiny").transformer, "latent_prior": True})
    start_quietly(transformer)
    network.transformer = transformer
    fit_prior(transformer, data.train)
    batch = whole_batch(data)
    cells_NC = torch.cat([clip.picture.latents_THWC[1:].flatten(0, 2) for clip in data.train.spread(len(data.train))])
    prior = transformer.prior
    assert prior is not None
    torch.testing.assert_close(prior.mean, cells_NC.float().mean(dim=0), atol=1e-3, rtol=1e-3)
    rebuilt = prior.directions @ prior.variances.diag() @ prior.directions.T
    torch.testing.assert_close(rebuilt, cells_NC.float().T.cov(correction=0), atol=1e-3, rtol=1e-3)
    noise = torch.randn_like(batch.clean_BTHWC)
    noisy, wanted = batch.noisy(noise), noise - batch.clean_BTHWC
    predicted = network(noisy, batch.levels_BS, batch.conditions)
    assert float((predicted - wanted).detach().square().mean()) < 0.8 * float(wanted.square().mean())
    (predicted - wanted).square().mean().backward()
    # Residuals and factors both learn from the first step on.
    gradient = transformer.proj_out.weight.grad
    assert gradient is not None
    assert all(bool(part.any()) for part in gradient.chunk(2))


def test_drops_come_as_often_as_the_plan_says(data: MotionData) -> None:
    options = MotionOptions(8.0, 0.5, 0.1, 0.05, 0.05, 0.5, 0.1, mirrored=False, guidance_scale=2.0)
    chance = np.random.default_rng(0)
    clip = data.train[0]
    samples = [draw_sample(clip, options, chance) for _ in range(8_000)]
    pairs = np.array([[sample.has_identity, sample.has_speech] for sample in samples])
    shares = {
        pair: float((pairs == pair).all(axis=1).mean()) for pair in ((False, False), (False, True), (True, False))
    }
    assert shares[False, False] == pytest.approx(0.1, abs=0.015)
    assert shares[False, True] == pytest.approx(0.05, abs=0.012)
    assert shares[True, False] == pytest.approx(0.05, abs=0.012)
    first = np.mean([torch.equal(sample.portrait_HWC, clip.picture.latents_THWC[0]) for sample in samples])
    assert first == pytest.approx(0.5, abs=0.03)
    assert {sample.first_chunk for sample in samples} == {0, 1}


def _parts(network: TeacherNetwork) -> tuple[A2VTransformer, SpeechAE]:
    return network.transformer, network.speech_ae
