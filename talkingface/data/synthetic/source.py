"""The ``Synthetic`` dataset: generated on first use, without a download, repeatable by its seed."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from talkingface.data.clips import SPLITS
from talkingface.data.synthetic.clip import ClipPlan, make_clip
from talkingface.errors import DataError
from talkingface.utils.logs import progress
from talkingface.utils.paths import write_if_changed, write_json, write_problem
from talkingface.utils.system import process_workers

if TYPE_CHECKING:
    from talkingface.config.config import Config

logger = logging.getLogger(__name__)

VERSION = 2  # raise it whenever the content of clips changes


class SyntheticSource:
    """Talking-head clips with ground truth.

    Below ``root``: ``data/<identity>/<clip>.mp4`` with ``.truth.npz`` (per frame: mouth_opening
    and mouth_width over the face height, rounding, blink, pose in degrees) and ``.truth.json``
    (text, phoneme times, settings), ``filelist/{train,val,test}.txt`` and ``synthetic.json``.

    Args:
        root: folder of the dataset; created.
        clips: number of clips, at least 3 (one for each split).
        seconds: length of each clip.
        size: side of the square picture in pixels, even.
        fps: frames per second.
        identities: pseudo-identities, used in turn; at most as many as there are training clips.
        seed: seed of all random draws.
        workers: number of processes; it does not change the result.
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
                raise DataError(f"The Synthetic dataset in {root} cannot be generated: {what}.")

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
        rest = [max(1, round(self.clips * share)) for share in shares[1:]]
        while self.clips - sum(rest) < 1:  # e.g. 3 clips with split 0.2, 0.4, 0.4
            rest[rest.index(max(rest))] -= 1
        self.counts = (self.clips - sum(rest), *rest)
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
        plans = []
        for index in range(self.clips):
            number, person = divmod(index, self.settings["identities"])
            text = json.dumps([self.settings, index, person], sort_keys=True)
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            name = f"id{person}/id{person}_{number:03d}"
            plans.append(ClipPlan(name, index, person, self.settings, digest))
        return plans

    def lists(self) -> dict[str, list[str]]:
        """Clip names of each split.

        The first clips are for training: as identities take turns, every identity is among them.
        """
        names = (plan.name for plan in self.plans())
        return {split: list(islice(names, n)) for split, n in zip(SPLITS, self.counts, strict=True)}

    @classmethod
    def from_config(cls, cfg: Config) -> SyntheticSource:
        """The source that a run's configuration describes."""
        workers = process_workers(cfg.process_workers, cfg.synthetic.clips // 16)
        options = cfg.synthetic.model_dump()
        return cls(cfg.dataset_root, **options, workers=workers, split=tuple(cfg.make_split))

    def ensure(self, show_progress: bool = True) -> None:
        """Generate the clips that are missing or belong to other settings.

        Raises:
            EnvironmentProblem: disk full, read-only folder, missing package.
        """
        self._check_root()
        missing = [plan for plan in self.plans() if not self._done(plan)]
        if missing:
            text = "generating %d of %d synthetic clips in %s"
            logger.info(text, len(missing), self.clips, self.root)
            self._make_clips(missing, show_progress)
        # After the clips, so that all listed clips exist.
        for split, names in self.lists().items():
            path = self.root / "filelist" / f"{split}.txt"
            write_if_changed(path, "".join(f"{name}\n" for name in names))
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
        truth = _read_json(plan.path(self.root, ".truth.json"))
        return truth.get("settings_hash") == plan.settings_hash and all(
            plan.path(self.root, suffix).is_file() for suffix in (".mp4", ".truth.npz")
        )

    def _make_clips(self, plans: list[ClipPlan], show_progress: bool) -> None:
        workers = min(self.workers, len(plans))
        if workers == 1:
            done = (make_clip(self.root, plan) for plan in plans)
        else:
            from joblib import Parallel, delayed

            pool = Parallel(n_jobs=workers, backend="loky", return_as="generator")
            done = pool(delayed(make_clip)(self.root, plan) for plan in plans)
        options = {"total": len(plans), "desc": "Synthetic clips", "unit": "clip"}
        for _ in progress(done, show=show_progress, **options):
            pass


def _read_json(path: Path) -> dict:
    """The content of ``path``; an empty dict when it is missing or damaged."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
