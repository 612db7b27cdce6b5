"""Reading MakeHuman meshes and fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from visavis.training.data.makehuman import AssetError, read_fit, read_mesh


def test_triangles_become_quads_whose_last_corner_repeats(tmp_path: Path) -> None:
    path = tmp_path / "mesh.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0.5 0.25\nf 1/1 2/1 3/1\n")
    mesh = read_mesh(path)
    assert mesh.corners_Q4.tolist() == [[0, 1, 2, 2]]
    assert mesh.texture_coordinates.tolist() == [[0.5, 0.25]]


def test_a_fitted_vertex_is_the_weighted_sum_plus_the_scaled_offset_in_body_axes(tmp_path: Path) -> None:
    path = tmp_path / "hat.mhclo"
    path.write_text("obj_file hat.obj\nx_scale 0 1 2.0\nverts 0\n0 1 2 0.5 0.25 0.25 1.0 10.0 100.0\n2\n")
    base = np.array([[0.0, 0, 0], [4, 0, 0], [0, 8, 0]])
    # x: 4 / 2 scales the offset; file axes x, y (up), z (front) become x, z, -y
    expected = np.array([[0.25 * 4 + 2.0, 0.25 * 8 - 100.0, 10.0], [0, 8, 0]])
    np.testing.assert_allclose(read_fit(path).place(base), expected)


def test_rows_after_delete_verts_tie_nothing(tmp_path: Path) -> None:
    path = tmp_path / "hat.mhclo"
    path.write_text("# a comment\nobj_file hat.obj\nverts 0\n5\nmaterial hat.mhmat\n6\ndelete_verts\n7 - 9\n")
    assert read_fit(path).base_vertices_V3.tolist() == [[5, 5, 5], [6, 6, 6]]


@pytest.mark.parametrize("text", ["", "obj_file hat.obj\nverts 0\n", "verts 0\n1\n"])
def test_an_incomplete_fit_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hat.mhclo"
    path.write_text(text)
    with pytest.raises(AssetError, match=r"hat\.mhclo"):
        read_fit(path)


def test_a_missing_mesh_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"gone\.obj"):
        read_mesh(tmp_path / "gone.obj")
