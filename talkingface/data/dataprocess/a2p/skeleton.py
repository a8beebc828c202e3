"""Joints of a body from poses, by the kinematic tree in the authors' licensed assets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from talkingface.data.scenes import POSE_SIZE
from talkingface.errors import DataError


@dataclass(frozen=True)
class Skeleton:
    """A kinematic tree.

    Attributes:
        parents: (J,) number of the parent joint; -1 at the root.
        offsets: (J,3) position in the parent's coordinate system.
        turns: (J,4) rotation that precedes the pose's rotation, quaternions (x,y,z,w).
        transform: (7J,P) from pose and scale parameters to (tx,ty,tz,rx,ry,rz,s) of each joint.
        base: (7J,) added to the transformed parameters.
        scales: scale parameters, which follow those of the pose.
        size: factor of all positions.
    """

    parents: np.ndarray
    offsets: np.ndarray
    turns: np.ndarray
    transform: np.ndarray
    base: np.ndarray
    scales: np.ndarray
    size: float = 1.0

    @classmethod
    def read(cls, path: Path) -> Skeleton:
        """Read ``static_assets.pt`` of the authors.

        Raises:
            DataError: the file is missing or has other content.
        """
        import torch

        if not path.is_file():
            raise DataError(f"{path} does not exist; it is the authors' static_assets.pt")
        try:
            assets = torch.load(path, map_location="cpu", weights_only=True)
            tree = assets["Skeleton"]["Bones"] if "Skeleton" in assets else assets["skeleton"]
            count = len(tree)
            parents = np.array([int(bone["Parent"]) for bone in tree])
            skeleton = cls(
                parents=np.where(parents >= count, -1, parents),
                offsets=np.array([np.asarray(bone["TranslationOffset"]) for bone in tree], float),
                turns=np.array([np.asarray(bone["PreRotation"]) for bone in tree], float),
                transform=np.asarray(assets["transform"], float),
                base=np.asarray(assets["transform_offsets"], float).reshape(-1),
                scales=np.asarray(assets["lbs_scale"], float).reshape(-1),
                size=float(np.asarray(assets["global_scaling"]).reshape(-1)[0]),
            )
        except Exception as error:  # a foreign pickle can fail in any way
            raise DataError(f"{path} is not the expected static_assets.pt: {error}") from error
        if int(assets["nr_position_params"]) != POSE_SIZE:
            raise DataError(f"{path} has {assets['nr_position_params']} pose parameters, not 104")
        return skeleton

    def joints(self, poses: np.ndarray) -> np.ndarray:
        """Poses (T,104) -> positions of the joints (T,J,3)."""
        count = len(poses)
        scales = np.broadcast_to(self.scales, (count, len(self.scales)))
        params = np.concatenate([poses, scales], axis=1)
        local = (params @ self.transform.T + self.base).reshape(count, -1, 7)
        places = np.zeros((count, len(self.parents), 3))
        turns = np.zeros((count, len(self.parents), 4))
        sizes = np.ones((count, len(self.parents), 1))
        for joint, parent in enumerate(self.parents):
            shift = local[:, joint, :3] + self.offsets[joint]
            before = np.broadcast_to(self.turns[joint], (count, 4))
            turn = _product(before, _euler(local[:, joint, 3:6]))
            size = 2.0 ** local[:, joint, 6:]
            if parent < 0:
                places[:, joint], turns[:, joint], sizes[:, joint] = shift, turn, size
                continue
            rotated = _rotated(turns[:, parent], sizes[:, parent] * shift)
            places[:, joint] = places[:, parent] + rotated
            turns[:, joint] = _product(turns[:, parent], turn)
            sizes[:, joint] = sizes[:, parent] * size
        return places * self.size


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product of quaternions (N,4), (x,y,z,w)."""
    av, aw, bv, bw = a[:, :3], a[:, 3:], b[:, :3], b[:, 3:]
    vector = aw * bv + bw * av + np.cross(av, bv)
    return np.concatenate([vector, aw * bw - (av * bv).sum(axis=1, keepdims=True)], axis=1)


def _rotated(turn: np.ndarray, points: np.ndarray) -> np.ndarray:
    twice = 2 * np.cross(turn[:, :3], points)
    return points + turn[:, 3:] * twice + np.cross(turn[:, :3], twice)


def _euler(angles: np.ndarray) -> np.ndarray:
    """XYZ angles (N,3) in rad -> quaternions: about x first, then y, then z."""
    total = np.tile([0.0, 0.0, 0.0, 1.0], (len(angles), 1))
    for axis in range(3):
        one = np.zeros((len(angles), 4))
        one[:, axis], one[:, 3] = np.sin(angles[:, axis] / 2), np.cos(angles[:, axis] / 2)
        total = _product(one, total)
    return total
