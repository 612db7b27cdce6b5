"""A preset or model folder that samples fast: its adapter is merged, its student's own, and told from others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from visavis.models import shipped_weights
from visavis.models.adapter import Adapter, adapter_tensors, add_adapter, weights_sha256, write_adapter
from visavis.models.checkpoints import LoadedPart, load_part
from visavis.models.fast_preset import fast_settings
from visavis.models.pipeline import RestPipeline


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the weights of `tiny` are looked for: a trained transformer alone."""
    pipeline = RestPipeline.from_preset("tiny", "cpu", "float32")
    monkeypatch.setattr(shipped_weights, "_FOLDERS", (tmp_path,))
    pipeline.transformer.save_pretrained(tmp_path / "tiny" / "transformer")
    return tmp_path / "tiny"


def ship_adapter(folder: Path, scale: float = 0.1) -> None:
    transformer = load_part("tiny", "transformer", "cpu", "float32").module
    generator = torch.Generator().manual_seed(3)
    for parameter in add_adapter(transformer, rank=2):
        parameter.data = scale * torch.randn(parameter.shape, generator=generator)
    sampling = fast_settings(load_part("tiny", "transformer", "cpu", "float32").preset.sampling)
    student = weights_sha256(folder / "transformer")
    write_adapter(folder / "fast", Adapter(sampling, student, adapter_tensors(transformer)))


def load(model: str = "tiny", sampling: str = "fast") -> LoadedPart:
    return load_part(model, "transformer", "cpu", "float32", sampling)


def test_fast_is_half_the_steps_one_branch_and_the_merged_adapter(weights: Path) -> None:
    ship_adapter(weights)
    standard, fast = load(sampling="standard"), load()
    assert (standard.preset.sampling.steps, fast.preset.sampling.steps) == (2, 1)
    assert (standard.preset.sampling.guidance_scale, fast.preset.sampling.guidance_scale) == (6.0, 1.0)
    assert fast.preset.sampling.shift == standard.preset.sampling.shift
    pairs = zip(standard.module.state_dict().values(), fast.module.state_dict().values(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_two_adapters_have_one_model_and_two_ways_of_sampling(weights: Path) -> None:
    ship_adapter(weights)
    identities = [load(sampling="standard").identity, load().identity]
    ship_adapter(weights, scale=0.2)
    identities.append(load().identity)
    assert len({identity.fingerprint for identity in identities}) == 1
    assert len({identity.sampling for identity in identities}) == 3
    assert identities[0].sampling == "standard"
    assert identities[1].sampling.startswith("fast:")
    assert load_part("tiny", "vae", "cpu", "float32").identity.sampling == ""


def test_a_trained_transformer_is_fast_with_its_own_adapter_only(weights: Path) -> None:
    with pytest.raises(ValueError, match="no adapter for fast sampling"):
        load()
    ship_adapter(weights)
    load()
    transformer = load(sampling="standard").module
    with torch.no_grad():
        next(transformer.parameters()).add_(1.0)
    transformer.save_pretrained(weights / "transformer")  # type: ignore[operator]
    with pytest.raises(ValueError, match="belongs to another transformer"):
        load()
    with pytest.raises(ValueError, match="standard, fast"):
        load(sampling="turbo")


def test_weights_that_were_never_trained_need_no_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped_weights, "_FOLDERS", (tmp_path,))
    fast = load()
    assert (fast.identity.sampling, fast.identity.random_weights, fast.preset.sampling.steps) == ("fast", True, 1)


def test_the_pipeline_of_a_preset_samples_fast_and_so_does_what_it_saves(weights: Path, tmp_path: Path) -> None:
    ship_adapter(weights)
    pipeline = RestPipeline.from_preset("tiny", "cpu", "float32", sampling="fast")
    assert (pipeline.sampling.steps, pipeline.sampling.guidance_scale) == (1, 1.0)
    expected = load().module.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in pipeline.transformer.state_dict().items())
    pipeline.save_pretrained(tmp_path / "merged")
    assert RestPipeline.from_pretrained(tmp_path / "merged", "cpu", "float32").sampling == pipeline.sampling


def test_an_adapter_in_a_model_folder_leaves_the_models_fingerprint_alone(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    RestPipeline.from_preset("tiny", "cpu", "float32").save_pretrained(folder)
    before = load(str(folder), "standard").identity
    ship_adapter(weights)
    adapter = (weights / "fast").rename(folder / "fast")
    assert load(str(folder), "standard").identity == before
    config = (adapter / "config.json").read_text()
    student, own = weights_sha256(weights / "transformer"), weights_sha256(folder / "transformer")
    (adapter / "config.json").write_text(config.replace(student, own))
    assert load(str(folder)).identity.fingerprint == before.fingerprint
    assert load(str(folder)).identity.sampling.startswith("fast:")
