"""Example of a model with its own preparation, dataset, configuration, network and pipeline.

It predicts the mouth opening from 200 ms of audio and moves the lower face of the source by the
difference between the predicted and the original opening. No images are generated. Run it with

    python run_talkingface.py --plugin_path=examples/jawwarp --model=JawWarp --dataset=Synthetic \
        --preset=tiny

Compare it with 'shuffled audio' only: the source of a test is the real clip itself, so unchanged
frames would have the best scores.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from pydantic import Field
from torch import nn

from talkingface.config.schema import ModelConfig, Section
from talkingface.data.dataprocess.video import VideoProcess
from talkingface.data.dataset.base import TalkingFaceDataset
from talkingface.data.face.topology import CHIN, FOREHEAD
from talkingface.data.face.tracking import track_face
from talkingface.data.media.images import is_image
from talkingface.data.media.mel import mel_windows, wav2lip_mel
from talkingface.data.media.reader import read_frames
from talkingface.data.quality import mouth_opening
from talkingface.model.abstract_talkingface import AbstractTalkingFace
from talkingface.pipeline.base import SAMPLE_RATE, Pipeline
from talkingface.utils.env import import_cv2

UPPER_LIP, LOWER_LIP = 13, 14  # vertices around the middle of the mouth
SCALE = 10.0  # the output of the network is ten times the opening, so that values are near 1


class Network(Section):
    """Size of the network."""

    hidden: int = Field(64, ge=4, description="Width of the hidden layer.")


class Infer(Section):
    """Generation."""

    crf: int = Field(18, ge=0, le=40, description="H.264 quality of the videos; lower is better.")
    strength: float = Field(1.0, ge=0, description="Factor of the motion.")


class JawWarpConfig(ModelConfig):
    """Keys of JawWarp: unknown keys are errors, and --explain shows the descriptions."""

    fps: float = Field(25.0, gt=0, le=60, description="Frame rate.")
    model_params: Network = Field(default_factory=Network, description="Network.")
    infer: Infer = Field(default_factory=Infer, description="Generation.")


class JawWarpProcess(VideoProcess):
    """Writes ``clip.npz``: mel windows (T,80,16) and mouth openings (T,), NaN without a face."""

    id = "JawWarp"
    version = 1

    def prepare_clip(self, clip, out):
        # clip.wave is 16 kHz mono; landmarks (T,478,3) are NaN in frames without a face.
        windows = mel_windows(wav2lip_mel(clip.wave), clip.fps)
        opening = mouth_opening(clip.track.landmarks)
        count = min(len(windows), len(opening))
        np.savez(out / "clip.npz", mel=windows[:count], opening=opening[:count])


class JawWarpDataset(TalkingFaceDataset):
    """Single frames with a face; all of them are kept in memory (5 kB each)."""

    batch_spec = {
        "mel": "B 80 16 float32; log-mel columns of the 200 ms from the start of the frame",
        "opening": "B 1 float32; mouth opening as a fraction of the face height",
    }

    def build_index(self):
        process = JawWarpProcess(self.cfg)
        # Clips of the list that were prepared with these settings; reasons for all other clips.
        names, self.unusable = process.prepared.usable(self.split)
        items = []
        for name in names:
            with np.load(process.prepared.output_dirs(name)[0] / "clip.npz") as clip:
                pairs = zip(clip["mel"], clip["opening"], strict=True)
                items += [(mel, value) for mel, value in pairs if np.isfinite(value)]
        return items

    def load_item(self, entry, rng):
        mel, opening = entry
        return {"mel": mel.astype(np.float32), "opening": np.array([opening], np.float32)}


class JawWarp(AbstractTalkingFace):
    """One network and one loss."""

    batch_keys = ("mel", "opening")

    def __init__(self, cfg):
        super().__init__(cfg)
        hidden = cfg.model_params.hidden
        self.generator = nn.Sequential(
            nn.Flatten(), nn.Linear(80 * 16, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward_train(self, batch):
        return {"opening": self.generator(batch["mel"])}

    def calculate_loss(self, batch, phase, shared):
        error = (shared["opening"] - SCALE * batch["opening"]).abs()
        return {"loss": error.mean(), "l1": error.mean() / SCALE}


class JawWarpPipeline(Pipeline):
    """Moves the lower face of a video or a still image."""

    needs_config = ("infer.strength",)

    def prepare(self, source, *, show_progress=False):
        options = {"fps": self.cfg.fps, "show_progress": show_progress}
        track = track_face(source, options=self.cfg.face, **options)
        return source, track, mouth_opening(track.landmarks)

    def frame_count(self, identity, wave):
        source, track, _ = identity
        count = round(len(wave) * self.cfg.fps / SAMPLE_RATE)
        return count if is_image(source) else min(count, len(track))

    def generate(self, identity, wave, *, baseline=None):
        source, track, opening = identity
        count = self.frame_count(identity, wave)
        windows = torch.from_numpy(mel_windows(wav2lip_mel(wave), self.cfg.fps)).float()
        with torch.inference_mode():
            network = self.model.network.to(self.device).eval()
            predicted = network(windows.to(self.device))[:, 0].cpu().numpy() / SCALE
        frames = read_frames(source, fps=self.cfg.fps)
        if is_image(source):
            frames = [next(iter(frames))] * count
        for index, frame in enumerate(islice(frames, count)):
            number = min(index, len(track) - 1)
            target = predicted[min(index, len(predicted) - 1)]
            change = self.cfg.infer.strength * (target - opening[number])
            yield moved(frame, track.landmarks[number], change) if track.found[number] else frame


def moved(frame, landmarks, change):
    """The frame (H,W,3) with the region from the mouth to below the chin moved down or up.

    Args:
        change: change of the opening as a fraction of the face height; negative: up.
    """
    points = landmarks[:, :2]
    height = np.linalg.norm(points[CHIN] - points[FOREHEAD])
    x, y = np.meshgrid(np.arange(frame.shape[1]), np.arange(frame.shape[0]))
    middle = (points[UPPER_LIP] + points[LOWER_LIP]) / 2
    down, aside = (y - middle[1]) / height, (x - middle[0]) / height
    weight = np.clip(down / 0.03, 0, 1) * np.clip((0.5 - down) / 0.25, 0, 1)
    weight = weight * np.exp(-((aside / 0.25) ** 2))
    cv2 = import_cv2()
    maps = x.astype(np.float32), (y - change * height * weight).astype(np.float32)
    return cv2.remap(frame, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
