"""How another face detector's boxes lie on our face oval: the margins for ``face.box_margins``.

    python benchmarks/box_calibration.py clip.mp4 more.mp4 --yunet=yunet_n.onnx --rfb=RFB-320.onnx
    python benchmarks/box_calibration.py clip.mp4 --boxes=s3fd.csv   # frame,x0,y0,x1,y1 per line

Official HyperLips weights saw crops of S3FD's boxes. S3FD learned the boxes of WIDER FACE, as
YuNet and the RFB detector did; their small files stand in for it where S3FD's are not at hand. The
boxes of S3FD itself, dumped by any tool, are read from a CSV. Margins are shares of the oval's
height: medians over frames, with the spread between clips.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from talkingface.data.face.boxes import MARGINS
from talkingface.data.face.mesh import FaceMesher
from talkingface.data.face.topology import FACE_OVAL
from talkingface.data.face.tracking import box_overlap
from talkingface.data.media.reader import read_frames
from talkingface.utils.env import import_cv2

Detector = Callable[[int, np.ndarray], "np.ndarray | None"]  # frame number, RGB -> x0, y0, x1, y1
NAMES = ("top", "bottom", "side")


def yunet(path: str) -> Detector:
    """OpenCV's YuNet."""
    cv2 = import_cv2()
    network = cv2.FaceDetectorYN.create(path, "", (320, 320), score_threshold=0.6)

    def detect(_: int, frame: np.ndarray) -> np.ndarray | None:
        network.setInputSize(frame.shape[1::-1])
        found = network.detect(np.ascontiguousarray(frame[..., ::-1]))[1]
        if found is None:
            return None
        x, y, width, height = found[found[:, -1].argmax(), :4]
        return np.array([x, y, x + width, y + height])

    return detect


def rfb(path: str) -> Detector:
    """Ultra-light RFB-320: scores (1,4420,2) and relative boxes (1,4420,4)."""
    cv2 = import_cv2()
    network = cv2.dnn.readNetFromONNX(path)

    def detect(_: int, frame: np.ndarray) -> np.ndarray | None:
        blob = cv2.dnn.blobFromImage(frame, 1 / 128, (320, 240), (127, 127, 127))
        network.setInput(blob)
        outputs = dict(zip(("scores", "boxes"), network.forward(["scores", "boxes"]), strict=True))
        scores = outputs["scores"][0, :, 1]
        best = scores.argmax()
        size = np.tile(frame.shape[1::-1], 2)
        return outputs["boxes"][0, best] * size if scores[best] > 0.7 else None

    return detect


def listed(path: str) -> Detector:
    """Boxes of a CSV with lines frame,x0,y0,x1,y1."""
    rows = np.atleast_2d(np.loadtxt(path, delimiter=",", comments="#"))
    boxes = {int(row[0]): row[1:5] for row in rows}
    return lambda index, frame: boxes.get(index)


def pairs(video: str, detect: Detector, every: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Box of our oval and box of the detector, where both see the same face."""
    with FaceMesher(tracking=False, max_faces=1) as mesher:
        for index, frame in enumerate(read_frames(Path(video), fps=25)):
            if index % every:
                continue
            faces, box = mesher(frame), detect(index, frame)
            if len(faces) and box is not None:
                oval = faces[0][list(FACE_OVAL), :2]
                own = np.concatenate([oval.min(axis=0), oval.max(axis=0)])
                if box_overlap(own, box) > 0.3:
                    yield own, box


def margins(own: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Top, bottom and mean side margin of a box (4,) around an oval's box (4,)."""
    height = own[3] - own[1]
    side = (own[0] - box[0] + box[2] - own[2]) / 2
    return np.array([own[1] - box[1], box[3] - own[3], side]) / height


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--yunet", help="ONNX file of YuNet")
    parser.add_argument("--rfb", help="ONNX file of RFB-320")
    parser.add_argument("--boxes", help="CSV of any detector, for a single video")
    parser.add_argument("--every", type=int, default=10, help="look at every n-th frame")
    args = parser.parse_args()
    detectors = {"YuNet": (yunet, args.yunet), "RFB-320": (rfb, args.rfb)}
    detectors["boxes"] = (listed, args.boxes)
    if args.boxes and len(args.videos) > 1:
        parser.error("--boxes belongs to one video")
    for name, (build, path) in detectors.items():
        if not path:
            continue
        detect, clips = build(path), []
        for video in args.videos:
            found = [margins(*pair) for pair in pairs(video, detect, args.every)]
            if found:
                clips.append(np.median(found, axis=0))
                text = ", ".join(f"{n} {v:+.3f}" for n, v in zip(NAMES, clips[-1], strict=True))
                print(f"{name:8} {Path(video).name}: {text} ({len(found)} frames)")
        if clips:
            middle, spread = np.median(clips, axis=0), np.std(clips, axis=0)
            text = ", ".join(f"{m:.3f} +- {s:.3f}" for m, s in zip(middle, spread, strict=True))
            print(f"{name}: face.box_margins [top, bottom, side] = {text}; ours {list(MARGINS)}")


if __name__ == "__main__":
    main()
