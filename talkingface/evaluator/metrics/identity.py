"""CSIM: identity of the generated face, as cosine similarity of face embeddings (ArcFace)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from talkingface.data.face.topology import MOUTH_CORNERS, NOSE_TIP, PUPILS
from talkingface.data.face.tracking import video_landmarks
from talkingface.data.media.images import is_image, read_image
from talkingface.data.media.reader import read_frames
from talkingface.errors import WeightsError
from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import ClipPair, missing_faces
from talkingface.evaluator.metrics.landmark_distance import fit_similarity, found
from talkingface.utils.env import import_cv2
from talkingface.utils.weights import require_trust

SIDE = 112
# Positions (x, y) of the eyes, the nose tip and the mouth corners in ArcFace's input of 112x112 px.
TEMPLATE = np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366),
                     (41.5493, 92.3655), (70.7299, 92.2041)])  # fmt: skip
POINTS = (*PUPILS, NOSE_TIP, *MOUTH_CORNERS)
FILES = ("arcface.onnx", "arcface.pt")
_HELP = (
    "CSIM needs a face recognition network (ArcFace type: 3x112x112 RGB in -1..1 to a vector) as "
    f"ONNX or TorchScript: put it into checkpoints/ as {FILES[0]} or {FILES[1]}, or set "
    "metric_params.CSIM.weights to its path. Mind its licence; many are for research only."
)
Embedder = Callable[[np.ndarray], np.ndarray]


def align_face(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A face with 478 points in a frame (H,W,3), moved onto the template: (112,112,3) uint8."""
    # The origin is the corner of the first pixel in MediaPipe, its centre in OpenCV and TEMPLATE.
    factor, shift = fit_similarity(points[list(POINTS), :2].astype(np.float64) - 0.5, TEMPLATE)
    a, b = factor.real, factor.imag
    matrix = np.array([[a, -b, shift.real], [b, a, shift.imag]])
    return import_cv2().warpAffine(frame, matrix, (SIDE, SIDE))


@lru_cache(maxsize=1)
def load_embedder(path: Path, _stamp: float, trust: str | None = None) -> Embedder:
    """A function from an aligned face (112,112,3) uint8 to a unit vector.

    Args:
        trust: SHA-256 values of trusted TorchScript files, which can run code.

    Raises:
        WeightsError: the file cannot be read in the format of its suffix, or is not trusted.
    """
    cv2 = import_cv2()
    if path.suffix != ".onnx":
        require_trust(path, trust, "TorchScript")
    try:
        if path.suffix == ".onnx":
            network = cv2.dnn.readNetFromONNX(str(path))

            def forward(inputs: np.ndarray) -> np.ndarray:
                network.setInput(inputs)
                return network.forward()
        else:
            import torch

            script = torch.jit.load(str(path), map_location="cpu").eval()

            @torch.no_grad()
            def forward(inputs: np.ndarray) -> np.ndarray:
                return script(torch.from_numpy(inputs)).numpy()
    except (cv2.error, RuntimeError) as error:
        kind = "ONNX" if path.suffix == ".onnx" else "TorchScript"
        first_line = str(error).partition("\n")[0]
        raise WeightsError(f"{path} cannot be read as {kind}: {first_line}") from error

    def embed(face: np.ndarray) -> np.ndarray:
        inputs = (face.astype(np.float32).transpose(2, 0, 1)[None] - 127.5) / 127.5
        vector = forward(np.ascontiguousarray(inputs)).astype(np.float64).ravel()
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    return embed


class CSIM(Metric):
    """Mean cosine similarity of the embeddings of generated faces to two references.

    ``CSIM``: the source of the clip, else the first real frame with a face. ``CSIM_real``: the real
    frame at the same time. Another network changes the values by 0.05-0.1, so its file name is part
    of the definition.
    """

    revision = 2  # other places of the frames

    @cached_property
    def path(self) -> Path | None:
        return self.weights_file(*FILES, key="weights")

    def missing(self) -> str | None:
        if self.path is None or not self.path.is_file():
            return f"{self.path} does not exist. {_HELP}" if self.path else _HELP
        return None

    def definition(self) -> str:
        network = f"{self.path.name}:{self.checksum(self.path)}" if self.path else "none"
        return f"{self.name}[network={network},{self.settings('weights')}]"

    def start(self, clip: ClipPair) -> None:
        super().start(clip)
        self._embed = load_embedder(
            self.path, self.path.stat().st_mtime, self.cfg.trust_checkpoint if self.cfg else None
        )
        self._faces: list[list[np.ndarray | None]] = []  # embeddings, generated and real
        self._first: np.ndarray | None = None  # embedding of the first real frame with a face

    def update(self, clip: ClipPair, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        if self._first is None:
            self._first = self._embedded(real, clip.real_landmarks, index)
        if self.sampled(index):
            face = self._embedded(generated, clip.generated_landmarks, index)
            self._faces.append([face, self._embedded(real, clip.real_landmarks, index)])

    def _embedded(self, frame: np.ndarray, points: np.ndarray, index: int) -> np.ndarray | None:
        has_face = index < len(points) and np.isfinite(points[index]).all()
        return self._embed(align_face(frame, points[index])) if has_face else None

    def _source(self, clip: ClipPair) -> np.ndarray | None:
        """Embedding of the first face of the clip's source."""
        path = clip.source
        if path is None:
            return self._first
        points = video_landmarks(path, fps=clip.fps, tracking=False)
        index = next(iter(np.flatnonzero(found(points))), None)
        if index is None:
            return None
        frames = iter([read_image(path)]) if is_image(path) else read_frames(path, fps=clip.fps)
        return self._embedded(next(islice(frames, index, None)), points, index)

    def finish(self, clip: ClipPair) -> dict[str, float]:
        source = self._source(clip)
        if source is None:
            where = "the real video" if clip.source is None else clip.source.name
            return self.undefined(f"no face was found in {where}")
        to_source = [g @ source for g, _ in self._faces if g is not None]
        to_real = [g @ r for g, r in self._faces if g is not None and r is not None]
        results = {"CSIM": math.nan, "CSIM_real": math.nan}
        for key, cosines, where in (
            ("CSIM", to_source, "in the generated video"),
            ("CSIM_real", to_real, "in both videos"),
        ):
            reason = missing_faces(key, clip, len(cosines) / len(self._faces), where)
            if reason:
                self.reasons[key] = reason
            else:
                results[key] = float(np.mean(cosines))
        return results
