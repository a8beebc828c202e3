"""``talkingface web``: generate, prepare, watch runs and compare in a browser."""

from __future__ import annotations

import html
import logging
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from talkingface.components.zoo import cards
from talkingface.data.synthetic.source import SHIPPED
from talkingface.errors import ConfigError, TalkingFaceError
from talkingface.quick_start.fetch import read_manifest
from talkingface.quick_start.previews import write_mouth
from talkingface.quick_start.status import runs, validations
from talkingface.registry import Registry, get_registry
from talkingface.utils.env import require
from talkingface.utils.logs import duration, setup_logging
from talkingface.utils.paths import program, project_root, resolve
from talkingface.web.jobs import Job
from talkingface.web.uploads import MEGABYTES, checked

log = logging.getLogger(__name__)

HOST, PORT = "127.0.0.1", 7860
_DELETED_AFTER = 3600  # seconds after which uploads are deleted
_EXAMPLE = SHIPPED / "data" / "p05"  # a person who trains no network of the zoo


def web(options: Mapping[str, str], config: Mapping[str, Any], config_files: list[str]) -> int:
    """Serve the studio until Ctrl-C; returns the exit status.

    Options: ``host`` (default 127.0.0.1), ``port`` (default 7860 or the next free one).

    Raises:
        ConfigError: the port is no number, or in use.
        EnvironmentProblem: gradio is not installed.
    """
    setup_logging(str(config.get("log_level", "info")))
    require("gradio", why="the studio", extra="web")
    host, port = options.get("host", HOST), options.get("port")
    if port is not None and not port.isdigit():
        raise ConfigError(f"--port={port} is no number")
    if host != HOST:
        log.warning("the studio is open to every machine that can reach %s; it has no login", host)
    studio = Studio()
    try:
        studio.page().queue(default_concurrency_limit=1).launch(
            server_name=host,
            server_port=int(port) if port else None,
            allowed_paths=[str(path) for path in studio.readable],
            max_file_size=f"{MEGABYTES}mb",
            quiet=True,
            show_error=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise ConfigError(f"{error} Choose another one with --port.") from error
    log.info("open http://%s:%s (Ctrl-C ends it)", host, studio.blocks.server_port)
    studio.blocks.block_thread()
    return 0


@contextmanager
def shown_errors() -> Iterator[None]:
    """Show errors that the user can correct in the page."""
    import gradio as gr

    try:
        yield
    except TalkingFaceError as error:
        raise gr.Error(str(error), duration=None) from error


class Studio:
    """The page and what it works on.

    Attributes:
        readable: folders whose files the browser may open.
    """

    def __init__(self) -> None:
        self.results = resolve("results") / "web"
        self.readable = [resolve("results"), project_root() / "dataset", resolve("saved"), _EXAMPLE]
        self.job: Job | None = None
        self.blocks: Any = None

    # -- what is there -----------------------------------------------------------------------------

    def weights(self) -> dict[str, list[str]]:
        """Title -> options of ``infer``: runs that generate videos, the zoo, official weights."""
        registry, found = get_registry(), {}
        for run in runs(resolve("saved")):
            best = run["path"] / "checkpoints" / "best.ckpt"
            if best.is_file() and _generates(registry, run["model"]):
                found[run["id"]] = [f"--checkpoint={best}"]
        for name, card in cards().items():
            if _generates(registry, card["command"].split("--model=")[1].split()[0]):
                found[f"zoo/{name}: {card['summary']}"] = [f"--checkpoint=zoo/{name}"]
        for name, entry in read_manifest().items():
            path = resolve("checkpoints") / name
            if path.is_file() and (model := entry.get("model")):
                words = [f"--model={model}", "--preset=official", f"--checkpoint={path}"]
                found[f"official {name}: {model}"] = words
        found["VideoRewrite: the person's own mouths, no training"] = ["--model=VideoRewrite"]
        return found

    def history(self) -> list[str]:
        """Generated videos, newest first."""
        files = [p for p in self.results.glob("*.mp4") if not p.stem.endswith("_mouth")]
        return [str(p) for p in sorted(files, key=lambda p: p.stat().st_mtime, reverse=True)]

    def pages(self) -> list[str]:
        """Pages of benchmarks."""
        return sorted(str(path) for path in resolve("results").rglob("benchmark.html"))

    # -- actions -----------------------------------------------------------------------------------

    def generate(self, title: str, video: str, picture: str, sound: str) -> Iterator[tuple]:
        """Generate; yields status, result, mouth and history."""
        with shown_errors():
            kind = "video" if video or not picture else "picture"
            source, audio = checked(video or picture, kind), checked(sound, "sound")
            target = self.results / f"{time.strftime('%Y%m%d-%H%M%S')}.mp4"
            words = ["infer", *self.weights()[title], f"--audio={audio}", f"--source={source}"]
            began = time.monotonic()
            for status in self._start([*words, f"--output={target}"]).follow():
                yield status, None, None, self.history()
            if not target.is_file():
                yield "cancelled", None, None, self.history()
                return
            mouth = target.with_name(f"{target.stem}_mouth.mp4")
            there = write_mouth(mouth, target)
        status = f"done in {duration(time.monotonic() - began)}: {target}"
        yield status, str(target), str(mouth) if there else None, self.history()

    def prepare(self, name: str, videos: list[str]) -> Iterator[tuple[str, str]]:
        """Prepare; yields the output and the report."""
        with shown_errors(), TemporaryDirectory() as folder:
            for number, path in enumerate(videos or [None]):
                file = checked(path, "video")
                link = Path(folder) / file.name  # a comma in it is no separator
                link = link.with_stem(f"{file.stem}_{number}") if link.is_symlink() else link
                link.symlink_to(file)
            job = self._start(["prepare", f"--dataset={name}", f"--videos={folder}"])
            for status in job.follow():
                yield status, ""
            made = (project_root() / "dataset" / name).rglob("report.html")
            reports = list(made) if job.status == 0 else []
        yield "\n".join(job.lines) or "cancelled", "".join(_frame(path) for path in reports)

    def _start(self, words: list[str]) -> Job:
        """Run a command. Only the last one can be cancelled."""
        self.job = Job(words)
        log.info("%s %s", program(), shlex.join(words))
        return self.job

    def cancel(self) -> str:
        """Stop the running command."""
        job, self.job = self.job, None
        if job is not None:
            job.cancel()
        return "cancelled"

    def run_table(self) -> list[list[Any]]:
        """A row for each run."""
        return [
            [run["id"], run["state"], run["steps"], duration(run["seconds"]), _values(run)]
            for run in runs(resolve("saved"))
        ]

    def curves(self, run_id: str) -> Any:
        """Losses of the validations of a run, as a table of step, name and value."""
        import pandas

        folder = self._folder(run_id)
        rows = [
            (record["step"], name, value)
            for record in (validations(folder / "metrics.jsonl") if folder else ())
            for name, value in record.items()
            if name not in ("step", "epoch", "seconds", "best") and isinstance(value, float)
        ]
        return pandas.DataFrame(rows, columns=["step", "loss", "value"])

    def pictures(self, run_id: str) -> list[str]:
        """Samples and overview of a run."""
        folder = self._folder(run_id)
        if folder is None:
            return []
        overviews = resolve("results").glob(f"*/*/{folder.name}/overview.png")
        found = [*overviews, *sorted((folder / "samples").glob("*.png"))[-6:]]
        return [str(path) for path in found]

    def _folder(self, run_id: str) -> Path | None:
        """The folder of a run; None for a name that is none, which a browser may send."""
        return next((r["path"] for r in runs(resolve("saved")) if r["id"] == run_id), None)

    def benchmark_page(self, path: str) -> str:
        """A page of :meth:`pages`; empty for another file, which a browser may ask for."""
        return _frame(Path(path)) if path in self.pages() else ""

    # -- page --------------------------------------------------------------------------------------

    def page(self) -> Any:
        """The page, as gradio blocks."""
        import gradio as gr

        cache = (_DELETED_AFTER, _DELETED_AFTER)
        with gr.Blocks(title="talkingface", delete_cache=cache, analytics_enabled=False) as blocks:
            gr.Markdown("# talkingface\nYou need the consent of the people in your videos.")
            with gr.Tab("Generate"):
                self._generate_tab(gr)
            with gr.Tab("Prepare my video"):
                self._prepare_tab(gr)
            with gr.Tab("Runs"):
                self._runs_tab(gr, blocks)
            with gr.Tab("Compare"):
                self._compare_tab(gr, blocks)
        self.blocks = blocks
        return blocks

    def _generate_tab(self, gr: Any) -> None:
        titles = list(self.weights())
        chosen = gr.Dropdown(titles, value=titles[0], label="weights")
        with gr.Row():
            with gr.Column():
                with gr.Tab("source video"):
                    video = gr.Video(show_label=False, sources=["upload"], height=300)
                with gr.Tab("or a picture"):
                    options = {"type": "filepath", "sources": ["upload"], "height": 300}
                    picture = gr.Image(show_label=False, **options)
                sound = gr.Audio(label="speech", sources=["upload", "microphone"], type="filepath")
                clips = sorted(map(str, _EXAMPLE.glob("*.mp4")))
                with gr.Row():
                    example = gr.Button("example", elem_id="example")
                    go = gr.Button("generate", variant="primary", elem_id="generate")
                    stop = gr.Button("cancel", variant="stop", elem_id="cancel")
                status = gr.Textbox(label="progress", interactive=False, elem_id="status")
            with gr.Column():
                result = gr.Video(label="result", interactive=False, height=340, elem_id="result")
                mouth = gr.Video(label="its mouth", interactive=False, height=260)
        history = gr.Gallery(
            self.history, label="earlier results", columns=4, height=260, object_fit="contain"
        )
        example.click(lambda: (clips[0], clips[-1]), None, [video, sound], api_name=False)
        inputs, outputs = [chosen, video, picture, sound], [status, result, mouth, history]
        go.click(self.generate, inputs, outputs, api_name=False)
        stop.click(self.cancel, None, status, queue=False, api_name=False)

    def _prepare_tab(self, gr: Any) -> None:
        gr.Markdown("One to five minutes of a person who speaks, see docs/preparation.md.")
        name = gr.Textbox("my_face", label="name of the dataset")
        files = gr.File(label="videos", file_count="multiple", file_types=["video"])
        go = gr.Button("prepare", variant="primary")
        text = gr.Textbox(label="output", lines=8, interactive=False)
        report = gr.HTML()
        go.click(self.prepare, [name, files], [text, report], api_name=False)

    def _runs_tab(self, gr: Any, blocks: Any) -> None:
        heads = ["run", "state", "steps", "time", "values"]
        table = gr.Dataframe(headers=heads, interactive=False, wrap=True)
        chosen = gr.Textbox(label="run (click a row)", interactive=False)
        plot = gr.LinePlot(x="step", y="value", color="loss", title="validation")
        samples = gr.Gallery(label="overview and samples", columns=2)
        gr.Timer(10).tick(self.run_table, None, table, api_name=False)
        blocks.load(self.run_table, None, table, api_name=False)

        def choose(event: Any) -> str:
            return event.row_value[0]

        choose.__annotations__["event"] = gr.SelectData  # gradio passes the event by its type

        table.select(choose, None, chosen, api_name=False)
        chosen.change(self.curves, chosen, plot, api_name=False)
        chosen.change(self.pictures, chosen, samples, api_name=False)

    def _compare_tab(self, gr: Any, blocks: Any) -> None:
        chosen = gr.Dropdown([], label="benchmark")
        frame = gr.HTML("No benchmark yet: talkingface benchmark --models=... --datasets=...")
        blocks.load(lambda: gr.Dropdown(choices=self.pages()), None, chosen, api_name=False)
        chosen.change(self.benchmark_page, chosen, frame, api_name=False)


def _generates(registry: Registry, model: str) -> bool:
    known = model in registry.names("model")  # a run may belong to a plugin
    return known and bool(registry.entry("model", model).target("pipeline"))


def _values(run: Mapping[str, Any]) -> str:
    values = {**{k: v for k, v in run["best"].items() if k != "step"}, **run["test"]}
    return ", ".join(f"{k} {v:.4g}" for k, v in list(values.items())[:5] if v is not None)


def _frame(path: Path) -> str:
    """A page within the page, without access to the studio; its pictures lie beside the file."""
    base = f'<base href="/gradio_api/file={path.parent}/">'
    text = html.escape(path.read_text("utf-8").replace("<head>", f"<head>{base}", 1), quote=True)
    style = "width:100%;height:80vh;border:1px solid #ccc"
    return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{text}"></iframe>'
