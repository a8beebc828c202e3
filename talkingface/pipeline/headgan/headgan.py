"""Videos by HeadGAN: reconstruction, reenactment by a driver or a voice, and edits."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from talkingface.data.clips import SPLITS, Clip, split_clips
from talkingface.data.dataprocess.headgan.camera import adapted, portrait_frame, turned
from talkingface.data.dataprocess.headgan.edits import expression_offset
from talkingface.data.dataprocess.headgan.files import PICTURES, SOUND
from talkingface.data.dataprocess.headgan.headgan_process import (
    HeadGANProcess,
    fit,
    require_coverage,
    resized,
    square,
)
from talkingface.data.face.face_model import Geometry
from talkingface.data.face.points import POINTS, Points
from talkingface.data.face.series import smooth, there_and_back
from talkingface.data.media.audio import load_audio
from talkingface.data.media.images import is_image
from talkingface.data.media.pictures import PictureReader, signed
from talkingface.data.media.probe import probe
from talkingface.data.media.reader import read_frames
from talkingface.errors import ConfigError, DataError
from talkingface.model.fuse import optimize_for_inference
from talkingface.pipeline.base import SAMPLE_RATE, Pipeline
from talkingface.pipeline.sources import SourceStore, write_reference
from talkingface.utils.paths import resolve

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.model.abstract_talkingface import AbstractTalkingFace

log = logging.getLogger(__name__)

_ONE_POSE = ("frontalize", "edit_pose")  # modes whose past PNCC pictures are the current one


@dataclass(frozen=True)
class HeadSource:
    """A prepared video or picture.

    Attributes:
        geometry: fitted face of every frame, in pixels of the stored crop.
        reference: number of the reference frame.
        driver: the driving video, in the mode ``cross``.
    """

    path: Path
    folder: Path
    points: Points
    geometry: Geometry
    reference: int
    driver: HeadSource | None = None

    @property
    def pictures(self) -> PictureReader:
        return PictureReader(self.folder / PICTURES)

    def wave(self) -> np.ndarray:
        """Sound of the source, 16 kHz mono; silence if it has none."""
        return load_audio(self.folder / SOUND, SAMPLE_RATE)

    def __len__(self) -> int:
        return len(self.points)


class Drawn(NamedTuple):
    """A generated frame, the warped reference and the PNCC, (S,S,3) uint8 RGB each."""

    image: np.ndarray
    warped: np.ndarray
    pncc: np.ndarray


class HeadGANPipeline(Pipeline):
    """Generation in the modes of ``infer.mode``.

    Sources and drivers are clips of the dataset, or any video or picture with a face, prepared on
    first use. The evaluation reconstructs each clip from one of its frames.
    """

    needs_config = (
        "geometry",
        "infer.batch_size",
        "infer.edit",
        "infer.mode",
        "infer.reference_frame",
        "infer.require_audio",
        "infer.side_by_side",
        "model_params.crop_size",
        "model_params.n_frames",
        "model_params.use_audio",
    )

    baselines = ("copy_reference", "warped", "other_driver")
    usage = "--source={source} --driver={driver}"

    def __init__(self, cfg: Config, model: AbstractTalkingFace, device: torch.device) -> None:
        super().__init__(cfg, model, device)
        self.size = cfg.model_params.crop_size
        self.network = optimize_for_inference(model.network.to(device))
        self.process = HeadGANProcess(cfg)
        self.store = SourceStore(cfg, self.process, PICTURES)
        self.face, self.voice = model.statistics.or_of(self.process)
        self._known: dict[Path, HeadSource] = {}

    @classmethod
    def implied(cls, options: Mapping[str, str]) -> dict[str, Any]:
        if options.get("driver"):
            return {"infer.mode": "cross"}
        return {"infer.mode": "audio"} if options.get("audio") else {}

    # -- sources -----------------------------------------------------------------------------------

    def prepare(self, source: Path, *, show_progress: str | bool = False) -> HeadSource:
        source = resolve(source)
        if source not in self._known:
            if len(self._known) > 64:
                self._known.clear()
            self._known[source] = self._load(source)
        return self._known[source]

    def with_driver(self, identity: HeadSource, driver: Path) -> HeadSource:
        return replace(identity, driver=self.prepare(driver))

    def _moving(self, identity: HeadSource) -> HeadSource:
        """The source, or in the mode ``cross`` its driver: whose movement and voice are used."""
        if self.cfg.infer.mode != "cross":
            return identity
        if identity.driver is None:
            raise ConfigError("infer.mode=cross needs --driver=<video>")
        return identity.driver

    def _load(self, source: Path) -> HeadSource:
        clip = self.store.clip_of(source)
        outputs = self.process.prepared.output_dirs
        folder = outputs(clip.id)[0] if clip else self.store.prepared(source)
        points = Points.read(folder / POINTS)
        geometry = fit(self.face, points, self.process.identity_mode(self.face))
        chosen = self.cfg.infer.reference_frame
        if chosen is None:
            chosen = portrait_frame(points, geometry, PictureReader(folder / PICTURES))
        elif chosen >= len(points):
            raise ConfigError(
                f"infer.reference_frame={chosen}, but {source.name} has {len(points)} frames "
                "(counted from 0)"
            )
        return HeadSource(source, folder, points, geometry, int(chosen))

    def reference(self, clip: Clip, folder: Path) -> Clip:
        """The real clip, cropped like the generated one."""
        own = self.prepare(clip.path)
        points = own.points
        settings = [points.start, len(points), points.fps, points.crop.tolist(), self.size]
        frames = (
            square(frame, points.crop, self.size)
            for number, frame in enumerate(read_frames(clip.path, fps=points.fps))
            if points.start <= number < points.start + len(points)
        )
        return write_reference(clip, folder, settings, frames, own.folder / SOUND, self.cfg.fps)

    def own_sound(self, source: Path, driver: Path | None = None) -> np.ndarray:
        """The sound without ``--audio``: that of the driver or the source, or silence."""
        mode = self.cfg.infer.mode
        if mode == "audio":
            raise ConfigError("infer.mode=audio needs --audio=<file>")
        if mode == "cross" and driver is None:
            raise ConfigError("infer.mode=cross needs --driver=<video>")
        video = driver or source
        if not probe(video).has_audio and mode in ("self", "cross"):
            if self.cfg.infer.require_audio:
                raise DataError(f"{video} has no sound (infer.require_audio)")
            log.warning("%s has no sound; the voice is silence", video.name)
        prepared = self.prepare(video)
        if is_image(video) or len(prepared) == 1:
            edit = self.cfg.infer.edit
            last = max((key[0] for key in edit.keyframes), default=0.0)
            seconds = max(edit.seconds, last) if mode.startswith("edit") else 1.0
            return np.zeros(round(seconds * SAMPLE_RATE), np.float32)
        return prepared.wave()

    # -- motion ------------------------------------------------------------------------------------

    def frame_count(self, identity: HeadSource, wave: np.ndarray) -> int:
        count = max(1, round(len(wave) * self.cfg.fps / SAMPLE_RATE))
        if self.cfg.infer.mode == "audio":
            return count
        moving = self._moving(identity)
        return count if len(moving) == 1 else min(len(moving), count)

    def motion(
        self, identity: HeadSource, wave: np.ndarray, count: int, baseline: str | None = None
    ) -> Geometry:
        """Faces and cameras of ``count`` frames with the neutral face of ``identity``."""
        options, own = self.cfg.infer, identity.geometry
        mode = options.mode
        if mode == "cross":
            moving = self._moving(identity).geometry
        elif baseline == "other_driver":
            moving = self.prepare(self._other(identity)).geometry
            moving = replace(moving, neutral=own.neutral)
        elif mode == "audio":
            speaker = self.model.components["audio2exp"].network
            spoken = speaker.speak(wave, self.cfg.fps, count, self.face)
            moving = self._expressed(identity, spoken)
        else:
            moving = own
        if options.smooth:
            moving = _smoothed(moving, options.smooth)
        moving = moving.part(there_and_back(len(moving), count))
        if mode == "frontalize":
            moving = replace(moving, rotation=np.broadcast_to(np.eye(3), (count, 3, 3)))
        elif mode == "edit_expression":
            offset = expression_offset(self.face, options.edit.expression)
            limit = 3 * self.face.exp_std
            changed = moving.expression + self._ramp(identity, count)[:, None] * offset
            # The network was not trained on expressions beyond three standard deviations.
            moving = replace(moving, expression=np.clip(changed, -limit, limit))
        elif mode == "edit_pose":
            moving = replace(moving, rotation=self._turns(identity, count) @ moving.rotation)
        reference = own.part([identity.reference])
        camera = options.camera
        if camera == "auto":
            foreign = mode == "cross" or baseline == "other_driver"
            camera = "adapt" if foreign else "raw"
        if camera != "raw":
            one = own if len(own) > 1 and options.camera_std else reference
            moving = adapted(moving, one, translation=camera == "adapt", std=options.camera_std)
        return replace(moving, neutral=own.neutral)

    def _ramp(self, identity: HeadSource, count: int) -> np.ndarray:
        """(count,) strength of an edit; for one picture it rises to 1 and falls again."""
        if len(identity) > 1 or not self.cfg.infer.edit.sweep or count < 3:
            return np.ones(count)
        return np.sin(np.linspace(0, np.pi, count))

    def _turns(self, identity: HeadSource, count: int) -> np.ndarray:
        """(count,3,3) rotations of ``infer.edit``."""
        edit = self.cfg.infer.edit
        if edit.keyframes:
            keys = np.array(sorted(edit.keyframes))
            time = np.arange(count) / self.cfg.fps
            angles = np.stack([np.interp(time, keys[:, 0], column) for column in keys[:, 1:].T], 1)
        else:
            angles = self._ramp(identity, count)[:, None] * (edit.yaw, edit.pitch, edit.roll)
        return turned(angles)

    def _other(self, identity: HeadSource) -> Path:
        """Video of another clip: the one half a test list away, else of any list."""
        for splits in (("test",), SPLITS):
            clips = [clip for split in splits for clip in split_clips(self.cfg, split)]
            good, _ = self.process.prepared.select([clip.id for clip in clips])
            paths = [clip.path.resolve() for clip in clips if clip.id in good]
            own = identity.path.resolve()
            others = [path for path in paths if path != own]
            if others:
                start = paths.index(own) if own in paths else 0
                return others[(start + len(others) // 2) % len(others)]
        raise DataError(f"{self.cfg.dataset} has no other clip that could drive this one")

    def _expressed(self, identity: HeadSource, expression: np.ndarray) -> Geometry:
        """Deviations (T,n_exp) from the person's mean expression, on the head of the source."""
        own = identity.geometry
        if len(own) > 1:
            expression = expression + own.expression.mean(axis=0)
        camera = own if len(own) > 1 else own.part([identity.reference])
        frames = there_and_back(len(camera), len(expression))
        return replace(camera.part(frames), expression=expression)

    def express(
        self, identity: HeadSource, expression: np.ndarray, wave: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Pictures (S,S,3) uint8 of given expressions on the head of a source.

        Args:
            expression: (T,n_exp) deviations from the person's mean expression.
            wave: mono 16 kHz samples, for the voice vectors.
        """
        moving = self._expressed(identity, expression)
        drawn = self.draw(identity, moving, self.vectors(identity, wave, len(expression)))
        yield from (one.image for one in drawn)

    # -- pictures ----------------------------------------------------------------------------------

    def generate(
        self, identity: HeadSource, wave: np.ndarray, *, baseline: str | None = None
    ) -> Iterator[np.ndarray]:
        count = self.frame_count(identity, wave)
        still = self._picture(identity)
        if baseline == "copy_reference":
            yield from (still for _ in range(count))
            return
        geometry = self.motion(identity, wave, count, baseline)
        drawn = self.draw(identity, geometry, self.vectors(identity, wave, count))
        if baseline == "warped":
            yield from (one.warped for one in drawn)
        elif self.cfg.infer.side_by_side and baseline is None:
            moving = self._moving(identity)
            for one, number in zip(drawn, there_and_back(len(moving), count), strict=True):
                driver = resized(moving.pictures[int(number)], self.size)
                yield np.concatenate([still, driver, one.pncc, one.warped, one.image], axis=1)
        else:
            yield from (one.image for one in drawn)

    def vectors(self, identity: HeadSource, wave: np.ndarray, count: int) -> np.ndarray | None:
        """(count,A) scaled voice vectors; None for networks without voice."""
        if not self.cfg.model_params.use_audio:
            return None
        if self.cfg.infer.mode == "frontalize":  # silence, as in the official code
            wave = np.zeros_like(wave)
        clip = self.store.clip_of(self._moving(identity).path)
        stored = self.voice.stored(clip.id) if clip else None
        return self.model.statistics.voice_vectors(self.voice, wave, self.cfg.fps, count, stored)

    def _picture(self, identity: HeadSource) -> np.ndarray:
        """The reference picture (S,S,3) uint8."""
        return resized(identity.pictures[identity.reference], self.size)

    def pncc_pictures(self, geometry: Geometry, window: int) -> Iterator[np.ndarray]:
        """PNCC pictures (S,S,3) uint8, one by one, so that memory does not grow with the length."""
        options = self.cfg.geometry
        for number in range(len(geometry)):
            vertices = self.face.placed(geometry.part([number]))[0]
            yield self.face.render(
                vertices, self.size, window, flat=options.shading == "flat", cull=options.cull
            )

    def draw(
        self, identity: HeadSource, geometry: Geometry, voice: np.ndarray | None
    ) -> Iterator[Drawn]:
        """Generate frames.

        Args:
            geometry: faces and cameras in pixels of the source's crop.
            voice: (T,A) voice vectors.

        Raises:
            DataError: the face is outside the picture.
        """
        window = identity.points.size
        own = next(self.pncc_pictures(identity.geometry.part([identity.reference]), window))
        require_coverage(own)
        picture = torch.from_numpy(np.stack([signed(self._picture(identity))])).to(self.device)
        reference = self._batch([own]), picture
        with torch.inference_mode(), self._precision():
            encoded = self.network.encode_reference(*reference)
        # One picture at a time on a CPU, whose cache is filled by the feature maps of one.
        size = 1 if self.device.type == "cpu" else self.cfg.infer.batch_size
        stacks = self._stacks(geometry, window)
        for first in range(0, len(geometry), size):
            part = list(islice(stacks, size))
            voices = None
            if voice is not None:
                voices = torch.from_numpy(voice[first : first + size]).to(self.device)
            with torch.inference_mode(), self._precision():
                out = self.network(self._batch(part), *reference, voices, encoded)
            pictures = zip(_pixels(out.image), _pixels(out.warped), part, strict=True)
            for image, warped, stack in pictures:
                yield Drawn(image, warped, stack[..., -3:])

    def _stacks(self, geometry: Geometry, window: int) -> Iterator[np.ndarray]:
        """PNCC pictures of each frame and of those before it, (S,S,3K) uint8, oldest first."""
        length = self.cfg.model_params.n_frames
        history: deque[np.ndarray] = deque(maxlen=length)
        for number, pncc in enumerate(self.pncc_pictures(geometry, window)):
            if number == 0:
                require_coverage(pncc)
            if number == 0 or self.cfg.infer.mode in _ONE_POSE:
                history.extend([pncc] * (length - 1))
            history.append(pncc)
            yield np.concatenate(list(history), axis=2)

    def _batch(self, pictures: list[np.ndarray]) -> torch.Tensor:
        """(S,S,C) uint8 PNCC pictures -> (B,C,S,S) in 0..1."""
        stacked = torch.from_numpy(np.stack(pictures)).to(self.device)
        return stacked.permute(0, 3, 1, 2).float() / 255


def _pixels(pictures: torch.Tensor) -> np.ndarray:
    """(B,3,S,S) in -1..1 -> (B,S,S,3) uint8."""
    values = ((pictures.float() + 1) * 127.5).round().clamp(0, 255).byte()
    return values.permute(0, 2, 3, 1).cpu().numpy()


def _smoothed(geometry: Geometry, sigma: float) -> Geometry:
    """Expression and rotation smoothed in time; rotations stay rotations."""
    mean = smooth(geometry.rotation, sigma)
    u, _, vt = np.linalg.svd(mean)
    sign = np.ones((len(mean), 3))
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None]) @ vt
    return replace(geometry, rotation=rotation, expression=smooth(geometry.expression, sigma))
