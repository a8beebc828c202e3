"""The ``Synthetic`` dataset: rendered people, generated on first use and repeatable by seeds."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from talkingface.data.synthetic.config import SyntheticSection
from talkingface.data.synthetic.people import PersonClip, frame_seconds, render_clip
from talkingface.data.synthetic.voices import check_voices, identity
from talkingface.errors import DataError
from talkingface.utils.locks import file_lock
from talkingface.utils.logs import progress
from talkingface.utils.paths import (
    atomic,
    read_json,
    remove_stale,
    write_if_changed,
    write_json,
    write_problem,
)
from talkingface.utils.system import process_workers

if TYPE_CHECKING:
    from talkingface.config.config import Config

log = logging.getLogger(__name__)

VERSION = 3  # raise it whenever the content of clips changes
SHIPPED = Path(__file__).parent / "tiny"  # clips of the preset tiny, see tools/render_tiny.py
SUFFIXES = (".mp4", ".truth.npz", ".truth.json")  # in the order of writing
TEST_PERSONS = "test_persons"
COUNTS = ("persons", "first_person", "clips_per_person")  # keys that change no clip
LISTS = ("train", "val", "test", TEST_PERSONS)


class SyntheticSource:
    """Clips of rendered people with exact truth.

    Below ``root``: ``data/<person>/<clip>.mp4`` with ``.truth.npz`` and ``.truth.json`` (see
    :class:`~talkingface.data.synthetic.people.Truth`), lists and ``synthetic.json``. Lists:

    * ``train``: all clips but the second one of each person, without those below;
    * ``val`` and ``test``: in turns the second clip of these persons; its sentences are in no
      training clip;
    * ``test_persons``: all clips of the persons number 5, 11, 17, ..., who are in no other list;
      no sentence of them is in a training clip.

    Args:
        root: folder of the dataset; created.
        options: section ``synthetic`` of the configuration.
        workers: number of processes; it does not change the result.
    """

    def __init__(self, root: Path, options: SyntheticSection, workers: int = 1) -> None:
        self.root, self.options, self.workers = Path(root), options, max(1, int(workers))
        self.settings = options.model_dump(exclude=set(COUNTS))

    @classmethod
    def from_config(cls, cfg: Config) -> SyntheticSource:
        """The source that a run's configuration describes.

        Raises:
            DataError: ``data_root`` is set, which the clips are not rendered into.
        """
        options = cfg.synthetic
        if cfg.data_dir != cfg.dataset_root / "data":
            raise DataError(
                f"data_root is {cfg.data_root}, but Synthetic is rendered into <root>/data. Set "
                "--root=<folder> instead."
            )
        if tuple(cfg.make_split) != (0.8, 0.1, 0.1):
            log.warning("make_split is not used: Synthetic has lists of its own (docs/people.md)")
        jobs = options.persons * options.clips_per_person
        return cls(cfg.dataset_root, options, process_workers(cfg.process_workers, jobs))

    def plans(self) -> list[PersonClip]:
        """All clips; the content of one depends on its person, its number and the settings."""
        plans, content = [], {**self.settings, "voices": identity(self.options.voices)}
        first = self.options.first_person
        for person in range(first, first + self.options.persons):
            for number in range(self.options.clips_per_person):
                part = "test" if number == 1 or _held_out(person) else "train"
                text = json.dumps([VERSION, content, person, number], sort_keys=True)
                digest = hashlib.sha256(text.encode()).hexdigest()[:16]
                name = f"p{person:02d}/p{person:02d}_{number:03d}"
                plans.append(PersonClip(name, person, number, part, self.settings, digest))
        return plans

    def lists(self) -> dict[str, list[str]]:
        """Clip names of each list."""
        lists: dict[str, list[str]] = {name: [] for name in LISTS}
        for plan in self.plans():
            if _held_out(plan.person):
                lists[TEST_PERSONS].append(plan.name)
            elif plan.number == 1:
                shown = plan.person - plan.person // 6  # among the persons who are not held out
                lists["test" if shown % 2 else "val"].append(plan.name)
            else:
                lists["train"].append(plan.name)
        return lists

    def ensure(self, show_progress: str | bool = True) -> None:
        """Render the clips that are missing or belong to other settings.

        Raises:
            DataError: the folder cannot be used, or the voices have no usable recordings.
            EnvironmentProblem: disk full, read-only folder, missing package.
        """
        self._check_root()
        plans = self.plans()
        with file_lock(self.root / ".rendering.lock"):  # another run may need the same clips
            remove_stale(self.root / "data", "**/*")
            for plan in plans:
                if is_done(SHIPPED, plan) and not is_done(self.root, plan):
                    self._copy(plan)
            missing = [plan for plan in plans if not is_done(self.root, plan)]
            if missing:
                self._render(missing, show_progress)
            self._write_lists()  # after the clips, so that all listed clips exist

    def _write_lists(self) -> None:
        """Lists of the user's are kept until other settings need other lists."""
        summary = {"synthetic": True, "version": VERSION, **self.options.model_dump()}
        before = read_json(self.root / "synthetic.json")
        before.setdefault("first_person", 0)  # a newer key
        changed = before != summary
        for name in LISTS:
            path, clips = self.root / "filelist" / f"{name}.txt", self.lists()[name]
            if clips and (changed or not path.exists()):
                write_if_changed(path, "".join(f"{clip}\n" for clip in clips))
            elif not clips and changed:
                path.unlink(missing_ok=True)
        if changed:
            write_json(self.root / "synthetic.json", summary)

    def _check_root(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise DataError(
                f"{self.root} is a file; the Synthetic dataset needs a folder. "
                "Remove it or choose another --root."
            ) from error
        except OSError as error:
            raise write_problem(self.root, error) from error
        if "settings" in read_json(self.root / "synthetic.json"):  # up to version 2
            log.warning(
                "%s holds the former Synthetic set, an animated photograph. Its clips (%s) are not "
                "used any more and may be deleted; new lists name the rendered people.",
                self.root,
                self.root / "data" / "id*",
            )

    def _copy(self, plan: PersonClip) -> None:
        plan.path(self.root, ".truth.json").unlink(missing_ok=True)
        for suffix in SUFFIXES:
            with atomic(plan.path(self.root, suffix)) as temporary:
                shutil.copyfile(plan.path(SHIPPED, suffix), temporary)

    def _render(self, plans: list[PersonClip], show_progress: str | bool) -> None:
        workers = min(self.workers, len(plans))
        each = round(self.settings["seconds"] * self.settings["fps"])
        check_voices(self.options.voices)
        log.info("starting the renderer; its first start compiles it, in about half a minute")
        # Measured: 1.5 s for a body and the sound, and 15 % for the encoder and the truth.
        seconds = len(plans) * (1.5 + 1.15 * each * frame_seconds(plans[0])) / workers
        log.info(
            "rendering %d clips of %g s in %s with %d process%s: about %s",
            *(len(plans), self.settings["seconds"], self.root, workers),
            *("es" if workers > 1 else "", _duration(seconds)),
        )
        if workers == 1:
            done = (render_clip(self.root, plan) for plan in plans)
        else:
            from joblib import Parallel, delayed

            pool = Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered")
            done = pool(delayed(render_clip)(self.root, plan) for plan in plans)
        options = {"total": len(plans), "desc": "rendering", "unit": "clip"}
        for _ in progress(done, show=show_progress, **options):
            pass


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _held_out(person: int) -> bool:
    return person % 6 == 5


def is_done(root: Path, plan: PersonClip) -> bool:
    """Whether the clip lies below ``root``, complete and with these settings."""
    truth = read_json(plan.path(root, ".truth.json"))
    return truth.get("settings_hash") == plan.settings_hash and all(
        plan.path(root, suffix).is_file() for suffix in SUFFIXES
    )
