"""Parts load by preset or folder, alike every time, and agree on which model they belong to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from visavis.models.a2v_dit import A2VTransformer
from visavis.models.checkpoints import PartName, load_part, resolve_device, resolve_dtype
from visavis.models.pipeline import RestPipeline
from visavis.models.speech_encoder import SpeechEncoder
from visavis.models.video_autoencoder import VideoAutoencoder

PARTS: tuple[PartName, ...] = get_args(PartName)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-copy"
    RestPipeline.from_preset("tiny", "cpu", "float32").save_pretrained(path)
    return path


def test_each_part_is_what_its_stage_expects() -> None:
    kinds = {"speech_encoder": SpeechEncoder, "transformer": A2VTransformer, "vae": VideoAutoencoder}
    for part in PARTS:
        loaded = load_part("tiny", part, "cpu", "float32")
        assert isinstance(loaded.module, kinds[part])
        assert not loaded.module.training
        assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
        assert loaded.preset.name == "tiny"


@pytest.mark.parametrize("part", PARTS)
def test_random_weights_are_the_same_every_time_and_leave_the_global_generator_alone(part: PartName) -> None:
    torch.manual_seed(1)
    first = load_part("tiny", part, "cpu", "float32").module.state_dict()
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))
    second = load_part("tiny", part, "cpu", "float32").module.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("part", PARTS)
def test_a_saved_folder_gives_the_same_weights(part: PartName, folder: Path) -> None:
    preset, saved = (load_part(model, part, "cpu", "float32").module.state_dict() for model in ("tiny", str(folder)))
    assert preset.keys() == saved.keys()
    assert all(torch.equal(preset[name], saved[name]) for name in preset)


@pytest.mark.parametrize("kind", ["preset", "folder"])
def test_parts_of_one_model_agree_on_its_identity(kind: str, folder: Path) -> None:
    model = "tiny" if kind == "preset" else str(folder)
    identities = [load_part(model, part, "cpu", "float32").identity for part in PARTS]
    assert len({replace(identity, sampling="") for identity in identities}) == 1
    assert [part for part, identity in zip(PARTS, identities, strict=True) if identity.sampling] == ["transformer"]
    assert identities[0].name == "tiny"
    assert len(identities[0].fingerprint) == 64
    assert identities[0].random_weights


def test_the_fingerprint_tells_models_apart(folder: Path, tmp_path: Path) -> None:
    preset = load_part("tiny", "vae", "cpu").identity.fingerprint
    original = load_part(str(folder), "vae", "cpu").identity.fingerprint
    pipeline = RestPipeline.from_pretrained(folder, "cpu", "float32")
    with torch.no_grad():
        pipeline.transformer.proj_out.bias += 1e-3
    pipeline.save_pretrained(tmp_path)
    changed = load_part(str(tmp_path), "vae", "cpu").identity.fingerprint
    assert len({preset, original, changed}) == 3


def test_a_folder_keeps_the_sampling_settings(folder: Path) -> None:
    preset, saved = load_part("tiny", "vae", "cpu").preset, load_part(str(folder), "vae", "cpu").preset
    assert (saved.sampling, saved.picture_size) == (preset.sampling, preset.picture_size)
    assert saved.vae_kind == preset.vae_kind


def test_nothing_in_a_folder_is_a_pickle(folder: Path) -> None:
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_dtype_and_device_are_chosen_by_hardware_or_by_name() -> None:
    cpu = torch.device("cpu")
    assert resolve_device("cpu") == cpu
    assert resolve_dtype("auto", torch.device("cuda")) == torch.bfloat16
    has_amx = torch.cpu.get_capabilities().get("amx_bf16", False)
    assert resolve_dtype("auto", cpu) == (torch.bfloat16 if has_amx else torch.float32)
    loaded = load_part("tiny", "transformer", "cpu", "bfloat16").module
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    speech = load_part("tiny", "speech_encoder", "cpu", "bfloat16").module
    assert {parameter.dtype for parameter in speech.parameters()} == {torch.float32}


def test_what_does_not_exist_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a preset"):
        load_part("huge", "vae")
    with pytest.raises(ValueError, match="float32, bfloat16"):
        load_part("tiny", "vae", "cpu", "float16")
    with pytest.raises(ValueError, match="auto, cpu or cuda"):
        load_part("tiny", "vae", "tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            load_part("tiny", "vae", "cuda")
    index = json.loads((folder / "model_index.json").read_text())
    del index["picture_size"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="not a complete model folder"):
        load_part(str(tmp_path), "vae", "cpu")
