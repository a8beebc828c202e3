"""Shared fixtures. No test writes into the repository: everything goes below temporary folders."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from forked import ForkedCommands

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the program sets it
if "PYTEST_XDIST_WORKER" in os.environ:
    # As many test processes as cores: threads of PyTorch would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / "run_talkingface.py"
CONVERT = REPOSITORY / "tools" / "convert.py"
if str(REPOSITORY) not in sys.path:  # plain "pytest" in a checkout that is not installed
    sys.path.insert(0, str(REPOSITORY))
# Two of the six persons who come rendered: two clips for training, one for val, one for test.
SMALL = ["--preset=tiny", "--synthetic.persons=2"]

# Models whose one command is a default test; those of the others are slow tests.
ONE_OF_EACH = ("HyperLipsBase", "VideoRewrite", "HeadGAN", "Feature2Face", "MODARenderer", "A2P")


def dataset_for(model: str) -> str:
    """The dataset that the tests of a model use: one that is made on the spot."""
    return "SyntheticDyad" if model.startswith("A2P") else "Synthetic"


def tool(name: str) -> ModuleType:
    """A script of the folder tools, e.g. ``hdtf`` or ``official.lsp``."""
    folder = str(REPOSITORY / "tools")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


COMMANDS, FORKS = ForkedCommands(), hasattr(os, "fork")


def run_command(
    args: Sequence[str],
    root: Path,
    *,
    env: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
    python: Sequence[str] = (),
    script: Path = SCRIPT,
) -> subprocess.CompletedProcess[str]:
    """``python run_talkingface.py args`` (or another script) with data and runs below ``root``.

    It runs in a forked process (forked.py), which starts faster, unless ``env`` or ``python``
    change more than our own variables.

    Args:
        env: variables to set, or to remove with None.
        python: options of the interpreter itself, e.g. ``-X importtime``.
    """
    variables = {k: v for k, v in os.environ.items() if k != "TALKINGFACE_PLUGINS"}
    variables["TALKINGFACE_ROOT"] = str(root)
    variables["PYTHONIOENCODING"] = "utf-8"
    for key, value in (env or {}).items():
        if value is None:
            variables.pop(key, None)
        else:
            variables[key] = value
    if not python and not {k for k in env or {} if not k.startswith("TALKINGFACE_")} and FORKS:
        return COMMANDS.run([str(script), *args], variables, cwd or root, timeout)
    return subprocess.run(
        [sys.executable, *python, str(script), *args],
        cwd=cwd or root,
        env=variables,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
    )


@pytest.fixture(scope="session", autouse=True)
def session_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Project folder of everything that runs inside the test process."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALKINGFACE_ROOT", str(root))
        patch.delenv("TALKINGFACE_PLUGINS", raising=False)
        patch.delenv("LOCAL_RANK", raising=False)
        yield root


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of this test's own; the test process uses it too."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.setenv("TALKINGFACE_ROOT", str(folder))
    return folder


@pytest.fixture
def run_cli(root: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run_cli(["--list"], env=None, cwd=None, timeout=120)`` -> completed process.

    Data and runs lie below the fixture ``root``; another folder is given with
    ``env={"TALKINGFACE_ROOT": ...}``.
    """

    def call(args: Sequence[str], **options) -> subprocess.CompletedProcess[str]:
        return run_command(args, root, **options)

    return call


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data folder (``TALKINGFACE_SHARED`` or ``../shared/data``), else skip."""
    top = Path(os.environ.get("TALKINGFACE_SHARED", REPOSITORY.parent / "shared"))
    if not (top / "data").is_dir():
        pytest.skip(f"no shared data in {top}; set TALKINGFACE_SHARED")
    return top / "data"


@pytest.fixture(scope="session")
def golden():
    """Loader of the outputs of the original networks, which lies beside them, else skip."""
    top = Path(os.environ.get("TALKINGFACE_SHARED", REPOSITORY.parent / "shared"))
    folder = top / "golden"
    if not (folder / "golden.py").is_file():
        pytest.skip(f"reference outputs not found in {folder} (set TALKINGFACE_SHARED)")
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # read-only folder
    sys.path.insert(0, str(folder))
    try:
        import golden as module
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = writes_bytecode
    return module


@pytest.fixture(scope="session")
def hard_cases(shared: Path) -> Path:
    """Folder with awkward videos, else skip."""
    folder = shared / "hard_cases"
    if not folder.is_dir():
        pytest.skip(f"no hard cases in {folder}")
    return folder


@pytest.fixture(scope="session")
def tracker() -> None:
    """Skip where no face can be found, e.g. on a training machine without MediaPipe."""
    pytest.importorskip("mediapipe")


@pytest.fixture(scope="session")
def tiny_synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with a small Synthetic set, made and prepared for HyperLipsBase.

    Read it, or copy it with ``shutil.copytree``; runs on it take the arguments :data:`SMALL`.
    """
    pytest.importorskip("mediapipe")
    root = tmp_path_factory.mktemp("tiny")
    args = ["--model=HyperLipsBase", "--dataset=Synthetic", "--stages=preprocess", *SMALL]
    done = run_command(args, root, timeout=300)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="session")
def tiny_base(tiny_synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of the smallest HyperLipsBase, after one epoch on :func:`tiny_synthetic`."""
    from trainkit import fit, hyperlips_config

    folder = tmp_path_factory.mktemp("base")
    fit(hyperlips_config(tiny_synthetic, epochs=1), folder)
    return folder / "best.ckpt"


@pytest.fixture(scope="session")
def tiny_apc(tiny_synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of the smallest APC, after one epoch on :func:`tiny_synthetic`."""
    from trainkit import fit

    from talkingface.config.config import load_config
    from talkingface.data.dataprocess.engine import prepare_clips

    folder = tmp_path_factory.mktemp("apc")
    place = {"root": str(tiny_synthetic / "dataset" / "Synthetic-tiny"), "device": "cpu"}
    cfg = load_config(
        "APC",
        "Synthetic",
        preset="tiny",
        overrides={**place, "epochs": 1, "num_workers": 0, "process_workers": 1},
    )
    process = cfg.registry.resolve(cfg.model_entry, "dataprocess")(cfg)
    prepare_clips(process, show_progress=False)
    fit(cfg, folder)
    return folder / "best.ckpt"


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Arguments that :func:`tiny_synthetic` was made with."""
    return list(SMALL)


@dataclass(frozen=True)
class FinishedRun:
    """One command that ran to its end: what it printed and where it wrote."""

    process: subprocess.CompletedProcess[str]
    root: Path
    saved: Path
    results: Path


@pytest.fixture(scope="session")
def one_command(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], FinishedRun]:
    """``one_command("HyperLipsBase")`` -> its run on Synthetic with the tiny preset, made once.

    HyperLipsBase has the command of the README; the others share a smaller set, for time.
    """
    pytest.importorskip("mediapipe")
    runs: dict[str, FinishedRun] = {}
    roots = [tmp_path_factory.mktemp(name) for name in ("one command", "one command, small")]

    def get(model: str) -> FinishedRun:
        if model not in runs:
            plain = model == "HyperLipsBase"
            root = roots[0 if plain else 1]
            dataset = dataset_for(model)
            size = ["--preset=tiny"] if plain or dataset != "Synthetic" else SMALL
            args = [f"--model={model}", f"--dataset={dataset}", *size, "--device=cpu"]
            if model == "HyperLipsHR":
                args.append(
                    f"--weights.base={get('HyperLipsBase').saved / 'checkpoints/best.ckpt'}"
                )
            done = run_command(args, root, timeout=600)
            name = root / "saved" / model / dataset / "latest.txt"
            run_id = name.read_text("utf-8").strip() if name.exists() else "no run"
            place = Path(model) / dataset / run_id
            runs[model] = FinishedRun(done, root, root / "saved" / place, root / "results" / place)
        return runs[model]

    return get


@pytest.fixture(scope="session")
def talking_clip(tiny_synthetic: Path) -> Path:
    """A 3 s mp4 of a talking face with sound, 256 x 256 at 25 frames/s."""
    return sorted((tiny_synthetic / "dataset/Synthetic-tiny/data").rglob("*.mp4"))[0]


@pytest.fixture(scope="session")
def tone_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a 220 Hz tone that swells and fades, 16 kHz mono, 16 bit."""
    import wave

    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    time = np.arange(2 * 16000) / 16000
    samples = 0.5 * np.sin(2 * np.pi * 220 * time) * np.sin(2 * np.pi * 1.5 * time) ** 2
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="session")
def noise_video() -> Callable[..., Path]:
    """``noise_video(path, frames=50, sound=True)`` writes a video in which no face is."""
    pytest.importorskip("av")
    from talkingface.data.media.writer import VideoWriter

    def write(path: Path, frames: int = 50, sound: bool = True) -> Path:
        rng = np.random.default_rng(7)
        audio = (rng.normal(0, 0.1, frames * 640).astype(np.float32), 16000) if sound else None
        with VideoWriter(path, 25, audio=audio) as writer:
            for _ in range(frames):
                writer.write(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8))
        return path

    return write


@pytest.fixture(scope="session")
def block_import(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., dict[str, str]]:
    """``block_import("mediapipe", "librosa")`` -> environment in which they are not installed.

    The interpreter reads ``sitecustomize`` before anything else, so no code of ours is replaced.
    """

    def make(*names: str, message: str | None = None) -> dict[str, str]:
        """With ``message`` they are there, but fail to load with an ImportError of that text."""
        folder = tmp_path_factory.mktemp("blocked")
        answer = "return None" if message is None else f"raise ImportError({message!r}, name=name)"
        (folder / "sitecustomize.py").write_text(
            "import sys\n"
            "from importlib.machinery import PathFinder\n"
            f"BLOCKED = {names!r}\n"
            "class Finder(PathFinder):\n"
            "    @classmethod\n"
            "    def find_spec(cls, name, path=None, target=None):\n"
            "        if name.split('.')[0] in BLOCKED:\n"
            f"            {answer}\n"
            "        return super().find_spec(name, path, target)\n"
            "sys.meta_path[sys.meta_path.index(PathFinder)] = Finder\n",
            encoding="utf-8",
        )
        path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(path)}

    return make
