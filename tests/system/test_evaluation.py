"""An evaluation through the services sees what one in its own process sees."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.system.parts import portrait_jpeg, voice
from visavis.cli.local_system import LocalSystem
from visavis.client import BlockingClient
from visavis.evaluation.talkers import PipelineTalker, server_talker, talk
from visavis.models.pipeline import RestPipeline

SEED = 5


@pytest.fixture
def one_thread() -> None:
    torch.set_num_threads(1)


def test_the_server_talks_as_the_pipeline_does(system: LocalSystem, one_thread: None) -> None:
    portrait = np.asarray(Image.open(io.BytesIO(portrait_jpeg())).convert("RGB"))
    samples = voice(1.5).samples_SC[:, 0].astype(np.float32) / np.float32(32768)

    with server_talker(system.gateway_address, "standard") as server:
        streamed = talk(server, portrait, samples, SEED)
    made = talk(PipelineTalker(RestPipeline.from_preset("tiny")), portrait, samples, SEED)

    assert streamed.shape == (38, 64, 64, 3)
    assert np.array_equal(streamed, made)
    with BlockingClient(system.gateway_address) as client:
        assert "visavis eval" not in [avatar.display_name for avatar in client.list_avatars()]
