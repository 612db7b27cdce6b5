"""What a training step sees of a clip: exactly a square of it, or a varied one whose masks go along."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from visavis.training.clip_view import ClipView, draw_view
from visavis.training.data.regions import mask_of
from visavis.training.video_vae_task import ClipBatch, as_video

FRAMES, SIZE, SIDE = 9, 64, 32


def a_clip() -> tuple[Tensor, Tensor]:
    """Smooth pictures, and a mask that is the first channel's bright part."""
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, SIZE), torch.linspace(-1, 1, SIZE), indexing="ij")
    steps = torch.linspace(0, 1, FRAMES)[:, None, None]
    channels = [torch.sin(2 * rows + columns + steps), torch.cos(columns - steps), 0.5 * rows * columns + 0 * steps]
    pictures = torch.stack([channel.expand(FRAMES, SIZE, SIZE) for channel in channels], dim=1)
    return pictures, (pictures[:, 0] > 0.3).float()[None]


def drawn(seed: int, *, varied: bool, mouth: tuple[float, float] | None = None) -> ClipView:
    return draw_view(SIDE, (SIZE, SIZE), mouth, varied=varied, chance=np.random.default_rng(seed))


def test_a_plain_view_is_a_square_of_the_clip_or_its_mirror_image() -> None:
    pictures, masks = a_clip()
    mirrored = set()
    for seed in range(12):
        seen, seen_masks = drawn(seed, varied=False).of(pictures, masks)
        places = [(top, left) for top in range(SIZE - SIDE + 1) for left in range(SIZE - SIDE + 1)]
        for flipped in (False, True):
            whole = torch.cat([pictures, masks[0][:, None]], dim=1)
            found = torch.cat([seen, seen_masks[0][:, None]], dim=1)
            found = found.flip(-1) if flipped else found
            if any(float((whole[:, :, t : t + SIDE, c : c + SIDE] - found).abs().max()) < 1e-4 for t, c in places):
                mirrored.add(flipped)
                break
        else:
            raise AssertionError(f"view {seed} is no square of the clip")
    assert mirrored == {False, True}


def test_a_square_around_the_mouth_holds_it() -> None:
    spot = torch.zeros(1, FRAMES, SIZE, SIZE)
    spot[..., 50:53, 8:11] = 1.0
    for seed in range(20):
        for varied in (False, True):
            _, seen = drawn(seed, varied=varied, mouth=(9.5, 51.5)).of(a_clip()[0], spot)
            assert float(seen.sum()) > 3 * FRAMES


def test_masks_go_along_with_varied_pictures() -> None:
    pictures, masks = a_clip()
    pictures = masks.transpose(0, 1).expand(-1, 3, -1, -1) * 2 - 1
    for seed in range(8):
        view = drawn(seed, varied=True)
        plain = ClipView(view.side, view.to_picture_23, view.backwards, torch.eye(3), 0.0)
        seen, seen_masks = plain.of(pictures, masks)
        torch.testing.assert_close((seen[:, 0] + 1) / 2, seen_masks[0], atol=1e-5, rtol=0)


def test_varied_views_differ_in_form_colour_and_time_and_come_from_their_chance() -> None:
    pictures, masks = a_clip()
    views = [drawn(seed, varied=True) for seed in range(16)]
    assert {view.backwards for view in views} == {False, True}
    colours = torch.stack([view.of(pictures, masks)[0].mean(dim=(0, 2, 3)) for view in views])
    assert float(colours.std(dim=0).min()) > 0.05
    zooms = torch.stack([view.to_picture_23[:, :2].det().abs().sqrt() * SIZE / SIDE for view in views])
    assert 0.75 < float(zooms.min()) < 0.95
    assert 1.05 < float(zooms.max()) < 1.3
    once, again = (drawn(3, varied=True).of(pictures, masks)[0] for _ in range(2))
    assert torch.equal(once, again)
    assert float(once.abs().max()) <= 1.0


def test_a_view_of_the_part_that_it_sees_is_the_same() -> None:
    pictures, masks = a_clip()
    sizes = set()
    for seed in range(40):
        view = drawn(seed, varied=seed % 2 == 0, mouth=(9.5, 51.5) if seed % 3 else None)
        rows, columns, part = view.cut(SIZE, SIZE)
        sizes.add(rows.stop - rows.start)
        seen, seen_masks = view.of(pictures, masks)
        of_part, masks_of_part = part.of(pictures[..., rows, columns], masks[..., rows, columns])
        torch.testing.assert_close(of_part, seen, atol=1e-4, rtol=0)
        torch.testing.assert_close(masks_of_part, seen_masks, atol=1e-4, rtol=0)
    assert min(sizes) < SIDE + 5 < SIZE


def test_a_batch_shows_what_its_views_show_of_whole_pictures() -> None:
    chance = np.random.default_rng(0)
    frames = torch.from_numpy(chance.integers(0, 256, (8, FRAMES, SIZE, SIZE, 3), dtype=np.uint8))
    ellipses = torch.tensor([[0.4, 0.6, 0.2, 0.1], [0.3, 0.3, 0.1, 0.1], [0.6, 0.3, 0.1, 0.1]]).expand(8, FRAMES, 3, 4)
    views = [drawn(seed, varied=seed % 2 == 0) for seed in range(8)]
    pictures, mouths, eyes = ClipBatch(frames, ellipses, views).on(torch.device("cpu"))
    for number, view in enumerate(views):
        masks = torch.stack([mask_of(part, SIZE, SIZE) for part in (ellipses[number, :, :1], ellipses[number, :, 1:])])
        whole, whole_masks = view.of(as_video(frames[number], torch.device("cpu")), masks)
        torch.testing.assert_close(pictures[number], whole, atol=1e-3, rtol=0)
        for found, wanted in zip((mouths[number], eyes[number]), whole_masks, strict=True):
            assert float((found - wanted).abs().mean()) < 0.03
