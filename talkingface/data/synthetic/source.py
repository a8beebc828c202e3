"""The ``Synthetic`` dataset: made on first use, without a download, decided by its seed."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from talkingface.data.synthetic.clip import ClipPlan, make_clip
from talkingface.errors import DataError
from talkingface.utils.paths import atomic, write_json, write_problem
from talkingface.utils.system import process_workers

if TYPE_CHECKING:
    from talkingface.config.config import Config

logger = logging.getLogger(__name__)

VERSION = 2  # raise it whenever the content of clips changes
SPLITS = ("train", "val", "test")


class SyntheticSource:
    """Talking-head clips with ground truth, see the package's modules for how they are made.

    Below ``root``: ``data/<identity>/<clip>.mp4`` with ``.truth.npz`` (per frame: mouth_opening
    and mouth_width over the face height, rounding, blink, pose in degrees) and ``.truth.json``
    (text, phoneme times, settings), ``filelist/{train,val,test}.txt`` and ``synthetic.json``.

    Args:
        root: folder of the dataset; created.
        clips: number of clips, at least 3 (one for each split).
        seconds: length of each clip.
        size: side of the square picture in pixels, even.
        fps: frames per second.
        identities: pseudo-identities, used in turn; never more than there are training clips.
        seed: decides everything random.
        workers: processes; they do not change the result.
        split: shares of train, val and test; the last clips are val and test.
    """

    def __init__(
        self,
        root: Path,
        *,
        clips: int,
        seconds: float,
        size: int = 256,
        fps: int = 25,
        identities: int = 4,
        seed: int = 2023,
        workers: int = 1,
        split: tuple[float, float, float] = (0.8, 0.1, 0.1),
    ) -> None:
        def check(good: bool, what: str) -> None:
            if not good:
                raise DataError(f"The Synthetic dataset in {root} cannot be made: {what}.")

        check(clips >= 3, f"clips is {clips}; give at least 3, one each for train, val and test")
        check(math.isfinite(seconds) and seconds >= 1, f"seconds is {seconds}; give at least 1")
        check(64 <= size <= 2048 and size % 2 == 0, f"size is {size}; give an even 64 to 2048")
        check(1 <= fps <= 120 and fps == int(fps), f"fps is {fps}; give a whole number 1 to 120")
        check(identities >= 1, f"identities is {identities}; give at least 1")
        check(seed >= 0, f"seed is {seed}; give 0 or more")
        check(
            len(split) == 3 and min(split) >= 0 and sum(split) > 0,
            f"split is {split}; give three shares such as 0.8, 0.1, 0.1",
        )
        self.root = Path(root)
        self.workers = max(1, int(workers))
        self.clips = int(clips)
        self.split = tuple(float(share) for share in split)
        shares = [share / sum(self.split) for share in self.split]
        held = [max(1, round(self.clips * share)) for share in shares[1:]]
        while self.clips - sum(held) < 1:  # e.g. 3 clips with split 0.2, 0.4, 0.4
            held[held.index(max(held))] -= 1
        self.counts = (self.clips - sum(held), *held)
        self.settings = {
            "version": VERSION,
            "seed": int(seed),
            "seconds": float(seconds),
            "size": int(size),
            "fps": int(fps),
            "identities": min(int(identities), self.counts[0]),
        }

    def plans(self) -> list[ClipPlan]:
        """All clips in order; clip i depends on i and the settings only."""
        people = self.settings["identities"]
        plans = []
        for index in range(self.clips):
            person, number = index % people, index // people
            text = json.dumps([self.settings, index, person], sort_keys=True)
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            plans.append(
                ClipPlan(
                    f"id{person}/id{person}_{number:03d}", index, person, self.settings, digest
                )
            )
        return plans

    def lists(self) -> dict[str, list[str]]:
        """Clip names of each split.

        The first clips train: as identities take turns, every identity is among them.
        """
        names = [plan.name for plan in self.plans()]
        train, val, _ = self.counts
        return {
            "train": names[:train],
            "val": names[train : train + val],
            "test": names[train + val :],
        }

    @classmethod
    def from_config(cls, cfg: Config) -> SyntheticSource:
        """The source that a run's configuration describes."""
        options = cfg.synthetic
        return cls(
            cfg.dataset_root,
            clips=options.clips,
            seconds=options.seconds,
            size=options.size,
            fps=options.fps,
            identities=options.identities,
            seed=options.seed,
            workers=process_workers(cfg.process_workers, options.clips // 16),
            split=tuple(cfg.make_split),
        )

    def ensure(self, show_progress: bool = True) -> None:
        """Make what is missing or belongs to other settings; fast when all is there.

        Args:
            show_progress: show a bar over the clips.

        Raises:
            EnvironmentProblem: disk full, read-only folder, missing package.
        """
        self._check_root()
        missing = [plan for plan in self.plans() if not self._done(plan)]
        if missing:
            logger.info(
                "Making %d of %d synthetic clips in %s", len(missing), self.clips, self.root
            )
            self._make(missing, show_progress)
        # Last, so that a list never names a clip that is not there.
        for split, names in self.lists().items():
            _write_if_new(self.root / "filelist" / f"{split}.txt", names)
        summary = {
            "synthetic": True,
            "settings": self.settings,
            "clips": self.clips,
            "split": list(self.split),
        }
        path = self.root / "synthetic.json"
        if _read_json(path) != summary:
            write_json(path, summary)

    def _check_root(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise DataError(
                f"{self.root} is a file; the Synthetic dataset needs a folder. "
                "Remove it or choose another data root."
            ) from error
        except OSError as error:
            raise write_problem(self.root, error) from error

    def _done(self, plan: ClipPlan) -> bool:
        base = self.root / "data" / plan.name
        truth = _read_json(base.with_name(base.name + ".truth.json"))
        return truth.get("settings_hash") == plan.settings_hash and all(
            base.with_name(base.name + suffix).is_file() for suffix in (".mp4", ".truth.npz")
        )

    def _make(self, plans: list[ClipPlan], show_progress: bool) -> None:
        from tqdm import tqdm

        def bar(done: Iterable[None]) -> None:
            for _ in tqdm(
                done,
                total=len(plans),
                desc="Synthetic clips",
                unit="clip",
                disable=not show_progress,
            ):
                pass

        workers = min(self.workers, len(plans))
        if workers == 1:
            bar(make_clip(self.root, plan) for plan in plans)
            return
        from joblib import Parallel, delayed

        pool = Parallel(n_jobs=workers, backend="loky", return_as="generator")
        bar(pool(delayed(make_clip)(self.root, plan) for plan in plans))


def _read_json(path: Path) -> dict:
    """The content of ``path``; an empty dict when it is missing or damaged."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_if_new(path: Path, names: list[str]) -> None:
    text = "".join(f"{name}\n" for name in names)
    try:
        if path.read_text("utf-8") == text:
            return
    except (OSError, ValueError):
        pass
    with atomic(path) as temporary:
        temporary.write_text(text, "utf-8")
