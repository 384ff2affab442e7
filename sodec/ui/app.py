"""The page, in gradio, and its server. No upload stays on a disk, and nothing is fetched from elsewhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import escape
from starlette.middleware import Middleware

from ..demo import PHOTO
from ..errors import SodecError
from ..pages import divider
from ..pages.render import data_uri, render
from .csp import OwnOriginOnly
from .result import result
from .sessions import Session, Sessions
from .trial import RIVALS, Limits, Wish, available_rivals, match, open_upload, run_trial

if TYPE_CHECKING:
    from ..codec import Codec

NONE = "none"
START_QUALITY, START_BYTES = 25, 5000

INTRODUCTION = """# sodec
Photographs in a few kilobytes. Drop a photo and drag the line across it. **Fine detail, text and faces are
synthesised**: the picture looks like the photo, it is no evidence of it.
"""
# Saves a data URI as a file.
SAVE = """(made) => {
  if (!made) return;
  const link = document.createElement("a");
  link.href = made.uri; link.download = made.name;
  document.body.append(link); link.click(); link.remove();
}"""


@contextmanager
def served(
    codec: Codec, *, host: str, port: int | None, limits: Limits, photo: Path = PHOTO
) -> Iterator[tuple[Any, str]]:
    """The page and its address while it is served, in threads of its own. Port None is the first free one from 7860.

    Pages begin with `photo`.

    Raises `OSError` where the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="sodec-ui-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # where uploads are for the moment until they are read
        page = build(codec, limits, photo)
        page.queue(max_size=64)
        try:
            _, address, _ = page.launch(
                server_name=host, server_port=port, max_file_size=limits.bytes, prevent_thread_lock=True, quiet=True,
                share=False, inbrowser=False, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False,
                footer_links=[], theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                css=divider.style() + render("trial.css"), head=f"<script>{divider.script()}</script>",
                app_kwargs={"middleware": [Middleware(OwnOriginOnly)]},
            )  # fmt: skip
            yield page, address
        finally:
            page.close(verbose=False)
            del os.environ["GRADIO_TEMP_DIR"]


def build(codec: Codec, limits: Limits, photo: Path) -> Any:
    """The page. What each visitor does goes through one queue, one at a time, since all share the codec."""
    upload, wish = open_upload(photo.name, photo.read_bytes(), limits), Wish(START_QUALITY)
    run_trial(codec, upload, wish)  # the first run pays for set-up
    first = run_trial(codec, upload, wish)
    sessions = Sessions(first)
    rivals = [*((RIVALS[name], name) for name in available_rivals()), (NONE, NONE)]

    def mine(request: gr.Request) -> Session:
        return sessions.of(str(request.session_hash))

    def receive(dropped: str, request: gr.Request) -> None:
        """Takes the file off the disk at once, before any queue."""
        session = mine(request)
        file = Path(dropped)
        try:
            data = file.read_bytes()
            file.unlink()
            session.upload, session.trial, session.match = open_upload(file.name, data, limits), None, None
        except FileNotFoundError:  # two pages dropped the same file at the same moment
            session.problem = f"{file.name} got lost on its way; drop it again"
        except SodecError as error:
            session.problem = str(error) if file.name in str(error) else f"{file.name}: {error}"

    def code(target: str, quality: float, count: float, request: gr.Request) -> tuple[Any, Any]:
        session = mine(request)
        said, session.problem = session.problem, ""
        if not said:
            wish = Wish(quality) if target == "quality" else Wish(max_bytes=int(count))
            try:
                session.trial, session.match = run_trial(codec, session.upload, wish), None
                return gr.update(visible=False), result(session.trial, None)
            except SodecError as error:
                said = str(error)[:1].upper() + str(error)[1:]
        return gr.update(value=_sentence(said), visible=True), gr.skip()

    def compare(name: str, request: gr.Request) -> Any:
        session = mine(request)
        if session.trial is None:
            return gr.skip()
        session.match = None if name == NONE else match(session.trial, name)
        return result(session.trial, session.match)

    def stream_file(request: gr.Request) -> Any:
        trial = mine(request).trial
        return trial and _file(trial.upload.name, ".sodec", trial.stream, "application/octet-stream")

    def picture_file(request: gr.Request) -> Any:
        trial = mine(request).trial
        return trial and _file(trial.upload.name, ".png", trial.png(), "image/png")

    with gr.Blocks(title="sodec", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                dropped = gr.File(
                    label=f"A photo, or a .sodec file: {limits.bytes / 1e6:g} MB at most", height=170,
                    elem_id="drop", type="filepath",
                )  # fmt: skip
                target = gr.Radio(["quality", "bytes"], value="quality", label="Aim for", elem_id="target")
                quality = gr.Slider(1, 100, START_QUALITY, step=0.5, label="Quality", elem_id="quality")
                count = gr.Slider(
                    500, 50_000, START_BYTES, step=100, label="Bytes at most", elem_id="bytes", visible=False
                )
                against = gr.Radio(rivals, value=rivals[0][1], label="Beside it, at equal bytes", elem_id="rival")
                with gr.Row():
                    save_stream = gr.Button("Save .sodec", elem_id="save-stream", min_width=100, size="md")
                    save_picture = gr.Button("Save PNG", elem_id="save-png", min_width=100, size="md")
            with gr.Column(scale=3, min_width=300):
                problem = gr.HTML(elem_id="problem", apply_default_css=False, visible=False)
                shown = gr.HTML(result(first, None), elem_id="result", apply_default_css=False)
        made = gr.JSON(visible=False)

        wanted, queue = [target, quality, count], {"concurrency_id": "codec", "concurrency_limit": 1}
        target.change(
            lambda chosen: (gr.update(visible=chosen == "quality"), gr.update(visible=chosen == "bytes")),
            target, [quality, count], queue=False, show_progress="hidden",
        )  # fmt: skip
        dropped.upload(receive, dropped, dropped, queue=False, show_progress="hidden").then(
            code, wanted, [problem, shown], **queue
        ).then(compare, against, shown, show_progress="hidden", **queue)
        gr.on(
            [target.change, quality.change, count.change], code, wanted, [problem, shown],
            trigger_mode="always_last", show_progress="hidden", **queue,
        ).then(compare, against, shown, show_progress="hidden", **queue)  # fmt: skip
        gr.on([against.change, page.load], compare, against, shown, show_progress="hidden", **queue)
        for button, file in ((save_stream, stream_file), (save_picture, picture_file)):
            button.click(file, None, made, show_progress="hidden").then(None, made, None, js=SAVE)

        def leave(request: gr.Request) -> None:
            sessions.drop(str(request.session_hash))

        page.unload(leave)
    page.sessions = sessions
    return page


def _sentence(problem: str) -> str:
    return f'<p role="alert">{escape(problem)}.</p>'


def _file(name: str, suffix: str, data: bytes, kind: str) -> dict[str, str]:
    return {"name": Path(name).stem + suffix, "uri": data_uri(data, kind)}
