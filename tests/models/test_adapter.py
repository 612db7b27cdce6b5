"""An adapter: merged or not it is the same transformer, and it goes with its own student only."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.small_transformer import SETTINGS, plan, session, small_transformer, speech
from visavis.models.a2v_dit import A2VTransformer
from visavis.models.adapter import (
    Adapter,
    adapter_fingerprint,
    adapter_parameters,
    adapter_tensors,
    add_adapter,
    merge_adapter,
    read_adapter,
    write_adapter,
)
from visavis.models.fast_preset import fast_settings
from visavis.models.generation import generate_chunk

FAST = fast_settings(SETTINGS)


def chunks(transformer: A2VTransformer) -> Tensor:
    state = session(plan(transformer, FAST))
    made = []
    for seed in (1, 2):
        latents, state = generate_chunk(speech(seed), state)
        made.append(latents)
    return torch.stack(made)


def learnt(transformer: A2VTransformer, rank: int = 2) -> A2VTransformer:
    """With an adapter on a copy, as if it had learnt something."""
    adapted = deepcopy(transformer)
    generator = torch.Generator().manual_seed(5)
    for parameter in add_adapter(adapted, rank):
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return adapted


@pytest.mark.parametrize("prompt_tokens", [0, 4])
def test_a_merged_adapter_equals_one_that_is_not(prompt_tokens: int) -> None:
    transformer = small_transformer(prompt_tokens=prompt_tokens)
    before, adapted = chunks(transformer), learnt(transformer)
    expected = chunks(adapted)
    assert (expected - before).abs().max() > 0.01
    merge_adapter(transformer, adapter_tensors(adapted))
    torch.testing.assert_close(chunks(transformer), expected, atol=1e-5, rtol=1e-4)
    transformer.fuse()
    torch.testing.assert_close(chunks(transformer), expected, atol=1e-4, rtol=1e-3)


def test_a_new_adapter_changes_nothing_and_alone_is_learnt() -> None:
    transformer = small_transformer()
    adapted = deepcopy(transformer)
    parameters = add_adapter(adapted, rank=2)
    torch.testing.assert_close(chunks(adapted), chunks(transformer), atol=0, rtol=0)
    linear_layers = sum(isinstance(module, torch.nn.Linear) for module in transformer.modules())
    assert len(parameters) == 2 * linear_layers == len(adapter_parameters(deepcopy(adapted)))
    with pytest.raises(ValueError, match="rank"):
        add_adapter(small_transformer(), 0)


def test_the_adapter_of_another_transformer_is_refused() -> None:
    tensors = adapter_tensors(learnt(small_transformer()))
    with pytest.raises(ValueError, match="another transformer"):
        merge_adapter(small_transformer(audio_channels=0), tensors)
    wider = {name: torch.cat([part, part], dim=1 if name.endswith("down") else 0) for name, part in tensors.items()}
    with pytest.raises(ValueError, match="another size"):
        merge_adapter(small_transformer(), wider)


def test_a_folder_keeps_an_adapter_and_its_fingerprint_covers_it(tmp_path: Path) -> None:
    tensors = adapter_tensors(learnt(small_transformer()))
    write_adapter(tmp_path, Adapter(FAST, "ab12", tensors))
    read = read_adapter(tmp_path)
    assert (read.sampling, read.student_sha256) == (FAST, "ab12")
    assert all(torch.equal(read.tensors[name], part.bfloat16()) for name, part in tensors.items())
    before = adapter_fingerprint(tmp_path)
    write_adapter(tmp_path, Adapter(FAST, "ab12", {name: 2 * part for name, part in tensors.items()}))
    assert adapter_fingerprint(tmp_path) != before
    (tmp_path / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="holds no adapter"):
        read_adapter(tmp_path)
