"""The page, in gradio, and its server. No upload stays on a disk, and nothing is fetched from elsewhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from starlette.middleware import Middleware

from ..files import PHOTO
from ..pages import divider
from ..pages.render import render
from .csp import OwnOriginOnly
from .events import NONE, Events
from .result import result
from .trial import RIVALS, Limits, Wish, available_rivals

if TYPE_CHECKING:
    from ..codec import Codec

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
) -> Iterator[tuple[Any, Events, str]]:
    """The page, its events and its address while it is served, in threads of its own.

    Port None is the first free one from 7860; pages begin with `photo`.

    Raises `OSError` where the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="sodec-ui-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # where uploads are for the moment until they are read
        events = Events(codec, limits, photo, Wish(START_QUALITY))
        page = build(events)
        page.queue(max_size=64)
        try:
            _, address, _ = page.launch(
                server_name=host, server_port=port, max_file_size=limits.bytes, prevent_thread_lock=True, quiet=True,
                share=False, inbrowser=False, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False,
                footer_links=[], theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                css=divider.style() + render("trial.css"), head=f"<script>{divider.script()}</script>",
                app_kwargs={"middleware": [Middleware(OwnOriginOnly)]},
            )  # fmt: skip
            yield page, events, address
        finally:
            page.close(verbose=False)
            del os.environ["GRADIO_TEMP_DIR"]


def build(events: Events) -> Any:
    """The page. All that takes time goes through one queue, one at a time, since visitors share the codec."""
    rivals = [*((RIVALS[name], name) for name in available_rivals()), (NONE, NONE)]
    with gr.Blocks(title="sodec", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                dropped = gr.File(
                    label=f"A photo, or a .sodec file: {events.limits.bytes / 1e6:g} MB at most", height=170,
                    elem_id="drop",
                )  # fmt: skip
                target = gr.Radio(["quality", "bytes"], value="quality", label="Aim for", elem_id="target")
                quality = gr.Slider(1, 100, START_QUALITY, step=0.5, label="Quality", elem_id="quality")
                count = gr.Slider(
                    500, 50_000, START_BYTES, step=100, label="Bytes at most", elem_id="bytes", visible=False
                )
                rival = gr.Radio(rivals, value=rivals[0][1], label="Beside it, at equal bytes", elem_id="rival")
                with gr.Row():
                    save_stream = gr.Button("Save .sodec", elem_id="save-stream", min_width=100, size="md")
                    save_picture = gr.Button("Save PNG", elem_id="save-png", min_width=100, size="md")
            with gr.Column(scale=3, min_width=300):
                problem = gr.HTML(elem_id="problem", apply_default_css=False, visible=False)
                shown = gr.HTML(result(events.first, None), elem_id="result", apply_default_css=False)
        made = gr.JSON(visible=False)

        queue = {"concurrency_id": "codec", "concurrency_limit": 1}
        coded = {"fn": events.code, "inputs": [target, quality, count], "outputs": [problem, shown], **queue}
        compared = {
            "fn": events.compare, "inputs": rival, "outputs": shown, "show_progress": "hidden", **queue
        }  # fmt: skip
        dropped.upload(events.receive, dropped, dropped, queue=False, show_progress="hidden").then(**coded).then(
            **compared
        )
        target.change(_visible, target, [quality, count], queue=False, show_progress="hidden")
        moved = [target.change, quality.change, count.change]
        gr.on(moved, **coded, trigger_mode="always_last", show_progress="hidden").then(**compared)
        gr.on([rival.change, page.load], **compared)
        for button, file in ((save_stream, events.stream_file), (save_picture, events.picture_file)):
            button.click(file, None, made, show_progress="hidden").then(None, made, None, js=SAVE)
        page.unload(events.leave)
    return page


def _visible(target: str) -> tuple[Any, Any]:
    return gr.update(visible=target == "quality"), gr.update(visible=target == "bytes")
