"""What the tests of the preparation share: settings, runs, and processors that need no video."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from talkingface.config.config import Config, load_config
from talkingface.data.clips import Clip
from talkingface.data.dataprocess.base import DataProcess, ProcessReport, SkipClip
from talkingface.data.dataprocess.engine import prepare_clips
from talkingface.data.dataprocess.face_crops import FaceCropProcess
from talkingface.data.filelists import write_filelist

SCRIPT = Path(__file__).resolve().parents[1] / "run_talkingface.py"


def settings(root: Path, clips: Path, **more: object) -> dict[str, object]:
    return {"root": str(root), "data_root": str(clips), "show_progress": False, **more}


def config(root: Path, clips: Path, **more: object) -> Config:
    return load_config("HyperLipsBase", "MEAD", overrides=settings(root, clips, **more))


def prepare(root: Path, clips: Path, workers: int | None = 1, **more: object) -> ProcessReport:
    """Prepare a folder of clips for HyperLips; dotted keys come as ``**{"face.choose": 1}``."""
    process = FaceCropProcess(config(root, clips, **more))
    return prepare_clips(process, workers=workers, show_progress=False)


def start(project: Path, root: Path, clips: Path, **more: object) -> subprocess.Popen:
    """A preparation in a process group of its own; faces are cached below ``project``."""
    more = {"process_workers": 1, **more}
    args = [f"--{key}={value}" for key, value in settings(root, clips, **more).items()]
    return subprocess.Popen(
        [
            *(sys.executable, str(SCRIPT), "--model=HyperLipsBase", "--dataset=MEAD"),
            *("--stages=preprocess", *args),
        ],
        env={**os.environ, "TALKINGFACE_ROOT": str(project)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def tree(root: Path) -> dict[str, bytes]:
    """All prepared files by path, with their content: data, markers, sheets and report."""
    folder = root / "preprocessed_data"
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*")}
    return {
        name: path.read_bytes() if path.is_file() else b"folder"
        for name, path in found.items()
        if not path.name.startswith(".lock")
    }


def stamps(root: Path) -> dict[str, int]:
    files = (p for p in (root / "preprocessed_data").rglob("*") if p.is_file())
    return {str(p): p.stat().st_mtime_ns for p in files if not p.name.startswith(".lock")}


def list_clips(root: Path, *train: str) -> None:
    """Lists of the user's own, which may name clips that turn out to be unusable."""
    for split in ("train", "val", "test"):
        names = train if split == "train" else train[:1]
        write_filelist(root / "filelist" / f"{split}.txt", names)


def names_as_clips(folder: Path, *names: str) -> Path:
    """Files with these names, for :class:`Counting`."""
    for name in names:
        path = folder / "data" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder / "data"


class Counting(DataProcess):
    """Writes the length of each clip's name, or does as that says.

    ``skip``: not suitable. ``opencv``, ``key``: an unforeseen exception. ``kill``: its process
    dies. ``once``: it dies the first time. ``disk``: no space left.
    """

    id = "counting"

    def settings(self):
        return {"kind": 1}

    def process_clip(self, clip: Clip, out: Path):
        (out / "length.txt").write_text(str(len(clip.id)))
        if "skip" in clip.id:
            raise SkipClip("wanted: by its name")
        if "opencv" in clip.id:
            import cv2

            raise cv2.error("matrix is empty")
        if "key" in clip.id:
            raise KeyError("face")
        if "disk" in clip.id:
            raise OSError(28, "No space left on device")
        died = clip.path.with_suffix(".died")
        if "kill" in clip.id or ("once" in clip.id and not died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"frames": 3, "seconds": 1.0}


def count(root: Path, clips: Path, workers: int | None = 1, **more: object) -> ProcessReport:
    """Like :func:`prepare`, with :class:`Counting`."""
    return prepare_clips(
        Counting(config(root, clips, **more)), workers=workers, show_progress=False
    )
