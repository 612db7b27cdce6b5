"""A preset takes the trained parts that ship with it, and only those."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from visavis.models import shipped_weights
from visavis.models.checkpoints import PartName, load_part
from visavis.models.pipeline import RestPipeline


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the weights of `tiny` are looked for; empty."""
    monkeypatch.setattr(shipped_weights, "_FOLDERS", (tmp_path,))
    (tmp_path / "tiny").mkdir()
    return tmp_path / "tiny"


def ship(folder: Path, *parts: str) -> RestPipeline:
    """Ships these parts, as if they were trained."""
    pipeline = RestPipeline.from_preset("tiny", "cpu", "float32")
    for part in parts:
        module = getattr(pipeline, part)
        with torch.no_grad():
            next(module.parameters()).add_(1.0)
        module.save_pretrained(folder / part)
    return pipeline


def identity(part: PartName = "vae") -> tuple[str, bool]:
    found = load_part("tiny", part, "cpu", "float32").identity
    return found.fingerprint, found.random_weights


def test_a_shipped_part_is_loaded_and_the_others_stay_as_they_were(folder: Path) -> None:
    random = load_part("tiny", "transformer", "cpu", "float32").module.state_dict()
    trained = ship(folder, "vae").vae.state_dict()
    vae = load_part("tiny", "vae", "cpu", "float32").module.state_dict()
    assert all(torch.equal(vae[name], trained[name]) for name in trained)
    transformer = load_part("tiny", "transformer", "cpu", "float32").module.state_dict()
    assert all(torch.equal(transformer[name], random[name]) for name in random)
    pipeline = RestPipeline.from_preset("tiny", "cpu", "float32")
    assert all(torch.equal(value, trained[name]) for name, value in pipeline.vae.state_dict().items())


def test_the_fingerprint_covers_what_ships_whichever_part_asks(folder: Path) -> None:
    fingerprints = [identity()[0]]
    ship(folder, "vae")
    fingerprints.append(identity()[0])
    ship(folder, "speech_ae")
    fingerprints.append(identity()[0])
    assert len(set(fingerprints)) == 3
    parts: tuple[PartName, ...] = ("speech_encoder", "transformer", "vae")
    assert len({identity(part) for part in parts}) == 1


def test_weights_count_as_random_until_every_part_is_trained(folder: Path) -> None:
    assert identity()[1]
    ship(folder, "vae", "speech_ae")
    assert identity()[1]
    assert RestPipeline.from_preset("tiny", "cpu", "float32").config["random_weights"]
    ship(folder, "transformer")
    assert not identity()[1]
    assert not RestPipeline.from_preset("tiny", "cpu", "float32").config["random_weights"]


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    ship(folder, "vae")
    path = folder / "vae" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "latent_channels": 32, "width": 2}))
    with pytest.raises(ValueError, match=r"another network.*width, latent_channels differ"):
        load_part("tiny", "vae", "cpu", "float32")
    load_part("tiny", "transformer", "cpu", "float32")
