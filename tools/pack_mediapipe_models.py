"""Make the segmentation and pose models of ``talkingface/data/face/models`` from an old wheel.

MediaPipe 0.10.21 is the last wheel with models inside; its Tasks API reads metadata that they lack.
In an environment with ``mediapipe==0.10.21``:

    python tools/pack_mediapipe_models.py mediapipe-0.10.21-*.whl talkingface/data/face/models

The weights stay as they are; the range of the input values is added. (The writer stamps the time of
the run into two bytes of the segmenter.)
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from mediapipe.tasks.python.metadata.metadata_writers import metadata_writer, writer_utils

BUNDLE_DATE = (1980, 1, 1, 0, 0, 0)  # equal bytes at every run


def with_metadata(model: bytes, name: str, mean: float, scale: float) -> bytes:
    """The model with the range of its input in its metadata: (pixel - mean) / scale."""
    writer = metadata_writer.MetadataWriter(bytearray(model))
    writer.add_general_info(name, "")
    writer.add_image_input([mean], [scale])
    for number in range(writer_utils.get_subgraph(bytearray(model)).OutputsLength()):
        writer.add_feature_output(f"o{number}", "")
    return bytes(writer.populate()[0])


def main() -> None:
    wheel, folder = zipfile.ZipFile(sys.argv[1]), Path(sys.argv[2])

    def read(name: str) -> bytes:
        return wheel.read(f"mediapipe/modules/{name}.tflite")

    segmenter = read("selfie_segmentation/selfie_segmentation")
    segmenter = with_metadata(segmenter, "selfie_segmenter", 0.0, 255.0)
    (folder / "selfie_segmenter.tflite").write_bytes(segmenter)
    parts = {
        "pose_detector": (read("pose_detection/pose_detection"), 127.5, 127.5),
        "pose_landmarks_detector": (read("pose_landmark/pose_landmark_full"), 0.0, 255.0),
    }
    with zipfile.ZipFile(folder / "pose_landmarker.task", "w", zipfile.ZIP_STORED) as bundle:
        for name, (model, mean, scale) in parts.items():
            entry = zipfile.ZipInfo(f"{name}.tflite", BUNDLE_DATE)
            bundle.writestr(entry, with_metadata(model, name, mean, scale))


if __name__ == "__main__":
    main()
