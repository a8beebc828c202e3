"""Layout of recorded conversations with motion, as audio2photoreal released them, and the
configuration keys of such datasets, which have no video.

A scene is a group of files in one folder: its name and one of the endings below.
"""

from __future__ import annotations

from pydantic import Field

from talkingface.config.schema import DatasetConfig

SAMPLE_RATE = 48_000
POSE, FACE = "_body_pose.npy", "_face_expression.npy"
SOUND, MISSING = "_audio.wav", "_missing_face_frames.npy"
LIPS = "_lip_vertices.npy"  # not in the released data
POSE_SIZE, FACE_SIZE = 104, 256


class MotionDatasetConfig(DatasetConfig):
    """Keys of datasets of motion."""

    wrap_root_yaw: bool = Field(
        False, description="Wrap the root's yaw (column 3 of the poses) to 0..2 pi."
    )
    partner: str | None = Field(
        None, description="Dataset of the partner's recordings, for data.flip_person."
    )
