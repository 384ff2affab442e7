"""What happens when something on the page is dropped, moved or pressed: values in, values that change out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import escape

from ..errors import SodecError
from ..pages.render import data_uri
from .result import result
from .sessions import DROPPED, Session, Sessions
from .trial import Limits, Trial, Wish, match, open_upload, run_trial
from .uploads import Uploads

if TYPE_CHECKING:
    from ..codec import Codec

NONE = "none"  # no rival


class Events:
    """The events of all pages of a server; each page has a session of its own.

    Attributes
    ----------
    first
        What every page starts with.
    uploads
        Files that no event has taken yet.
    """

    def __init__(self, codec: Codec, limits: Limits, photo: Path, wish: Wish) -> None:
        self.codec, self.limits = codec, limits
        upload = open_upload(photo.name, photo.read_bytes(), Limits())  # whatever visitors may send
        run_trial(codec, upload, wish)  # the first run pays for set-up
        self.first = run_trial(codec, upload, wish)
        self.sessions = Sessions(self.first)
        self.uploads = Uploads(limits.bytes)

    def open(self, rival: str, request: gr.Request) -> Any:
        """The page is loaded: it shows the first photo, with a rival beside it."""
        self.sessions.open(_key(request))
        return self.compare(rival, request)

    def receive(self, token: str | None, request: gr.Request) -> None:
        """Opens what was dropped."""
        session = self.sessions.of(_key(request), hold=True)
        uploaded = self.uploads.take(token or "")
        if uploaded is None:
            session.problem = "The file waited too long for its page; drop it again"
            return
        name, data = uploaded
        session.problem = ""
        try:
            session.upload, session.trial = open_upload(name, data, self.limits), None
        except SodecError as error:
            session.problem = str(error) if name in str(error) else f"{name}: {error}"

    def code(self, target: str, quality: float, count: float, request: gr.Request) -> tuple[Any, Any]:
        """What is wrong, or nothing; and the picture with its figures."""
        session = self._session(request)
        problem, session.problem = session.problem, ""
        if not problem and session.upload is None:
            problem = DROPPED
        if not problem and session.upload is not None:
            wish = Wish(quality) if target == "quality" else Wish(max_bytes=int(count))
            try:
                session.trial = run_trial(self.codec, session.upload, wish, self.limits.pixels)
                return gr.update(visible=False), result(session.trial, None)
            except SodecError as error:
                problem = str(error)[:1].upper() + str(error)[1:]
        return gr.update(value=f'<p role="alert">{escape(problem)}.</p>', visible=True), gr.skip()

    def compare(self, rival: str, request: gr.Request) -> Any:
        """The same with a rival beside it, which takes longer than the codec."""
        trial = self._session(request).trial
        if trial is None:
            return gr.skip()
        return result(trial, None if rival == NONE else match(trial, rival))

    def stream_file(self, request: gr.Request) -> dict[str, str] | None:
        """The stream, to be saved by the browser."""
        trial = self._saved(request)
        return None if trial is None else _file(trial, ".sodec", trial.stream, "application/octet-stream")

    def picture_file(self, request: gr.Request) -> dict[str, str] | None:
        """The decoded picture, to be saved by the browser."""
        trial = self._saved(request)
        return None if trial is None else _file(trial, ".png", trial.png(), "image/png")

    def leave(self, request: gr.Request) -> None:
        """The page is closed."""
        self.sessions.drop(_key(request))

    def expire(self) -> None:
        """Drops what nobody has used for too long."""
        self.sessions.expire()
        self.uploads.expire()

    def _saved(self, request: gr.Request) -> Trial | None:
        session = self._session(request)
        if session.upload is None:
            gr.Warning(f"{DROPPED}.")
        return session.trial

    def _session(self, request: gr.Request) -> Session:
        return self.sessions.of(_key(request))


def _key(request: gr.Request) -> str:
    """A request without a session of its own would share one with all others like it."""
    if not request.session_hash:
        raise gr.Error("the event has no session", print_exception=False)
    return str(request.session_hash)


def _file(trial: Trial, suffix: str, data: bytes, kind: str) -> dict[str, str]:
    return {"name": Path(trial.upload.name).stem + suffix, "uri": data_uri(data, kind)}
