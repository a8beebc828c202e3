"""Locked versions, packages that do not fit, the wheel, and the Dockerfile."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from conftest import REPOSITORY, run_command
from packaging.markers import Marker

import talkingface
from talkingface.utils.yaml_files import load_yaml

LOCKS = ("requirements.txt", "tests/requirements.txt")
LINE = re.compile(r"([A-Za-z0-9._-]+)==([^ ;]+)(?: ; (.+))?")
# A CPU build of PyTorch comes without these.
OF_CUDA = re.compile(r"(nvidia|cuda|triton)\b")


def locked(name: str) -> dict[str, str]:
    """Package -> version that a lock file asks for on this machine."""
    found = {}
    for line in (REPOSITORY / name).read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            package, version, marker = LINE.fullmatch(line).groups()
            if marker is None or Marker(marker).evaluate():
                found[package.lower()] = version
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_the_installed_versions_are_those_of_the_lock(name):
    """TALKINGFACE_VERSIONS=any: other versions are tried on purpose."""
    different = []
    for package, version in locked(name).items():
        try:
            found = metadata.version(package).split("+")[0]
        except metadata.PackageNotFoundError:
            found = "not installed"
        if found != version and not (found == "not installed" and OF_CUDA.match(package)):
            different.append(f"{package} {found} (locked {version})")
    message = f"not as in {name}: {', '.join(different)}"
    if different and os.environ.get("TALKINGFACE_VERSIONS") == "any":
        pytest.skip(message)
    assert not different, message


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_exact_complete_and_names_no_index(name):
    text = (REPOSITORY / name).read_text("utf-8")
    assert "://" not in text and "--" not in text
    packages = locked(name)  # every line matches
    assert len(packages) > 80
    for package in packages:
        if OF_CUDA.match(package):
            continue
        for wanted in metadata.requires(package) or ():
            words = re.match(r"([A-Za-z0-9._-]+)[^;]*(?:; *(.+))?", wanted)
            if words[2] is None or Marker(words[2]).evaluate({"extra": ""}):
                key = re.sub(r"[-_.]+", "-", words[1]).lower()
                assert key in packages or OF_CUDA.match(key), f"{package} needs {key}"


def test_the_ranges_hold_the_locked_versions():
    from packaging.requirements import Requirement

    packages = locked("requirements.txt")
    project = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    ranges = re.search(r"^dependencies = \[(.*?)^\]", project, re.S | re.M)[1]
    wanted = [Requirement(text) for text in re.findall(r'"([^"]+)"', ranges)]
    assert len(wanted) > 20
    for item in wanted:
        assert packages[item.name.lower().replace("_", "-")] in item.specifier, str(item)


def test_the_face_models_are_those_of_their_manifest():
    folder = Path(talkingface.__file__).parent / "data/face/models"
    known = load_yaml(folder / "manifest.yaml")[0]
    assert set(known) == {p.name for p in folder.iterdir()} - {"manifest.yaml", "README.md"}
    for name, item in known.items():
        content = (folder / name).read_bytes()
        assert len(content) == item["bytes"]
        assert hashlib.sha256(content).hexdigest() == item["sha256"]


# -- packages that do not fit together -------------------------------------------------------------


def fake(folder: Path, name: str, version: str, requires: str = "", code: str = "") -> str:
    """A folder for PYTHONPATH that hides a package behind another version of it."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requires}"] if requires else []
    (info / "METADATA").write_text("\n".join(lines) + "\n", "utf-8")
    if code:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code, "utf-8")
    return str(folder)


BROKEN = "raise OSError('Could not load this library: /x/libtorchaudio.so: undefined symbol: _ZN3')"


@pytest.mark.parametrize("model", ["A2PFace", "HeadGAN"])
def test_a_torchaudio_that_does_not_load_is_explained(model, tmp_path):
    path = fake(tmp_path / "site", "torchaudio", "2.11.1", code=BROKEN)
    dataset = "SyntheticDyad" if model == "A2PFace" else "Synthetic"
    done = run_command(
        [f"--model={model}", f"--dataset={dataset}", "--preset=tiny"],
        tmp_path,
        env={"PYTHONPATH": path},
    )
    torch = metadata.version("torch")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"torchaudio 2.11.1 was not built for torch {torch}" in done.stderr
    assert "pip install -r requirements.txt" in done.stderr and "undefined" not in done.stderr


def test_a_torchaudio_that_does_not_load_costs_only_its_users(tmp_path):
    path = fake(tmp_path / "site", "torchaudio", "2.11.1", code=BROKEN)
    code = (
        "import importlib, sys\n"
        "from talkingface.registry import Registry\n"
        "registry = Registry()\n"
        "for entry in registry.entries('model').values():\n"
        "    for role in ('model', 'config', 'dataset', 'dataprocess', 'pipeline'):\n"
        "        if entry.target(role): registry.resolve(entry, role)\n"
        "import talkingface.evaluator.evaluator, talkingface.comparison.run\n"
        "talkingface_model = importlib.import_module('talkingface').create_model\n"
        "talkingface_model('HyperLipsBase', preset='tiny')\n"
        "print('torchaudio' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_a_torchvision_for_another_torch_is_explained_before_anything_else(tmp_path):
    path = fake(tmp_path / "site", "torchvision", "0.99.0", requires="torch (==9.9.9)")
    done = run_command(
        ["--model=HyperLipsBase", "--dataset=Synthetic", "--preset=tiny"],
        tmp_path,
        env={"PYTHONPATH": path},
    )
    torch = metadata.version("torch")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"torchvision 0.99.0 was not built for torch {torch}" in done.stderr
    assert not (tmp_path / "dataset").exists()


# -- the wheel -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel that sees the packages of this one; its bin folder."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    own = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    others = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    Path(own, "packages.pth").write_text("\n".join(others) + "\n", "utf-8")
    install = [str(python), "-m", "pip", "install", "--no-deps", "--no-index", "-q", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return python.parent


def call(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    hidden = ("TALKINGFACE_ROOT", "TALKINGFACE_PLUGINS", "PYTHONPATH")
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def test_the_wheel_holds_the_registry_and_the_models_but_no_test(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    yaml = sorted(p.relative_to(REPOSITORY) for p in REPOSITORY.glob("properties/*/*.yaml"))
    assert yaml
    for path in (*yaml, Path("properties/overall.yaml"), Path("checkpoints/manifest.yaml")):
        assert f"talkingface/{path.as_posix()}" in names
    for name in ("face_landmarker.task", "selfie_segmenter.tflite", "pose_landmarker.task"):
        assert f"talkingface/data/face/models/{name}" in names
    assert "talkingface/comparison/page.html" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "saved/"))]
    assert not [name for name in names if "/local/" in name]


def test_the_installed_command_lists_what_the_repository_lists(installed, tmp_path):
    expected = run_command(["--list"], tmp_path).stdout
    assert "HyperLipsBase" in expected
    command, python = str(installed / "talkingface"), str(installed / "python")
    for words in ([command], [python, "-m", "talkingface"]):
        done = call([*words, "--list"], tmp_path)
        assert done.returncode == 0 and done.stdout == expected, done.stderr
    # A checkout as the current folder: its files are not listed twice.
    done = call([str(installed / "talkingface"), "--list"], REPOSITORY)
    assert done.returncode == 0 and done.stdout == expected, done.stderr


def test_the_installed_package_trains_and_generates_in_an_empty_folder(installed, tmp_path):
    command = str(installed / "talkingface")
    small = ["--preset=tiny", "--synthetic.persons=2", "--max_steps=1"]
    done = call(
        [command, "--model=HyperLipsBase", "--dataset=Synthetic", *small,
         "--stages=preprocess,train"],
        tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "try it:      talkingface --infer" in done.stdout + done.stderr
    assert {"dataset", "saved", "log"} <= {path.name for path in tmp_path.iterdir()}
    source = next(tmp_path.glob("dataset/*/data/*/*.mp4"))
    done = call(
        [command, "--infer", "--model=HyperLipsBase", f"--audio={source}", f"--source={source}",
         "--output=out.mp4"],
        tmp_path,
    )  # fmt: skip
    assert done.returncode == 0 and (tmp_path / "out.mp4").stat().st_size > 1000, done.stderr


# -- Docker ----------------------------------------------------------------------------------------


def test_the_dockerfile_installs_the_lock_and_runs_the_first_command():
    """No Docker is at hand: its instructions are read, and the files that it copies exist."""
    text = (REPOSITORY / "Dockerfile").read_text("utf-8")
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
    steps = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    known = {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "ENV", "ENTRYPOINT", "CMD"}
    assert {step[0] for step in steps} <= known and steps[0][0] == "FROM"
    assert ["ARG", "DEVICE=cpu"] in steps
    for step, rest in steps:
        if step == "COPY":
            assert all((REPOSITORY / source).exists() for source in rest.split()[:-1])
    runs = "\n".join(rest for step, rest in steps if step == "RUN")
    assert "pip install --no-cache-dir -r locked.txt" in runs
    for library in ("libgl1", "libglib2.0-0", "libegl1", "libgles2"):
        assert library in runs
    shell = subprocess.run(["sh", "-n"], input=runs, capture_output=True, text=True)
    assert shell.returncode == 0, shell.stderr
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    first = re.search(r"run_talkingface\.py (--model=\S+) (--dataset=\S+) (--preset=\S+)", readme)
    words = [rest for step, rest in steps if step in ("ENTRYPOINT", "CMD")]
    assert words == ['["talkingface"]', "[" + ", ".join(f'"{w}"' for w in first.groups()) + "]"]


def test_what_docker_leaves_out_of_the_lock_is_what_the_cpu_build_of_pytorch_lacks():
    """The patterns of the Dockerfile split requirements.txt into PyTorch, CUDA and the rest."""
    lines = (REPOSITORY / "requirements.txt").read_text("utf-8").splitlines()
    names = [line.split("==")[0] for line in lines if "==" in line]
    text = (REPOSITORY / "Dockerfile").read_text("utf-8")
    torch, rest = re.findall(r"grep -v?E '(\^\([^']+)'", text)
    chosen = {line.split("==")[0] for line in lines if re.search(torch, line)}
    assert chosen == {"torch", "torchvision", "torchaudio"}
    left_out = {name for name in names if re.search(rest, f"{name}==1")}
    assert all(OF_CUDA.match(name) for name in left_out - chosen)
    assert not any(OF_CUDA.match(name) for name in set(names) - left_out)
