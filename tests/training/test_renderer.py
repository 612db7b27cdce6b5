"""The off-screen renderer and who it draws, on a made-up asset folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.made_up_assets import make_assets
from visavis.training.data.makehuman import AssetError, Floats
from visavis.training.data.people import draw_person
from visavis.training.data.portrait import render_portrait
from visavis.training.data.renderer import BODY_VERTICES, Body, PersonRenderer
from visavis.training.data.wardrobe import open_wardrobe


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def body() -> Body:
    return Body()


@pytest.fixture(scope="module")
def renderer(assets: Path, body: Body) -> Iterator[PersonRenderer]:
    wardrobe = open_wardrobe(assets)
    with PersonRenderer(draw_person(1, wardrobe), wardrobe, body, size=64) as renderer:
        yield renderer


@pytest.fixture(scope="module")
def vertices(assets: Path, body: Body) -> dict[str, Floats]:
    """The body of the rendered person: neutral, and with an open jaw."""
    person = draw_person(1, open_wardrobe(assets))
    neutral, open_jaw = body.vertices(person, {"jawOpen": np.array([0.0, 1.0])})
    return {"neutral": neutral, "open jaw": open_jaw}


def test_the_same_seed_draws_the_same_person_and_another_seed_another(assets: Path) -> None:
    wardrobe = open_wardrobe(assets)
    assert draw_person(1, wardrobe) == draw_person(1, wardrobe)
    assert draw_person(1, wardrobe) != draw_person(2, wardrobe)


def test_a_pose_gives_the_same_picture_again(renderer: PersonRenderer, vertices: dict[str, Floats]) -> None:
    first = renderer.render(vertices["neutral"])
    renderer.render(vertices["open jaw"], yaw=0.2)
    np.testing.assert_array_equal(renderer.render(vertices["neutral"]), first)


def test_an_open_jaw_changes_the_lower_half_of_the_face_only(
    renderer: PersonRenderer, vertices: dict[str, Floats]
) -> None:
    shut, wide = (renderer.render(vertices[pose]).astype(int) for pose in ("neutral", "open jaw"))
    change = np.abs(wide - shut).max(axis=2)
    assert change[32:].max() > 20
    assert change[:16].max() == 0


def test_turning_the_head_moves_the_picture(renderer: PersonRenderer, vertices: dict[str, Floats]) -> None:
    turned = renderer.render(vertices["neutral"], yaw=0.3)
    assert (turned != renderer.render(vertices["neutral"])).mean() > 0.05


@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (0.3, -0.1)])
def test_projection_agrees_with_the_picture(
    renderer: PersonRenderer, vertices: dict[str, Floats], yaw: float, pitch: float
) -> None:
    body = vertices["neutral"][:BODY_VERTICES]
    crown_row = renderer.project(body, yaw, pitch)[:, 1].min()
    picture = renderer.render(vertices["neutral"], yaw, pitch).astype(int)
    first_row = int((np.abs(picture - picture[:, :1]).max(axis=(1, 2)) > 20).argmax())
    assert abs(crown_row - first_row) < 2


def test_an_unknown_action_is_refused(assets: Path, body: Body) -> None:
    with pytest.raises(ValueError, match="wink"):
        body.vertices(draw_person(1, open_wardrobe(assets)), {"wink": np.ones(1)})


def test_a_portrait_is_written_at_the_size_asked_for(assets: Path, tmp_path: Path) -> None:
    destination = tmp_path / "out" / "portrait.jpg"
    render_portrait(assets, destination, seed=3, size=96)
    assert Image.open(destination).size == (96, 96)


def test_a_missing_asset_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="download"):
        open_wardrobe(tmp_path / "nowhere")


def test_an_incomplete_asset_folder_says_what_is_missing(tmp_path: Path) -> None:
    root = make_assets(tmp_path)
    (root / "eyes" / "materials" / "blue_eye.png").unlink()
    with pytest.raises(AssetError, match="eyes"):
        open_wardrobe(root)
