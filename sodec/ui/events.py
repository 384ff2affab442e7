"""What happens when something on the page is dropped, moved or pressed: values in, values that change out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import escape

from ..errors import SodecError
from ..pages.render import data_uri
from .result import result
from .sessions import Session, Sessions
from .trial import Limits, Trial, Wish, match, open_upload, run_trial

if TYPE_CHECKING:
    from ..codec import Codec

NONE = "none"  # no rival


class Events:
    """The events of all pages of a server, each told from the others by its session.

    Attributes
    ----------
    first
        What every page starts with.
    """

    def __init__(self, codec: Codec, limits: Limits, photo: Path, wish: Wish) -> None:
        self.codec, self.limits = codec, limits
        upload = open_upload(photo.name, photo.read_bytes(), limits)
        run_trial(codec, upload, wish)  # the first run pays for set-up
        self.first = run_trial(codec, upload, wish)
        self.sessions = Sessions(self.first)

    def receive(self, dropped: str, request: gr.Request) -> None:
        """Takes the file off the disk at once, before any queue."""
        session = self._session(request)
        file = Path(dropped)
        try:
            data = file.read_bytes()
            file.unlink()
            session.upload, session.trial = open_upload(file.name, data, self.limits), None
        except FileNotFoundError:  # two pages dropped the same file at the same moment
            session.problem = f"{file.name} got lost on its way; drop it again"
        except SodecError as error:
            session.problem = str(error) if file.name in str(error) else f"{file.name}: {error}"

    def code(self, target: str, quality: float, count: float, request: gr.Request) -> tuple[Any, Any]:
        """What is wrong, or nothing; and the picture with its figures."""
        session = self._session(request)
        said, session.problem = session.problem, ""
        if not said:
            wish = Wish(quality) if target == "quality" else Wish(max_bytes=int(count))
            try:
                session.trial = run_trial(self.codec, session.upload, wish)
                return gr.update(visible=False), result(session.trial, None)
            except SodecError as error:
                said = str(error)[:1].upper() + str(error)[1:]
        return gr.update(value=f'<p role="alert">{escape(said)}.</p>', visible=True), gr.skip()

    def compare(self, rival: str, request: gr.Request) -> Any:
        """The same with a rival beside it, which takes longer than the codec."""
        trial = self._session(request).trial
        if trial is None:
            return gr.skip()
        return result(trial, None if rival == NONE else match(trial, rival))

    def stream_file(self, request: gr.Request) -> dict[str, str] | None:
        """The stream, to be saved by the browser."""
        trial = self._session(request).trial
        return None if trial is None else _file(trial, ".sodec", trial.stream, "application/octet-stream")

    def picture_file(self, request: gr.Request) -> dict[str, str] | None:
        """The decoded picture, to be saved by the browser."""
        trial = self._session(request).trial
        return None if trial is None else _file(trial, ".png", trial.png(), "image/png")

    def leave(self, request: gr.Request) -> None:
        """The page is closed."""
        self.sessions.drop(str(request.session_hash))

    def _session(self, request: gr.Request) -> Session:
        return self.sessions.of(str(request.session_hash))


def _file(trial: Trial, suffix: str, data: bytes, kind: str) -> dict[str, str]:
    return {"name": Path(trial.upload.name).stem + suffix, "uri": data_uri(data, kind)}
