"""Interface of a preparation, which turns raw clips into the files of a dataset class."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from talkingface.data.clips import Corpus
from talkingface.data.dataprocess.prepared import PreparedClips
from talkingface.data.dataprocess.report import ProcessReport
from talkingface.errors import TalkingFaceError
from talkingface.utils.logs import progress

if TYPE_CHECKING:
    from talkingface.config.config import Config
    from talkingface.data.clips import Clip

log = logging.getLogger(__name__)


class SkipClip(TalkingFaceError):
    """The clip is not suitable. The message is the reason; the report counts it."""


class Components(Protocol):
    """Trained networks for a preparation or dataset, by their names in the section ``weights``.

    All methods raise WeightsError without a file; the message explains how to get one.
    """

    def path(self, name: str) -> Path:
        """The weights file."""

    def sha256(self, name: str) -> str:
        """SHA-256 of the weights file, in hex."""

    def network(self, name: str) -> Any:
        """The network, in eval mode and without gradients."""

    def pipeline(self, name: str, **infer: Any) -> Any:
        """The pipeline that generates videos, for components that are models with a pipeline."""


@runtime_checkable
class CompletesClips(Protocol):
    """A preparation whose output also depends on other clips or on a component.

    A run may use another component, or another training list, than the run that prepared the
    clips.
    """

    def complete(self, split: str) -> None:
        """Write the files that the usable clips of a split lack with the settings of this run.

        Called before a dataset is built, by one process at a time.
        """


class DataProcess(ABC):
    """Turns raw clips into the files that a dataset class reads.

    :func:`~talkingface.data.dataprocess.engine.prepare_clips` runs it.

    Class attributes:
        id: name of the sub-folder below ``preprocessed_data``.
        version: raise it when the output changes; older results are then prepared again.
        needs_config: configuration keys that it reads, beside those that every run has and those
            of its base classes. A model that reuses the class must have them.
        uses_components: it needs trained networks; the runner then passes them.

    Args:
        cfg: the run's configuration.
        components: the trained networks of a class with ``uses_components``.

    Attributes:
        corpus: the raw clips.
        prepared: folders and markers of the prepared clips.
    """

    id: ClassVar[str]
    version: ClassVar[int] = 1
    needs_config: ClassVar[tuple[str, ...]] = ()
    uses_components: ClassVar[bool] = False

    def __init__(self, cfg: Config, components: Components | None = None) -> None:
        self.cfg = cfg
        if self.uses_components:
            if components is None:
                raise TypeError(f"{type(self).__name__} needs the argument 'components'")
            self.components: Components = components
        self.corpus = Corpus(cfg)
        self.prepared = PreparedClips(self)

    @property
    def folder(self) -> Path:
        """Output folder: ``preprocessed_root``, with ``id`` appended unless it ends with it."""
        root = self.cfg.processed_dir
        return root if root.name == self.id else root / self.id

    def _bar(self, clips: Sequence[Any], title: str) -> Iterable[Any]:
        """The clips with a progress bar; their number is logged if there are any."""
        if not clips:
            return ()
        log.info("%s of %d clips", title, len(clips))
        return progress(clips, unit="clip", desc=title, show=self.cfg.show_progress)

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Values that the output depends on; after a change the clips are prepared again."""

    @abstractmethod
    def process_clip(self, clip: Clip, out: Path) -> dict[str, Any]:
        """Write the files of one clip into ``out`` (exists, empty, temporary).

        Returns:
            Entries for the marker; at least ``frames`` and ``seconds``.

        Raises:
            SkipClip: the clip is not suitable, with the reason.
            DataError: the clip cannot be read.
        """

    def finalize(self, report: ProcessReport) -> None:
        """Write results of several clips, after all are prepared and split.

        Called in every run, by one process at a time; skip what is already done.
        """
