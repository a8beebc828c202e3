"""Temporal consistency by optical flow, TCM, and flicker.

The equation in MODA is incomplete. This version has the real video's error in the numerator; both
errors are reported too, so that other versions can be computed.
"""

from __future__ import annotations

import math

import numpy as np

from talkingface.evaluator.base_metric import Metric
from talkingface.evaluator.clip import ClipPair, missing_faces
from talkingface.utils.env import import_cv2

# Grey levels; mean change of the face between a frame and its copy in a video. In speech 99.7 % of
# the changes are larger; of copies in videos of 360 px, 79 % are smaller, in larger ones all.
COPY = 0.25
MIN_SIDE = 16  # px; the coarsest patches of the flow need about this size
RATIOS = {"ref_over_gen": 1, "gen_over_ref": -1}


def motion(frame: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Flow (H,W,2) from a (H,W) uint8 picture to the one before it, by OpenCV's DIS, medium."""
    cv2 = import_cv2()
    # A new estimator each time: the buffers of a used one change the next result slightly.
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return estimator.calc(frame, before, None)


def warp(image: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sample an image at x + flow(x) for each pixel x.

    Args:
        image: (H,W) or (H,W,C).
        flow: (H,W,2) float32 in pixels, x first.

    Returns:
        The warped image, and (H,W) bool: whether x + flow(x) lies inside the picture.
    """
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    cv2 = import_cv2()
    warped = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped, (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def visible(flow: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """(H,W) bool: forward and backward flow agree, so the pixel is not occluded."""
    back, _ = warp(backward, flow)
    gap = ((flow + back) ** 2).sum(axis=-1)
    return gap < 0.01 * ((flow**2).sum(axis=-1) + (back**2).sum(axis=-1)) + 0.5


def consistency(real: float, generated: float, ratio: str = "ref_over_gen", eps: float = 1e-6):
    """exp(-|q - 1|) of the quotient q of two warping errors (numbers or arrays), 1 when equal."""
    quotient = (real + eps) / (generated + eps)
    return np.exp(-np.abs(quotient ** RATIOS[ratio] - 1))


def flicker(luma: np.ndarray) -> float:
    """Deviation over time of (T,) brightnesses from their 5-frame median; nan for one frame."""
    from scipy.ndimage import median_filter

    if len(luma) < 2:
        return math.nan
    return float(np.std(luma - median_filter(luma, 5, mode="nearest")))


def _change(before: np.ndarray, after: np.ndarray, box: tuple[int, ...] | None) -> float:
    """Mean absolute difference of the face; without one, of the part that changes most."""
    cv2 = import_cv2()
    difference = cv2.absdiff(before, after)
    if box is None:
        return float(cv2.resize(difference, (16, 16), interpolation=cv2.INTER_AREA).max())
    x0, y0, x1, y1 = box
    return float(difference[y0:y1, x0:x1].mean())


class TCM(Metric):
    """Warping errors of the generated and the real video compared, and flicker of the face."""

    revision = 2  # without frames that the real video repeats
    choices = {"ratio": tuple(RATIOS), "flow_from": ("own", "ref")}

    def definition(self) -> str:
        return super().definition().replace("[", "[DIS-medium,", 1)

    def start(self, clip: ClipPair) -> None:
        super().start(clip)
        self._errors: list[list[float]] = []  # of real and generated frames
        self._changes: list[list[float]] = []  # of the face in them
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._luma: list[float] = []
        self._before: list[tuple[np.ndarray, np.ndarray]] | None = None

    def update(self, clip: ClipPair, index: int, generated: np.ndarray, real: np.ndarray) -> None:
        cv2 = import_cv2()
        box = clip.region("face", index)
        if box is not None:
            x0, y0, x1, y1 = box
            face = cv2.cvtColor(generated[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY)
            self._luma.append(float(face.mean()))
        now = [self._prepared(picture) for picture in (real, generated)]
        if min(now[0][1].shape) >= MIN_SIDE:
            if self._before is not None and index not in clip.cuts:
                self._errors.append(self._pair_errors(self._before, now))
                both = zip(self._last, (real, generated), strict=True)
                self._changes.append([_change(before, after, box) for before, after in both])
            self._before, self._last = now, (real, generated)

    def _prepared(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A frame in colour and in grey, shrunk to ``max_side``."""
        cv2 = import_cv2()
        scale = self.params["max_side"] / max(picture.shape[:2])
        if scale < 1:
            size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        return picture.astype(np.float32), cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)

    def _pair_errors(self, before: list, now: list) -> list[float]:
        """Mean squared difference to the previous frame, warped by the flow; nan without pixels."""
        errors, flow, valid = [], None, None
        for (last, last_grey), (frame, grey) in zip(before, now, strict=True):
            if flow is None or self.params["flow_from"] == "own":
                flow = motion(grey, last_grey)
                valid = True
                if self.params["occlusion"]:
                    valid = visible(flow, motion(last_grey, grey))
            moved, inside = warp(last, flow)
            moved -= frame
            squares = (moved * moved)[inside & valid]
            errors.append(float(squares.mean(dtype=np.float64)) if squares.size else math.nan)
        return errors

    def finish(self, clip: ClipPair) -> dict[str, float]:
        errors = np.array(self._errors, np.float64).reshape(-1, 2)
        copies = np.array(self._changes, np.float64).reshape(-1, 2) < COPY
        usable = np.isfinite(errors).all(axis=1)
        errors, copies = errors[usable], copies[usable]
        results = dict.fromkeys(self.outputs, math.nan)
        if len(errors):
            self._note_copies(clip, *copies.T)
            # A copied frame in the real video says nothing about the motion of the generated one.
            used = errors[~copies[:, 0]] if not copies[:, 0].all() else errors
            terms = consistency(*used.T, self.params["ratio"], self.params["eps"])
            real, generated = used.mean(axis=0)
            results.update(E_O=float(real), E_V=float(generated))
            if real == generated or not copies[:, 0].all():
                results["TCM"] = float(terms.mean())
            if real == generated:  # or both videos are still
                results["E_ratio"] = 1.0
            elif real and not copies[:, 0].all():
                results["E_ratio"] = float(generated / real)
            undefined = (key for key in ("TCM", "E_ratio") if math.isnan(results[key]))
            self.reasons = dict.fromkeys(undefined, "the real video does not move")
        else:
            small = self._before is None and clip.n_frames > 1
            reason = f"a side is shorter than {MIN_SIDE} px" if small else "needs two frames"
            self.reasons = dict.fromkeys(("TCM", "E_O", "E_V", "E_ratio"), reason)
        share = len(self._luma) / max(clip.n_frames, 1)
        reason = missing_faces("flicker", clip, share, "in the real video")
        if reason is None:
            results["flicker"] = flicker(np.array(self._luma))
        if not math.isfinite(results["flicker"]):
            self.reasons["flicker"] = reason or "needs two frames"
        return results

    @staticmethod
    def _note_copies(clip: ClipPair, real: np.ndarray, generated: np.ndarray) -> None:
        """Note how often each video repeats its previous frame, (n,) bool each."""
        if real.any():
            clip.notes.append(
                f"TCM: the real video repeats {real.sum()} of {len(real)} frames"
                + "; they are left out" * (not real.all())
            )
        if (alone := int((generated & ~real).sum())) > 0.05 * len(real):
            clip.notes.append(
                f"TCM: the generated video repeats {alone} of {len(real)} frames where the real "
                "one moves"
            )
