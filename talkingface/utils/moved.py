"""Former names of modules, for user code that still imports them."""

from __future__ import annotations

# Former package, present package, modules (``former=present`` where the name changed too).
_TABLE = (
    (
        "model.audio_driven_talkingface",
        "model.audio_driven_talkingface.hyperlips",
        "hyperlips_config hyperlips_networks hyperlipsbase hyperlipshr hyperlipshr_config"
        " hyperlipshr_networks syncexpert",
    ),
    (
        "model.audio_driven_talkingface",
        "model.audio_driven_talkingface.lsp",
        "lsp_config lsp_motion_networks audio2feature audio2headpose feature2face"
        " live_speech_portraits apc",
    ),
    (
        "model.audio_driven_talkingface",
        "model.audio_driven_talkingface.moda",
        "moda_config moda_networks moda_portrait modafaco modarenderer modarenderer_networks",
    ),
    (
        "model.audio_driven_talkingface",
        "model.audio_driven_talkingface.a2p",
        "a2p_common a2p_config a2p_diffusion a2p_guide a2p_guide_networks a2p_networks"
        " a2plip a2plip_networks",
    ),
    (
        "model.audio_driven_talkingface",
        "model.audio_driven_talkingface.syncnet",
        "syncnet_config syncnet_networks",
    ),
    (
        "model.image_driven_talkingface",
        "model.image_driven_talkingface.headgan",
        "headgan_config headgan_networks headgan_learnt=headgan_statistics audio2exp",
    ),
    ("data.dataset", "data.dataset.hyperlips", "hyperlipsbase_dataset hyperlipshr_dataset"),
    ("data.dataset", "data.dataset.lsp", "apc_dataset lsp_face_dataset lsp_motion_dataset"),
    ("data.dataset", "data.dataset.moda", "moda_dataset moda_renderer_dataset"),
    ("data.dataset", "data.dataset.a2p", "a2p_dataset"),
    ("data.dataset", "data.dataset.headgan", "headgan_dataset audio2exp_dataset"),
    ("data.dataset", "data.dataset.syncnet", "syncnet_dataset"),
    ("data.dataprocess", "data.dataprocess.hyperlips", "hyperlipsbase_process hyperlipshr_process"),
    ("data.dataprocess", "data.dataprocess.lsp", "apc_process lsp_process lsp_motion_process"),
    ("data.dataprocess", "data.dataprocess.moda", "moda_process"),
    ("data.dataprocess", "data.dataprocess.a2p", "a2p_process"),
    ("data.dataprocess", "data.dataprocess.headgan", "headgan_process"),
    ("data.dataprocess", "data.dataprocess.syncnet", "syncnet_process"),
    # Whole packages, except face_model of data.headgan, which moved to data.face.
    ("data", "data.dataprocess", "lsp moda a2p headgan"),
    ("pipeline", "pipeline.hyperlips", "dubbing dubbing_hr"),
    ("pipeline", "pipeline.lsp", "portrait lsp_motion"),
    ("pipeline", "pipeline.moda", "moda_motion"),
    ("model.audio_driven_talkingface", "model.layers", "apc_networks feature2face_networks"),
    ("model", "model", "painter=conditional_gan"),
    ("evaluator", "evaluator.metrics.syncnet", "sync_score"),
    ("evaluator.metrics", "evaluator.metrics.syncnet", "lse"),
    ("config", "utils", "loader=yaml_files suggest"),
    ("quick_start", "components", "helpers=store"),
    ("quick_start", "quick_start", "earlier=prerequisites"),
    ("model.audio_driven_talkingface", "model", "painter_config=conditional_gan_config"),
)

MOVED: dict[str, str] = {}
for _former, _now, _names in _TABLE:
    for _name in _names.split():
        _old, _, _new = _name.partition("=")
        MOVED[f"talkingface.{_former}.{_old}"] = f"talkingface.{_now}.{_new or _old}"
