"""Present names of moved modules, for user code that imports the former ones."""

from __future__ import annotations

from talkingface.utils.paths import PACKAGE_DIR

# Packages, and modules with another last name or outside the first folder of their former place.
_RENAMED = {
    **{
        f"benchmark{name}": f"comparison{name}"
        for name in (
            "",
            ".cost",
            ".entries",
            ".page",
            ".plans",
            ".previews",
            ".report",
            ".run",
            ".stats",
            ".tables",
        )
    },
    "config.loader": "utils.yaml_files",
    "config.suggest": "utils.suggest",
    "data.a2p": "data.dataprocess.a2p",
    "data.dataprocess.a2p.config": "data.scenes",
    "data.dataprocess.hyperlips.hyperlipsbase_process": "data.dataprocess.face_crops",
    "data.dataprocess.hyperlipsbase_process": "data.dataprocess.face_crops",
    "data.dataprocess.a2p.synthetic": "data.synthetic.dyad",
    "data.dataprocess.lsp.speech": "data.dataprocess.lsp.lsp_motion_process",
    "data.headgan": "data.dataprocess.headgan",  # except face_model, which is in data.face
    "data.lsp": "data.dataprocess.lsp",
    "data.moda": "data.dataprocess.moda",
    "model.audio_driven_talkingface.a2p.a2p_joined_config": (
        "model.audio_driven_talkingface.a2p.a2p_config"
    ),
    "model.audio_driven_talkingface.a2p.a2p_statistics": (
        "model.audio_driven_talkingface.a2p.a2p_common"
    ),
    "model.audio_driven_talkingface.live_speech_portraits": "model.joined",
    "model.audio_driven_talkingface.lsp.live_speech_portraits": "model.joined",
    "model.audio_driven_talkingface.moda.moda_portrait": "model.joined",
    "model.audio_driven_talkingface.moda.modarenderer_networks": (
        "model.audio_driven_talkingface.moda.modarenderer"
    ),
    "model.audio_driven_talkingface.moda_portrait": "model.joined",
    "model.audio_driven_talkingface.modarenderer_networks": (
        "model.audio_driven_talkingface.moda.modarenderer"
    ),
    "model.audio_driven_talkingface.painter_config": "model.conditional_gan_config",
    "model.image_driven_talkingface.headgan_learnt": (
        "model.image_driven_talkingface.headgan.headgan_statistics"
    ),
    "model.painter": "model.conditional_gan",
    "quick_start.earlier": "quick_start.prerequisites",
    "quick_start.helpers": "components.store",
}


def present_name(name: str) -> str | None:
    """The present name of a former module; None when it is not known.

    All other modules that have moved are still below the first folder of their former place, with
    their last name, which is unique there.
    """
    package, _, rest = name.partition(".")
    if rest in _RENAMED:
        return f"{package}.{_RENAMED[rest]}"
    first, _, last = rest.partition(".")
    stem = last.rpartition(".")[2]
    files = [file for file in (PACKAGE_DIR / first).rglob("*.py") if file.stem == stem]
    if len(files) != 1:
        return None
    return ".".join((package, *files[0].relative_to(PACKAGE_DIR).with_suffix("").parts))
