"""Plans: pure functions of seed and number, and no leak between the splits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from visavis.training.data.clip_plan import TRAINING_IDENTITIES, plan_clip, split_of
from visavis.training.data.voices import ENGINES, VOICES, voices_of

seeds = st.integers(0, 2**31)
indices = st.integers(0, 50_000)
engine_choices = st.sets(st.sampled_from(ENGINES), min_size=1)


@given(seeds, indices)
def test_the_same_seed_and_number_give_the_same_plan(seed: int, index: int) -> None:
    assert plan_clip(seed, index, VOICES) == plan_clip(seed, index, VOICES)


@given(seeds, indices, seeds, indices, engine_choices)
def test_people_and_voices_of_the_test_split_never_train_whatever_the_seeds(
    seed: int, index: int, other_seed: int, other_index: int, engines: set[str]
) -> None:
    voices = voices_of(sorted(engines))
    plan, other = plan_clip(seed, index, voices), plan_clip(other_seed, other_index, voices)
    if plan.split != other.split:
        assert plan.identity != other.identity
        assert not plan.voice or plan.voice != other.voice


def test_the_splits_of_a_large_data_set_share_nobody_and_have_enough_people() -> None:
    plans = [plan_clip(7, index, VOICES) for index in range(2_000)]
    train, test = ([plan for plan in plans if plan.split == split] for split in ("train", "test"))
    assert not {plan.identity for plan in train} & {plan.identity for plan in test}
    assert not {plan.voice for plan in train if plan.voice} & {plan.voice for plan in test if plan.voice}
    assert len({plan.identity for plan in train}) == TRAINING_IDENTITIES >= 300
    assert 0.07 < len(test) / len(plans) < 0.1
    assert 0.02 < sum(not plan.voice for plan in plans) / len(plans) < 0.07


def test_everybody_appears_before_anybody_comes_again() -> None:
    training = [index for index in range(600) if split_of(index) == "train"][:TRAINING_IDENTITIES]
    assert len({plan_clip(3, index, VOICES).identity for index in training}) == TRAINING_IDENTITIES


def test_speech_comes_in_several_languages_and_from_every_engine() -> None:
    by_name = {voice.name: voice for voice in VOICES}
    spoken = [by_name[plan.voice] for plan in (plan_clip(1, index, VOICES) for index in range(400)) if plan.voice]
    assert {voice.engine for voice in spoken} == set(ENGINES)
    assert {voice.language for voice in spoken} >= {"en", "de", "es"}
