"""Items per second of the training dataset against the original's way of making them.

The original decodes, resamples and transforms the whole sound of a clip for every item that it
draws; here the mel is computed once per clip. Both read the same five target
and five reference pictures. Runs alternate; medians and their ratio are printed.

    python benchmarks/dataset_speed.py --dataset=Synthetic [--data_root=...]
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import librosa
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from talkingface.cli import parse_arguments
from talkingface.config.config import load_config
from talkingface.data.clips import discover_clips
from talkingface.data.dataset.hyperlips.hyperlipsbase_dataset import HyperLipsBaseDataset
from talkingface.data.media.audio import load_audio, save_wav
from talkingface.data.media.mel import wav2lip_mel
from talkingface.utils.seeding import item_rng

ITEMS, ROUNDS = 20, 7


def original_item(data: HyperLipsBaseDataset, sounds: dict, number: int, index: int) -> dict:
    """One item with the sound decoded again, as the original's loader does."""
    clip = data.clips[number]
    wave, _ = librosa.load(sounds[clip.id], sr=16000)
    wav2lip_mel(wave)
    return data.load_item(number, item_rng(0, index))


def main() -> None:
    arguments = parse_arguments(sys.argv[1:])
    cfg = load_config(
        "HyperLipsBase", arguments.config.pop("dataset", "Synthetic"), cli=arguments.config
    )
    data = HyperLipsBaseDataset(cfg, "train")
    clips = {clip.id: clip for clip in discover_clips(cfg.data_dir, cfg.clips, quiet=True)}
    # The container's own rate and channels, as the original stores them.
    sounds = {}
    for prepared in data.clips[:ITEMS]:
        folder = cfg.dataset_root / ".benchmark"
        path = folder / (prepared.id.replace("/", "_") + ".wav")
        if not path.exists():
            save_wav(path, load_audio(clips[prepared.id].audio, 44100), 44100)
        sounds[prepared.id] = path
    numbers = [i % len(sounds) for i in range(ITEMS)]
    rates: dict[str, list[float]] = {"ours": [], "original": []}
    for _ in range(ROUNDS):
        for name in rates:
            started = time.perf_counter()
            for index, number in enumerate(numbers):
                if name == "ours":
                    data.load_item(number, item_rng(0, index))
                else:
                    original_item(data, sounds, number, index)
            rates[name].append(ITEMS / (time.perf_counter() - started))
    ours, original = (statistics.median(rates[name]) for name in ("ours", "original"))
    ratio = statistics.median(np.divide(rates["ours"], rates["original"]))
    seconds = np.mean([len(data.clips[n].mel[0]) / 80 for n in numbers])
    print(
        f"{cfg.dataset}: clips of {seconds:.1f} s, {cfg.model_params.image_size} px, 5 + 5 frames"
    )
    print(f"ours      {ours:8.1f} items/s")
    print(f"original  {original:8.1f} items/s (wav decoded and transformed per item)")
    print(f"ratio     {ratio:8.2f}")


if __name__ == "__main__":
    main()
