"""The page, in gradio. No upload comes to a disk, and nothing is fetched from elsewhere."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from ..files import PHOTO
from ..pages import divider
from ..pages.render import render
from . import guard
from .events import NONE, Events
from .result import result
from .server import address_of, is_local, listen, own_names, running
from .sessions import PAGES
from .trial import RIVALS, Limits, Wish, available_rivals

if TYPE_CHECKING:
    from ..codec import Codec

START_QUALITY, START_BYTES = 25, 5000
LONGEST_TOKEN = 100
QUALITIES, BYTES = (1, 100), (500, 50_000)  # ranges of the sliders
QUEUED = 64  # events that may wait, of all pages

INTRODUCTION = """# sodec
Photographs in a few kilobytes. Drop a photo and drag the line across it. **Fine detail, text and faces are
synthesised**: the picture looks like the photo, it is no evidence of it.
"""
VIEWER_LINK = """
[Open a .sodec file in this browser alone](/viewer/), which sends it nowhere.
"""
# A number that is being typed, as the 7 of 700, or a field that was emptied, is sent as the nearest one that the slider
# has. The server refuses others, and a page whose event is refused can lose the next one.
IN_RANGE = f"""(target, quality, count) => {{
  const within = (value, [low, high]) => Math.min(Math.max(Number(value) || low, low), high);
  return [target, within(quality, {list(QUALITIES)}), within(count, {list(BYTES)})];
}}"""
# Saves a data URI as a file.
SAVE = """(saved) => {
  if (!saved) return;
  const link = document.createElement("a");
  link.href = saved.uri; link.download = saved.name;
  document.body.append(link); link.click(); link.remove();
}"""


@dataclass(frozen=True)
class Served:
    """A page that is served."""

    events: Events
    address: str
    thread: threading.Thread

    def wait(self) -> None:
        """Until the server ends; Ctrl-C raises `KeyboardInterrupt` here."""
        while self.thread.is_alive():
            self.thread.join(1)


@contextmanager
def served(
    codec: Codec,
    *,
    host: str,
    port: int | None,
    limits: Limits,
    photo: Path = PHOTO,
    allowed_hosts: Collection[str] = (),
    viewer: Path | None = None,
) -> Iterator[Served]:
    """The page, while it is served in threads of its own.

    Parameters
    ----------
    host, port
        Where to listen; port None is the first free one from 7860.
    limits
        Of an upload.
    photo
        What pages begin with.
    allowed_hosts
        Names by which browsers reach this server, beside its addresses and localhost.
    viewer
        A folder that `sodec viewer` wrote, which is served too, at /viewer/.

    Raises
    ------
    OSError
        There is no such address, or the port is taken.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(listen(host, port))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sodec-ui-"))
        # gradio makes its folder of files here. Nothing comes into it: the guard takes uploads, and no event has files.
        os.environ["GRADIO_TEMP_DIR"] = folder
        stack.callback(os.environ.pop, "GRADIO_TEMP_DIR", None)
        os.environ["GRADIO_RUN_HISTORY"] = "False"  # which gradio would keep in the visitor's browser
        events = Events(codec, limits, photo, Wish(START_QUALITY))
        page = build(events, viewer is not None)
        local = is_local(listening)
        door = guard.Guard(
            _application(page, limits, viewer), names=own_names(host, local, allowed_hosts), local=local,
            events=_events_of_pages(page), uploads=events.uploads, unread=lambda session: _unread(page, session),
            viewer=viewer is not None,
        )  # fmt: skip
        stack.callback(page.close, verbose=False)
        thread = stack.enter_context(running(door, listening, events.expire))
        yield Served(events, address_of(listening), thread)


def _application(page: Any, limits: Limits, viewer: Path | None) -> Any:
    """gradio's ASGI application of the page, which holds little for those that only knock, and the viewer's files."""
    whole = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if viewer is not None:
        whole.mount(guard.VIEWER, StaticFiles(directory=viewer, html=True))
    page.queue(max_size=QUEUED)
    page.state_session_capacity = PAGES
    page._queue.pending_messages_per_session.max_size = PAGES
    return gr.mount_gradio_app(
        whole, page, "/", max_file_size=limits.bytes,
        show_error=False, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False, footer_links=[],
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=divider.style() + render("trial.css"), head=f"<script>{divider.script()}</script>",
    )  # fmt: skip


def _events_of_pages(page: Any) -> guard.Events:
    """Which values each event has that a page sends, by gradio's number of it."""
    return {
        number: [_allowed(component) for component in event.inputs]
        for number, event in page.fns.items()
        if event.fn is not None and not any(trigger == "unload" for _, trigger in event.targets)
    }


def _allowed(component: Any) -> Callable[[Any], bool]:
    """Whether a value is one that the component of the page can have. No event has others as inputs than these."""
    if isinstance(component, gr.Radio):
        return [value for _, value in component.choices].__contains__
    if isinstance(component, gr.Slider):
        low, high = component.minimum, component.maximum
        return lambda value: type(value) in (int, float) and low <= value <= high
    if isinstance(component, gr.Textbox):
        return lambda value: isinstance(value, str) and len(value) < LONGEST_TOKEN
    raise TypeError(f"values of {component} are not checked")


def _unread(page: Any, session: str) -> int:
    return len(page._queue.pending_event_ids_session.get(session, ()))


def build(events: Events, viewer: bool = False) -> Any:
    """The page. All that takes time goes through one queue, one at a time, since visitors share the codec.

    With `viewer` it has a link to the page that decodes in the browser.
    """
    rivals = [*((RIVALS[name], name) for name in available_rivals()), (NONE, NONE)]
    with gr.Blocks(title="sodec", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(INTRODUCTION + VIEWER_LINK * viewer)
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                dropped = gr.File(
                    label=f"A photo, or a .sodec file: {events.limits.bytes / 1e6:g} MB at most", height=170,
                    elem_id="drop",
                )  # fmt: skip
                target = gr.Radio(["quality", "bytes"], value="quality", label="Aim for", elem_id="target")
                quality = gr.Slider(*QUALITIES, START_QUALITY, step=0.5, label="Quality", elem_id="quality")
                count = gr.Slider(*BYTES, START_BYTES, step=100, label="Bytes at most", elem_id="bytes", visible=False)
                rival = gr.Radio(rivals, value=rivals[0][1], label="Beside it, at equal bytes", elem_id="rival")
                with gr.Row():
                    save_stream = gr.Button("Save .sodec", elem_id="save-stream", min_width=100, size="md")
                    save_picture = gr.Button("Save PNG", elem_id="save-png", min_width=100, size="md")
            with gr.Column(scale=3, min_width=300):
                problem = gr.HTML(elem_id="problem", apply_default_css=False, visible=False)
                shown = gr.HTML(result(events.first, None), elem_id="result", apply_default_css=False)
        token, saved = gr.Textbox(visible=False), gr.JSON(visible=False)

        queue: dict[str, Any] = {"concurrency_id": "codec", "concurrency_limit": 1}
        coded: dict[str, Any] = {
            "fn": events.code,
            "inputs": [target, quality, count],
            "outputs": [problem, shown],
            "js": IN_RANGE,
            **queue,
        }
        compared: dict[str, Any] = {
            "fn": events.compare, "inputs": rival, "outputs": shown, "show_progress": "hidden", **queue
        }  # fmt: skip
        # Of the file the event names only the token by which the guard took it.
        dropped.upload(None, dropped, token, js="(file) => file.path", queue=False).then(
            events.receive, token, dropped, concurrency_id="files", concurrency_limit=1, show_progress="hidden"
        ).then(**coded).then(**compared)
        target.change(_visible, target, [quality, count], show_progress="hidden")
        moved = [target.change, quality.change, count.change]
        gr.on(moved, **coded, trigger_mode="always_last", show_progress="hidden").then(**compared)
        rival.change(**compared)
        page.load(**{**compared, "fn": events.open})
        for button, file in ((save_stream, events.stream_file), (save_picture, events.picture_file)):
            button.click(file, None, saved, concurrency_id="files", concurrency_limit=1, show_progress="hidden").then(
                None, saved, None, js=SAVE
            )
        page.unload(events.leave)
    return page


def _visible(target: str) -> tuple[Any, Any]:
    return gr.update(visible=target == "quality"), gr.update(visible=target == "bytes")
