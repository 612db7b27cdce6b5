"""The renderer and who it draws, on a made-up asset folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.made_up_assets import make_assets
from visavis.training.data.body import BODY_VERTICES, LOWER_LIP_VERTEX, UPPER_LIP_VERTEX, Body, lip_gap
from visavis.training.data.landmarks import RIMS
from visavis.training.data.makehuman import AssetError
from visavis.training.data.people import draw_person
from visavis.training.data.portrait import render_portrait
from visavis.training.data.renderer import HeadPose, PersonRenderer
from visavis.training.data.shot import draw_shot
from visavis.training.data.texture import Singles
from visavis.training.data.wardrobe import open_wardrobe

SIZE = 64


@pytest.fixture(scope="module")
def renderer(assets: Path, body: Body) -> PersonRenderer:
    wardrobe = open_wardrobe(assets)
    return PersonRenderer(draw_person(1, wardrobe), draw_shot((1,)), wardrobe, body, SIZE)


@pytest.fixture(scope="module")
def poses(renderer: PersonRenderer) -> Singles:
    """The scene's points, neutral and with an open jaw."""
    return renderer.pose({"jawOpen": np.array([0.0, 1.0])})


def test_the_same_number_draws_the_same_person_and_another_number_another(assets: Path) -> None:
    wardrobe = open_wardrobe(assets)
    assert draw_person(1, wardrobe) == draw_person(1, wardrobe)
    assert draw_person(1, wardrobe) != draw_person(2, wardrobe)


def test_a_pose_gives_the_same_picture_again(renderer: PersonRenderer, poses: Singles) -> None:
    first = renderer.render(poses[0])
    renderer.render(poses[1], HeadPose(yaw=0.2))
    np.testing.assert_array_equal(renderer.render(poses[0]), first)


def test_an_open_jaw_changes_the_lower_half_of_the_face_only(renderer: PersonRenderer, poses: Singles) -> None:
    shut, wide = renderer.render(poses[0]).astype(int), renderer.render(poses[1]).astype(int)
    change = np.abs(wide - shut).max(axis=2)
    assert change[SIZE // 2 :].max() > 20
    assert change[: SIZE // 4].max() == 0


def test_the_head_turns_and_the_shoulders_stay(renderer: PersonRenderer, poses: Singles, body: Body) -> None:
    heights = body.figure({}).neutral_V3[:BODY_VERTICES, 2]
    below = heights.max() - heights
    shoulders, crown = np.flatnonzero((below > 0.36) & (below < 0.4)), np.flatnonzero(below < 0.05)
    renderer.render(poses[0])
    straight = [renderer.screen(shoulders), renderer.screen(crown)]
    renderer.render(poses[0], HeadPose(yaw=0.3))
    np.testing.assert_array_equal(renderer.screen(shoulders), straight[0])
    assert np.abs(renderer.screen(crown) - straight[1]).mean() > 1


def test_a_yaw_to_the_left_moves_the_nose_to_the_right_of_the_picture(renderer: PersonRenderer, poses: Singles) -> None:
    mouth = RIMS["mouth"]
    renderer.render(poses[0])
    straight = renderer.screen(mouth)[:, 0].mean()
    renderer.render(poses[0], HeadPose(yaw=0.3))
    assert renderer.screen(mouth)[:, 0].mean() > straight + 2


def test_looking_up_lifts_the_mouth(renderer: PersonRenderer, poses: Singles) -> None:
    mouth = RIMS["mouth"]
    renderer.render(poses[0])
    straight = renderer.screen(mouth)[:, 1].mean()
    renderer.render(poses[0], HeadPose(pitch=0.2))
    assert renderer.screen(mouth)[:, 1].mean() < straight - 1


def test_landmarks_stand_where_the_picture_changes(renderer: PersonRenderer, poses: Singles) -> None:
    blink = renderer.pose({"eyeBlinkLeft": np.ones(1)})[0]
    lid = renderer.pose({})[0]
    change = np.abs(renderer.render(blink).astype(int) - renderer.render(lid).astype(int)).max(axis=2)
    rows, columns = np.nonzero(change > 8)
    eye = renderer.screen(RIMS["left_eye"])
    assert eye[:, 0].min() - 2 < columns.mean() < eye[:, 0].max() + 2
    assert eye[:, 1].min() - 2 < rows.mean() < eye[:, 1].max() + 2
    assert columns.mean() > SIZE / 2  # a person's left eye is on the right of the picture


@pytest.mark.parametrize("number", range(6))
def test_rims_have_the_proportions_of_mouths_and_eyes(assets: Path, body: Body, number: int) -> None:
    figure = body.figure(draw_person(number, open_wardrobe(assets)).phenotype)
    points = {name: figure.neutral_V3[rim] for name, rim in RIMS.items()}
    width, _, height = np.ptp(points["mouth"], axis=0)
    assert 0.035 < width < 0.065
    assert 0.25 < height / width < 0.75
    lips = (figure.neutral_V3[UPPER_LIP_VERTEX, 2], figure.neutral_V3[LOWER_LIP_VERTEX, 2])
    assert points["mouth"][:, 2].min() < min(lips) < max(lips) < points["mouth"][:, 2].max()
    for side, eye in ((1, points["left_eye"]), (-1, points["right_eye"])):
        width, _, height = np.ptp(eye, axis=0)
        assert 0.022 < width < 0.036
        assert 0.15 < height / width < 0.6
        assert (side * eye[:, 0]).min() > 0.01  # the nose is between them


def test_an_unknown_action_is_refused(renderer: PersonRenderer) -> None:
    with pytest.raises(ValueError, match="wink"):
        renderer.pose({"wink": np.ones(1)})


def test_curves_of_different_lengths_are_refused(renderer: PersonRenderer) -> None:
    with pytest.raises(ValueError, match="same number"):
        renderer.pose({"jawOpen": np.ones(2), "mouthPucker": np.ones(3)})


@pytest.mark.parametrize("number", range(6))
def test_lips_meet_at_rest_whoever_it_is(assets: Path, body: Body, number: int) -> None:
    figure = body.figure(draw_person(number, open_wardrobe(assets)).phenotype)
    assert -0.002 < lip_gap(figure.neutral_V3[None])[0] < 0


def test_actions_are_linear_as_anny_poses_them(body: Body) -> None:
    """What the renderer relies on: half an action moves half as far, and two actions add up."""
    figure = body.figure({"gender": 0.3, "age": 0.8, "weight": 0.7})
    together = figure.pose({"jawOpen": np.array([0.5]), "mouthPucker": np.array([1.0])})[0]
    jaw, pucker = (figure.offsets_AV3[body.actions.index(action)] for action in ("jawOpen", "mouthPucker"))
    np.testing.assert_allclose(together, figure.neutral_V3 + 0.5 * jaw + pucker, atol=1e-9)
    assert np.abs(jaw[:BODY_VERTICES]).max() > 0.02


@pytest.mark.parametrize("seed", range(8))
def test_no_picture_is_flat_or_black(assets: Path, body: Body, seed: int) -> None:
    wardrobe = open_wardrobe(assets)
    renderer = PersonRenderer(draw_person(seed, wardrobe), draw_shot((seed,)), wardrobe, body, 48)
    picture = renderer.render(renderer.pose({})[0])
    face = renderer.screen(RIMS["mouth"]).mean(axis=0).astype(int)
    assert picture[face[1], face[0]].mean() > 40
    assert picture[:8, :8].std() > 0


def test_a_portrait_is_written_at_the_size_asked_for(assets: Path, tmp_path: Path) -> None:
    destination = tmp_path / "out" / "portrait.jpg"
    render_portrait(assets, destination, seed=3, size=96)
    assert Image.open(destination).size == (96, 96)


def test_a_missing_asset_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="download"):
        open_wardrobe(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "kind"),
    [("eyes/materials/blue_eye.png", "eyes"), ("skins/textures/young_lightskinned_male_diffuse.png", "skins")],
)
def test_an_incomplete_asset_folder_says_what_is_missing(tmp_path: Path, file: str, kind: str) -> None:
    root = make_assets(tmp_path)
    (root / file).unlink()
    with pytest.raises(AssetError, match=kind):
        open_wardrobe(root)


def test_a_texture_that_is_no_picture_is_named(tmp_path: Path, body: Body) -> None:
    root = make_assets(tmp_path)
    (root / "teeth" / "materials" / "teeth.png").write_text("no picture")
    wardrobe = open_wardrobe(root)
    with pytest.raises(AssetError, match=r"teeth\.png"):
        PersonRenderer(draw_person(1, wardrobe), draw_shot((1,)), wardrobe, body, SIZE)
