"""Named expressions of a face model: open jaw, smile, raised brows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from talkingface.data.face.face_model import FaceModel
from talkingface.data.face.topology import (
    BROW_LEFT,
    BROW_RIGHT,
    EYE_LEFT,
    EYE_RIGHT,
    INNER_LIP_BOTTOM,
    INNER_LIP_TOP,
    MOUTH_CORNERS,
)
from talkingface.errors import ConfigError

# Name -> (points, points, axis, sign): the difference of the two means along the axis, times the
# sign, grows with the expression. Axes: x right, y down.
_BROWS = (*BROW_LEFT[0], *BROW_LEFT[1], *BROW_RIGHT[0], *BROW_RIGHT[1])
_LIPS = (INNER_LIP_TOP, INNER_LIP_BOTTOM)
NAMED = {
    "jaw_open": (((INNER_LIP_BOTTOM,), (INNER_LIP_TOP,), 1, 1.0),),
    "smile": (
        ((MOUTH_CORNERS[1],), (MOUTH_CORNERS[0],), 0, 1.0),
        (MOUTH_CORNERS, _LIPS, 1, -1.0),
    ),
    "brows_up": ((_BROWS, EYE_LEFT + EYE_RIGHT, 1, -1.0),),
}


def direction(model: FaceModel, name: str) -> np.ndarray:
    """(n_exp,) change of the coefficients by one standard deviation along a named expression.

    Among all changes with the same probability in the training data it is the one that changes the
    distances of :data:`NAMED` most.

    Raises:
        ConfigError: the face model does not contain the points or the expression.
    """
    basis = model.exp_basis.reshape(len(model.mean), 3, -1).astype(np.float64)
    vertex = dict(zip(model.vertices.tolist(), model.corresponding.tolist(), strict=True))
    slope = np.zeros(model.n_exp)
    for first, second, axis, sign in NAMED[name]:
        rows = [[vertex[p] for p in points if p in vertex] for points in (first, second)]
        if not all(rows):
            raise ConfigError(f"the face model has no points for '{name}'; use coefficient numbers")
        one, two = (basis[part, axis].mean(axis=0) for part in rows)
        slope += sign * (one - two)
    weighted = slope * model.exp_std
    length = np.linalg.norm(weighted)
    if length == 0:
        raise ConfigError(f"the training clips of the face model contain no '{name}'")
    return weighted / length * model.exp_std


def expression_offset(model: FaceModel, amounts: Mapping[str, float]) -> np.ndarray:
    """(n_exp,) offset of the coefficients for ``infer.edit.expression``.

    Args:
        amounts: standard deviations by name (:data:`NAMED`) or number of a coefficient.

    Raises:
        ConfigError: a name or number is unknown, or ``amounts`` is empty.
    """
    total = np.zeros(model.n_exp)
    for name, amount in amounts.items():
        if name in NAMED:
            total += amount * direction(model, name)
        elif name.isdigit() and int(name) < model.n_exp:
            total[int(name)] += amount * float(model.exp_std[int(name)])
        else:
            raise ConfigError(
                f"infer.edit.expression: '{name}' is neither {', '.join(NAMED)} nor a number below "
                f"{model.n_exp}"
            )
    if not amounts:
        raise ConfigError(
            "infer.mode=edit_expression needs infer.edit.expression, e.g. "
            "--infer.edit.expression.smile=2"
        )
    return total
