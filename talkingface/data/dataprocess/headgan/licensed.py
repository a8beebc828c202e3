"""Reads face models that need a licence, BFM and LSFM, as :class:`FaceModel`.

The toolkit contains none of them. Their axes are x right, y up, z toward the viewer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from talkingface.data.face.face_model import FaceModel
from talkingface.data.face.raster import pncc_colors
from talkingface.data.face.topology import IBUG68
from talkingface.data.npz import read_npz
from talkingface.errors import DataError

FILES = {"bfm": "BFM_model_front.mat", "lsfm": "all_all_all.mat"}
LSFM_MESH = "lsfm_mesh.npz"
# Bounds of LSFM's coefficients in the official fit, taken as three standard deviations.
_BOUNDS = (0.8, 1.5)


def missing_file(kind: str, path: Path) -> str:
    """The error message for a missing file."""
    return (
        f"geometry.model={kind} needs {path}, which needs a licence from the model's owner. Put it "
        "there, name it with geometry.model_file, or use geometry.model=mediapipe_pca, which needs "
        "no file."
    )


def read_licensed(kind: str, path: Path, n_id: int | None, n_exp: int) -> FaceModel:
    """Read a licensed model.

    Args:
        kind: ``bfm`` (``BFM_model_front.mat`` in the layout of Deep3DFaceRecon) or ``lsfm``
            (``all_all_all.mat``; beside it ``lsfm_mesh.npz`` with ``triangles`` (F,3) and
            ``corr`` (K,2): MediaPipe's point, the model's vertex).

    Raises:
        DataError: the file is missing or has another layout.
    """
    if not path.is_file():
        raise DataError(missing_file(kind, path))
    from scipy.io import loadmat

    try:
        content = loadmat(str(path), squeeze_me=True, struct_as_record=False)
        return (_bfm if kind == "bfm" else _lsfm)(content, path, n_id, n_exp)
    except (KeyError, AttributeError, ValueError, OSError, NotImplementedError) as error:
        raise DataError(f"{path} does not have the layout of a {kind} model: {error!r}") from error


def _bfm(content: dict[str, Any], path: Path, n_id: int | None, n_exp: int) -> FaceModel:
    corr = np.stack([IBUG68, np.asarray(content["keypoints"]).ravel().astype(int) - 1], axis=1)
    bases = content["idBase"][:, : n_id or 80], content["exBase"][:, :n_exp]
    triangles = np.asarray(content["tri"]).astype(int) - 1
    return _model("bfm", content["meanshape"], *bases, (1.0, 1.0), triangles, corr)


def _lsfm(content: dict[str, Any], path: Path, n_id: int | None, n_exp: int) -> FaceModel:
    mesh = read_npz(path.with_name(LSFM_MESH))
    model = content["fmod"]
    bases = model.id_basis[:, : n_id or 157], model.exp_basis[:, :n_exp]
    std = tuple(bound / 3 for bound in _BOUNDS)
    return _model("lsfm", model.mean, *bases, std, mesh["triangles"], mesh["corr"])


def _model(
    name: str,
    mean: np.ndarray,
    id_basis: np.ndarray,
    exp_basis: np.ndarray,
    std: tuple[float, float],
    faces: np.ndarray,
    corr: np.ndarray,
) -> FaceModel:
    """The model rotated to the axes of :class:`FaceModel` and scaled to radius 1; triangles whose
    front faces the viewer get a positive area."""
    turn = np.array([1.0, -1.0, -1.0])
    points = np.asarray(mean, np.float64).reshape(-1, 3) * turn
    points = points - points.mean(axis=0)
    size = np.sqrt(np.square(points).sum(axis=1).mean())
    points = points / size

    def basis(values: np.ndarray) -> np.ndarray:
        moved = np.asarray(values, np.float64).reshape(len(points), 3, -1) * turn[:, None] / size
        return moved.reshape(3 * len(points), -1).astype(np.float32)

    faces = np.asarray(faces, np.int64)
    a, b, c = (points[faces[:, k], :2] for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    if area.sum() < 0:
        faces = faces[:, ::-1]
    corr = np.asarray(corr, np.int64)
    identity, expression = basis(id_basis), basis(exp_basis)
    return FaceModel(
        mean=points.astype(np.float32),
        id_basis=identity,
        id_std=np.full(identity.shape[1], std[0], np.float32),
        exp_basis=expression,
        exp_std=np.full(expression.shape[1], std[1], np.float32),
        faces=faces.astype(np.int32),
        pncc=pncc_colors(points).astype(np.float32),
        vertices=corr[:, 0],
        corresponding=corr[:, 1],
        topology=name,
        sources=name,
    )
