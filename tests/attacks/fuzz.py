"""Reads damaged files of all kinds; each must end with a result or with an error of the toolkit.

    python tests/attacks/fuzz.py 2000 [--seed=0] [--more=FOLDER]

Each file is read in a process of its own. Failures are other exceptions than those of the toolkit,
a crash, more than 10 s or 1 GB, and a file that Python code writes outside of the temporary folder;
they are printed as JSON, with the name of the damaged file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))
SECONDS = 10
GIGABYTES = 1.0  # resident memory of a process


# -- good files ------------------------------------------------------------------------------------


def make_seeds(folder: Path) -> dict[str, list[Path]]:
    """Small good files by the kind of reader."""
    import torch
    from safetensors.torch import save_file

    rng = np.random.default_rng(0)
    seeds: dict[str, list[Path]] = {"media": [], "picture": [], "yaml": []}
    for name, video, sound in (
        ("a.mp4", "libx264", "aac"), ("a.mkv", "mpeg4", "ac3"), ("a.webm", "libvpx", "libopus"),
        ("a.mpg", "mpeg2video", "mp2"), ("a.mov", "mjpeg", "pcm_s16le"), ("a.avi", "mpeg4", "mp3"),
        ("a.wav", None, "pcm_s16le"), ("b.wav", None, "pcm_f32le"), ("a.flac", None, "flac"),
        ("a.mp3", None, "mp3"), ("a.ogg", None, "libopus"), ("a.m4a", None, "aac"),
    ):  # fmt: skip
        write_media(folder / name, video, sound, rng)
        seeds["media"].append(folder / name)
    import cv2

    texture = cv2.resize(rng.integers(0, 256, (12, 12, 3), np.uint8), (96, 80))
    for suffix in ("png", "jpg", "webp", "bmp", "tiff"):
        cv2.imwrite(str(folder / f"a.{suffix}"), texture)
        seeds["picture"].append(folder / f"a.{suffix}")
    np.savez(folder / "a.npz", x=rng.normal(size=(20, 30)), names=np.array(["a", "b"]))
    np.savez_compressed(folder / "b.npz", x=rng.normal(size=(20, 30)).astype(np.float32))
    np.save(folder / "a.npy", rng.normal(size=(20, 30)))
    seeds["arrays"] = [folder / name for name in ("a.npz", "b.npz", "a.npy")]
    for path in sorted((TOP / "properties").rglob("*.yaml"))[::3]:
        copy = folder / f"{path.parent.name}_{path.name}"
        shutil.copy(path, copy)
        seeds["yaml"].append(copy)
    (folder / "user.yaml").write_text(
        "batch_size: 4\noptim:\n  learning_rate: {generator: 1.0e-3}\nmetrics: [LMD, PSNR]\n"
        "data: {windows_per_clip: 2}\nquality:\n  drop: [max_cuts]\n"
    )
    seeds["yaml"] += 5 * [folder / "user.yaml"]
    tensors = {"a.weight": torch.randn(8, 8), "a.bias": torch.zeros(8)}
    settings = "model: HyperLipsBase\ndataset: Synthetic\n"
    state = {"format": "talkingface.ckpt/1", "state_dict": tensors, "config": settings, "step": 3}
    torch.save(state, folder / "a.ckpt")
    torch.save(tensors, folder / "a.pth")
    torch.save(tensors, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file(tensors, str(folder / "a.safetensors"), metadata={"config": settings})
    seeds["weights"] = [folder / name for name in ("a.ckpt", "a.pth", "old.pth", "a.safetensors")]
    (folder / "list.txt").write_text("\n".join(f"id{k}/id{k}_00{k}" for k in range(9)), "utf-8")
    (folder / "list16.txt").write_text("id1/id1_000\nid2/id2_000\n", "utf-16")
    seeds["list"] = [folder / "list.txt", folder / "list16.txt"]
    (folder / "a.json").write_text(json.dumps({"files": {"a": [1, 2]}, "settings": {"fps": 25}}))
    seeds["json"] = [folder / "a.json"]
    return seeds


def write_media(path: Path, video: str | None, sound: str, rng: np.random.Generator) -> None:
    import av

    with av.open(str(path), "w") as container:
        if video:
            picture = container.add_stream(video, rate=25)
            picture.width, picture.height = 96, 64
            picture.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
        speech = container.add_stream(sound, rate=48000 if sound == "libopus" else 44100)
        speech.layout = "mono"
        for number in range(8 if video else 0):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 20 * number, np.uint8), "rgb24")
            container.mux(picture.encode(frame))
        if video:
            container.mux(picture.encode())
        samples = (3000 * rng.normal(size=(1, 44100 * 2 // 5))).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate = speech.rate
        resampler = av.AudioResampler(speech.format, speech.layout, speech.rate, speech.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(speech.encode(part))
        container.mux(speech.encode())


# -- readers ---------------------------------------------------------------------------------------


def read_media(path: Path) -> None:
    from talkingface.data.media.audio import load_audio
    from talkingface.data.media.probe import probe
    from talkingface.data.media.reader import count_frames, read_frames
    from talkingface.errors import DataError

    info = probe(path)
    steps = (
        lambda: info.has_video and count_frames(path, 25),
        lambda: info.has_video and list(islice(read_frames(path, 25), 60)),
        lambda: load_audio(path, 16000),
    )
    for step in steps:
        with contextlib.suppress(DataError):
            step()


def read_picture(path: Path) -> None:
    from talkingface.data.media.images import read_image

    read_image(path)


def read_arrays(path: Path) -> None:
    from talkingface.data.npz import read_npy, read_npz

    read_npy(path) if path.suffix == ".npy" else read_npz(path)


def read_yaml(path: Path) -> None:
    from talkingface.config.config import load_config
    from talkingface.utils.yaml_files import load_yaml

    load_yaml(path)
    load_config("HyperLipsBase", "Synthetic", config_files=[path])


def read_weights(path: Path) -> None:
    from talkingface.components.models import config_of_checkpoint
    from talkingface.utils.weights import read_weights as read

    config_of_checkpoint(path)
    read(path)


def read_list(path: Path) -> None:
    from talkingface.data.filelists import read_filelist

    read_filelist(path)


def read_marker(path: Path) -> None:
    from talkingface.utils.paths import read_json

    read_json(path)


READERS: dict[str, Callable[[Path], None]] = {
    "media": read_media,
    "picture": read_picture,
    "arrays": read_arrays,
    "yaml": read_yaml,
    "weights": read_weights,
    "list": read_list,
    "json": read_marker,
}


# -- damage ----------------------------------------------------------------------------------------


def damaged(data: bytes, rng: np.random.Generator, text: bool) -> bytes:
    """The content with one to four changes."""
    content = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        size = max(len(content), 1)
        # Half of the changes in the first 256 bytes, where headers are.
        at = int(rng.integers(0, min(size, 256) if rng.random() < 0.5 else size))
        length = int(min(2 ** rng.integers(0, 10), size))
        kind = rng.integers(0, 8)
        if kind == 0:
            content[at : at + 1] = bytes([rng.integers(0, 256)])
        elif kind == 1:
            content[at : at + length] = rng.bytes(length)
        elif kind == 2:
            content[at : at + length] = b""
        elif kind == 3:
            content[at:at] = content[at : at + length]
        elif kind == 4:
            del content[at:]
        elif kind == 5:
            values = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0")
            content[at : at + 4] = values[rng.integers(0, 4)]
        elif kind == 6 and text:
            words = (b"{", b"[", b": ", b"- ", b"\n  ", b"!!python/object:os.system ", b"&a *a ")
            words += (b"null", b"1e999", b"-1", b"'", b"\t", b"\xff\xfe", "字".encode())
            content[at:at] = words[rng.integers(0, len(words))] * int(rng.integers(1, 4))
        else:
            other = int(rng.integers(0, size))
            content[at : at + length] = content[other : other + length]
    return bytes(content)


# -- one file --------------------------------------------------------------------------------------


def attempt(kind: str, path: Path, own: Path) -> None:
    """Read a file in this process, and end it: 0 good, 1 with the failure on standard error."""
    from talkingface.errors import EnvironmentProblem, TalkingFaceError

    def watch(event: str, args: tuple) -> None:
        flags = args[2] if event == "open" else 0
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        if writes or event in ("os.remove", "os.rename", "os.mkdir", "shutil.rmtree"):
            for name in args[: 2 if event == "os.rename" else 1]:
                target = "" if isinstance(name, int) else os.path.abspath(os.fsdecode(name))
                if target and not target.startswith((str(own), "/dev/", "/proc/")):
                    outside.append(f"{event} {target}")
        if event in ("os.system", "subprocess.Popen", "os.exec"):
            outside.append(f"{event} {args[0]}")

    outside: list[str] = []
    signal.alarm(SECONDS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.addaudithook(watch)
    status = 0
    try:
        READERS[kind](path)
    except TalkingFaceError as error:
        if isinstance(error, EnvironmentProblem) or not str(error).strip():
            status = 1
            print(f"{type(error).__name__} for a damaged file: {error}", file=sys.stderr)
    except BaseException:
        status = 1
        traceback.print_exc()
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    if outside or used > GIGABYTES:
        status = 1
        print(f"written outside: {outside}; memory {used:.2f} GB", file=sys.stderr)
    sys.stderr.flush()
    os._exit(status)


def check(kind: str, path: Path, own: Path) -> str | None:
    """What went wrong with a file; None: nothing."""
    log = own / "stderr"
    pid = os.fork()
    if not pid:
        os.chdir(own)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 2)
        os.dup2(file, 1)
        sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), write_through=True)
        attempt(kind, path, own)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 0:
        return None
    if status == -signal.SIGALRM:
        return f"longer than {SECONDS} s"
    return f"status {status}: " + log.read_text("utf-8", "replace")[-1500:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--more", type=Path, help="folder of further good media and pictures")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    rng = np.random.default_rng(args.seed)
    failures = []
    with tempfile.TemporaryDirectory() as name:
        own = Path(name).resolve()
        os.environ["TALKINGFACE_ROOT"] = str(own)
        seeds = make_seeds(own)
        from talkingface.data.media.images import is_image
        from talkingface.errors import TalkingFaceError

        for path in sorted(args.more.iterdir()) if args.more else ():
            if path.suffix not in (".md", ".txt") and path.stat().st_size < 5e5:
                seeds["picture" if is_image(path) else "media"].append(path)
        for kind, paths in seeds.items():
            with contextlib.suppress(TalkingFaceError):
                READERS[kind](paths[0])  # loads here what reading needs, for all processes
            for path in paths:  # the good files
                if failure := check(kind, path, own):
                    failures.append({"kind": kind, "file": path.name, "failure": failure})
        kinds = [kind for kind in seeds for _ in range({"media": 4, "weights": 2}.get(kind, 1))]
        for number in range(args.count):
            kind = kinds[number % len(kinds)]
            seed = seeds[kind][rng.integers(0, len(seeds[kind]))]
            path = own / f"case{number}{seed.suffix}"
            path.write_bytes(damaged(seed.read_bytes(), rng, kind in ("yaml", "list", "json")))
            if failure := check(kind, path, own):
                kept = Path(tempfile.gettempdir()) / f"fuzz_{args.seed}_{number}{seed.suffix}"
                shutil.copy(path, kept)
                failures.append({"kind": kind, "file": str(kept), "failure": failure})
            path.unlink(missing_ok=True)
    print(json.dumps({"files": args.count, "failures": failures}, indent=1))


if __name__ == "__main__":
    main()
