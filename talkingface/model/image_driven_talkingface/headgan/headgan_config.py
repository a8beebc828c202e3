"""Configuration keys of HeadGAN and Audio2Exp. No torch here: ``--explain`` stays fast."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from talkingface.config.component_spec import ComponentSpec, vgg19
from talkingface.config.schema import ModelConfig, PersonName, Section
from talkingface.model.conditional_gan_config import ImageGANWeights
from talkingface.model.detail_config import DetailLoss, face_features
from talkingface.utils.paths import resolve


class GeometrySection(Section):
    """Face model and drawing of faces."""

    model: Literal["mediapipe_pca", "bfm", "lsfm", "auto"] = Field(
        "mediapipe_pca",
        description="Face model: mediapipe_pca is learnt from the training clips, the others are "
        "licensed files. auto: a licensed one if its file is in checkpoints/, else mediapipe_pca.",
    )
    model_file: str | None = Field(
        None, description="File of a licensed model; null: its usual name in checkpoints/."
    )
    n_id: int | None = Field(
        None, ge=0, le=200, description="Identity components; null: people - 1, at most 80."
    )
    n_exp: int = Field(28, ge=1, le=100, description="Expression components.")
    frames_per_clip: int = Field(
        100, ge=1, description="Frames per training clip that the face model is fitted to."
    )
    identity_mode: Literal["auto", "residual", "pca"] = Field(
        "auto",
        description="A person's neutral face: pca: by identity components, as in the paper; "
        "residual: all vertices, better with few people. auto: residual below 50 people.",
    )
    close_eyes: bool = Field(True, description="Draw the area of the eyes.")
    close_mouth: bool = Field(False, description="Draw the area between the lips.")
    shading: Literal["smooth", "flat"] = Field(
        "smooth", description="One colour per pixel, or per triangle as the official renderer."
    )
    cull: bool = Field(True, description="Do not draw triangles seen from behind.")


class HeadGANPrep(Section):
    """Preparation of clips (official code)."""

    size: int = Field(256, ge=64, le=1024, description="Side of the stored crop in pixels.")
    scale: float = Field(
        1.641, ge=1, le=4, description="Side of the crop / height of the face (256 / 156)."
    )
    crop: bool = Field(
        True, description="false: the videos are crops already; use their centred square."
    )
    max_motion: float = Field(
        0.45, gt=0, description="Skip clips whose face moves further (fraction of the picture)."
    )
    max_missing: float = Field(
        0.1, ge=0, le=0.5, description="Skip clips with a larger share of frames without a face."
    )
    jpeg_quality: int = Field(95, ge=50, le=100, description="JPEG quality of stored pictures.")
    mask_source: Literal["selfie", "pncc_dilated", "none"] = Field(
        "selfie",
        description="Target of the flow's mask: MediaPipe's person segmentation, the dilated face, "
        "or none (without loss.mask_wt).",
    )


class VoiceSection(Section):
    """The voice vector (official code); its length results from these keys."""

    lowlevel: bool = Field(True, description="The 84 low-level features.")
    legacy_hop: bool = Field(
        False, description="Rows every 16 steps of whole samples, as upstream, which drifts."
    )
    char_encoder: Literal[
        "auto", "kmeans27", "wav2vec2_ctc", "wav2vec2_ctc_hold", "deepspeech_file", "zeros"
    ] = Field(
        "auto",
        description="Characters: a CTC network with local weights, 27 sound classes by k-means, "
        "files, or zeros. auto: wav2vec2_ctc if its file exists, else kmeans27.",
    )
    ctc_weights: str = Field(
        "auto", description="torchaudio's WAV2VEC2_ASR_BASE_960H; auto: in checkpoints/."
    )
    char_folder: str | None = Field(
        None, description="deepspeech_file: folder with <clip>.npy, arrays (frames, 27)."
    )
    half_window: int = Field(4, ge=1, le=16, description="Half of the character window, frames.")
    shift: int = Field(
        0, ge=-10, le=10, description="Delay of the character window, frames (official weights: 5)."
    )
    normalize: Literal["none", "zscore"] = Field(
        "none", description="Raw values (official), or standardised with the training data."
    )

    @model_validator(mode="after")
    def _has_files(self) -> VoiceSection:
        if self.char_encoder == "deepspeech_file" and not self.char_folder:
            raise ValueError("char_encoder=deepspeech_file needs audio.char_folder")
        return self


class HeadGANBase(ModelConfig):
    """Keys of HeadGAN and Audio2Exp; with equal values both use the same prepared files."""

    fps: float = Field(25.0, gt=0, le=60, description="Frame rate.")
    person: PersonName = Field(default_factory=PersonName, description="Person.")
    prep: HeadGANPrep = Field(default_factory=HeadGANPrep, description="Preparation.")
    geometry: GeometrySection = Field(default_factory=GeometrySection, description="Face model.")
    audio: VoiceSection = Field(default_factory=VoiceSection, description="Voice vector.")

    @classmethod
    def missing(cls, cfg: Any) -> list[str]:
        """Messages about a missing licensed face model or character network."""
        messages = []
        kind = cfg.geometry.model
        if kind in ("bfm", "lsfm"):
            from talkingface.data.dataprocess.headgan.licensed import FILES, missing_file

            given = cfg.geometry.model_file
            path = resolve(given) if given else resolve(cfg.weights_dir) / FILES[kind]
            if not path.is_file():
                messages.append(missing_file(kind, path))
        if cfg.audio.char_encoder.startswith("wav2vec2_ctc"):
            from talkingface.data.dataprocess.headgan.voice import ctc_path

            path = ctc_path(cfg.audio, cfg.weights_dir)
            if not path.is_file():
                messages.append(
                    f"audio.char_encoder={cfg.audio.char_encoder} needs {path} (see "
                    "checkpoints/README.md); kmeans27 needs no file"
                )
        return messages


class DiscriminatorSection(Section):
    """Image and mouth discriminator."""

    ndf: int = Field(64, ge=4, description="Channels of the first block.")
    n_layers: int = Field(4, ge=2, le=6, description="Blocks before the logits.")
    num_d: int = Field(2, ge=1, le=4, description="Number of scales.")
    mouth: bool = Field(True, description="Second discriminator, on the mouth and the voice.")
    mouth_roi: int | None = Field(
        None, ge=16, description="Side of the mouth crop, pixels; null: about crop_size / 4, even."
    )


class HeadGANNetwork(Section):
    """Sizes of the networks; the defaults are the official ones."""

    ngf: int = Field(32, ge=4, description="Channels of the generator's first block.")
    spade_hidden: int = Field(256, ge=8, description="Hidden channels of the SPADE layers.")
    crop_size: int = Field(256, ge=32, le=1024, description="Side of the pictures, pixels.")
    down_size: int = Field(64, ge=8, description="Side of the coarsest feature maps.")
    n_frames: int = Field(3, ge=1, le=9, description="Input PNCC pictures: current and past ones.")
    pixelshuffle: bool = Field(True, description="false: nearest upsampling (ablation).")
    use_audio: bool = Field(True, description="false: no voice (ablation).")
    use_flow: bool = Field(True, description="false: the reference is not warped (ablation).")
    adain_residual: bool = Field(
        False, description="AdaIN blocks add their input; official weights need false."
    )
    disc: DiscriminatorSection = Field(
        default_factory=DiscriminatorSection, description="Discriminators."
    )

    @property
    def roi(self) -> int:
        return self.disc.mouth_roi or 2 * round(self.crop_size / 8)

    @model_validator(mode="after")
    def _fits(self) -> HeadGANNetwork:
        ratio, rest = divmod(self.crop_size, self.down_size)
        if rest or ratio < 2 or ratio & (ratio - 1):
            raise ValueError(
                f"crop_size={self.crop_size} over down_size={self.down_size} must be 2, 4, 8..."
            )
        if self.roi > self.crop_size:
            raise ValueError(f"disc.mouth_roi={self.roi} is larger than crop_size")
        return self


class HeadGANData(Section):
    """Training items (official code). A batch has one frame of each of batch_size clips."""

    chunk: int = Field(
        50, ge=1, description="Frames of a chunk of a clip; it gives seq_len items per epoch."
    )
    seq_len: int = Field(6, ge=1, description="Consecutive frames per chunk in the first epochs.")
    grow_from_epoch: int = Field(
        3, ge=1, description="Epoch (counted from 1) from which seq_len doubles with each epoch."
    )
    n_refs: int = Field(8, ge=1, description="Reference frames per clip, spread over its poses.")
    reference: Literal["random8", "any", "previous"] = Field(
        "random8",
        description="Reference of an item: one of the reference frames (official), any frame, or "
        "the last frame of the chunk before.",
    )
    cache_pncc: bool = Field(True, description="Store the PNCC pictures of clips on disk.")


class HeadGANLoss(DetailLoss):
    """Weights of the losses (official values)."""

    gan_wt: float = Field(1.0, ge=0, description="Hinge loss; 0: no discriminators.")
    feature_matching_wt: float = Field(10.0, ge=0, description="Features of both discriminators.")
    vgg_wt: float = Field(
        10.0, ge=0, description="VGG19, generated and warped picture; used if weights.vgg exists."
    )
    masked_l1_wt: float = Field(50.0, ge=0, description="L1 in the face, generated and warped.")
    l1_wt: float | Literal["auto"] = Field(
        "auto",
        description="L1 of the whole pictures (not in the paper). auto: 0 with VGG19, 10 without, "
        "because hair and background would have no loss.",
    )
    mask_wt: float = Field(10.0, ge=0, description="L1 between flow mask and person masks.")
    mouth_d_wt: float = Field(0.5, ge=0, description="Mouth term in the discriminators' loss.")


class EditSection(Section):
    """Edits of the modes edit_expression and edit_pose."""

    expression: dict[str, float] = Field(
        default_factory=dict,
        description="Offsets in standard deviations of jaw_open, smile, brows_up, or of a "
        "coefficient by number ('0': 2.0).",
    )
    yaw: float = Field(0.0, ge=-90, le=90, description="Turn, degrees; > 0: to the picture's left.")
    pitch: float = Field(0.0, ge=-90, le=90, description="Nod, degrees; > 0: down.")
    roll: float = Field(0.0, ge=-180, le=180, description="Tilt, degrees; > 0: to the right.")
    keyframes: list[tuple[float, float, float, float]] = Field(
        default_factory=list,
        description="edit_pose: (second, yaw, pitch, roll), offsets in degrees, interpolated.",
    )
    seconds: float = Field(3.0, gt=0, description="Length of a video from one picture, seconds.")
    sweep: bool = Field(True, description="One picture: fade the edit in and out.")


class HeadGANInfer(Section):
    """Generation of videos."""

    mode: Literal["self", "cross", "audio", "frontalize", "edit_expression", "edit_pose"] = Field(
        "self",
        description="self: reconstruct a clip from one of its frames; cross: --driver drives the "
        "face of --source; audio: a voice drives it (needs Audio2Exp); others: edit the source.",
    )
    batch_size: int = Field(4, ge=1, description="Frames generated together.")
    crf: int = Field(18, ge=0, le=40, description="H.264 quality of the videos; lower is better.")
    reference_frame: int | None = Field(
        None,
        ge=0,
        description="Number of the reference frame in the source; null: a sharp one with open "
        "eyes, turned to the camera.",
    )
    camera: Literal["auto", "adapt", "scale", "raw"] = Field(
        "auto",
        description="Camera of the driver: adapted to the reference in size and position, in size "
        "only, or unchanged (raw). auto: adapt for another driver, else raw.",
    )
    camera_std: bool = Field(
        False, description="Adapt the amount of movement too; a single picture has none."
    )
    smooth: float = Field(
        0.0, ge=0, description="Gaussian smoothing of expression and rotation, sigma in frames."
    )
    side_by_side: bool = Field(
        False, description="Show reference, driver, PNCC, warped and generated picture in a row."
    )
    require_audio: bool = Field(
        False, description="Stop if the driving video has no sound; false: use silence."
    )
    edit: EditSection = Field(default_factory=EditSection, description="Edits.")


class HeadGANWeights(ImageGANWeights):
    """Components: trained networks that the model needs."""

    audio2exp: str | None = Field(
        "auto", description="Audio2Exp for infer.mode=audio: auto, a path, a run id, or null."
    )


class HeadGANConfig(HeadGANBase):
    """Keys of HeadGAN."""

    model_params: HeadGANNetwork = Field(default_factory=HeadGANNetwork, description="Networks.")
    data: HeadGANData = Field(default_factory=HeadGANData, description="Training items.")
    loss: HeadGANLoss = Field(default_factory=HeadGANLoss, description="Loss weights.")
    weights: HeadGANWeights = Field(default_factory=HeadGANWeights, description="Components.")
    infer: HeadGANInfer = Field(default_factory=HeadGANInfer, description="Generation.")

    @classmethod
    def components(cls, cfg: Any) -> dict[str, ComponentSpec]:
        specs = face_features(cfg.loss, cfg.weights)
        if cfg.loss.vgg_wt > 0:
            specs["vgg"] = vgg19(cfg.weights.vgg, "the VGG loss (loss.vgg_wt)")
        if cfg.infer.mode == "audio":
            specs["audio2exp"] = ComponentSpec(
                cfg.weights.audio2exp,
                "infer.mode=audio: expressions from a voice",
                model="Audio2Exp",
                required=True,
                at_inference=True,
                official_settings={},
            )
        return specs

    @model_validator(mode="after")
    def _agrees(self) -> HeadGANConfig:
        if self.data.chunk < self.model_params.n_frames:
            raise ValueError(
                f"data.chunk={self.data.chunk} is shorter than model_params.n_frames="
                f"{self.model_params.n_frames}"
            )
        if self.model_params.crop_size > self.prep.size:
            raise ValueError(
                f"model_params.crop_size={self.model_params.crop_size} is larger than the stored "
                f"crops; set prep.size={self.model_params.crop_size}"
            )
        return self


class RegressorSection(Section):
    """The regressor from voice to expression."""

    kind: Literal["gru", "ridge"] = Field("gru", description="GRU, or the ridge regression.")
    hidden: int = Field(256, ge=8, description="Width of the GRU.")
    layers: int = Field(2, ge=1, le=4, description="Layers of the GRU.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout between the layers.")
    bidirectional: bool = Field(True, description="true: also use later sound; false: causal.")


class Audio2ExpData(Section):
    """Training items."""

    window: int = Field(100, ge=4, description="Frames per item; shorter clips are padded.")
    stride: int = Field(25, ge=1, description="Frames between the starts of two items.")


class Audio2ExpLoss(Section):
    """Objective."""

    velocity_wt: float = Field(1.0, ge=0, description="L1 of frame differences.")
    mouth_wt: float = Field(2.0, ge=0, description="L1 of the lip vertices.")


class Audio2ExpConfig(HeadGANBase):
    """Keys of Audio2Exp."""

    model_params: RegressorSection = Field(default_factory=RegressorSection, description="Network.")
    data: Audio2ExpData = Field(default_factory=Audio2ExpData, description="Training items.")
    loss: Audio2ExpLoss = Field(default_factory=Audio2ExpLoss, description="Objective.")
