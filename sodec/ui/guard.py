"""What reaches gradio of what reaches the server: the page's own requests, from the page's own address.

gradio answers some eighty addresses: functions called past the queue, files read by path, pages fetched from
elsewhere for whoever asks. The page needs a dozen of them. Those pass, if a browser that shows this page can have
sent them; of events only plain values pass, so that nothing in them can name a file or an address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from .uploads import Uploaded, Uploads, UploadsFullError

# A page of this server reaches nothing but this server. gradio's templates are compiled in the browser, and its styles
# are inline.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; frame-ancestors 'self'"
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
]

# The viewer's page, if it is served, states its policy itself. Isolated from other origins it may use threads.
VIEWER = "/viewer"
VIEWER_HEADERS = [
    (b"content-security-policy", b"frame-ancestors 'self'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
    *HEADERS[1:],
]

API = "/gradio_api"
UPLOAD, PROGRESS = f"{API}/upload", f"{API}/upload_progress"
JOIN, ANSWERS = f"{API}/queue/join", f"{API}/queue/data"
CLOSES = b'data: {"msg":"close_stream"'
POLL_SECONDS = 0.01
DONE = 'data: {"msg": "done"}\n\n'  # the page asks how an upload gets on, and doesn't show it
SESSION = r"[A-Za-z0-9_-]{6,64}"  # gradio's pages draw ten or eleven letters and digits
READ = re.compile(
    rf"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static)/[^\\]+|{API}/heartbeat/{SESSION}"
)

OPEN_REQUESTS = 200  # at once; a page holds two or three
EVENT_BYTES = 4096  # of an event
EVENT_SECONDS = 10  # for an event to arrive
UNREAD_EVENTS = 8  # of a page: waiting, running, or answered and not fetched
MULTIPART_BYTES = 8192  # of an upload beside its file
SLOWEST = 50_000  # bytes a second of an upload, after the first minute


Events = Mapping[int, Sequence[Callable[[Any], bool]]]


class RefusedError(Exception):
    """Why a request is not answered."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Guard:
    """ASGI application before the page's.

    Parameters
    ----------
    app
        The page's application.
    names
        Names by which browsers may reach this server, beside its addresses and localhost.
    local
        Whether it listens for this machine alone: then addresses of other machines are not its own.
    events
        What each event that a page may send has as values: whether one is allowed, by gradio's number of the event.
    uploads
        Takes what is dropped.
    unread
        Number of a session's events whose answers the page has not fetched.
    viewer
        Whether the viewer's page is served.
    """

    def __init__(
        self, app: Any, *, names: Collection[str], local: bool, events: Events, uploads: Uploads,
        unread: Callable[[str], int], viewer: bool = False,
    ) -> None:  # fmt: skip
        self.viewer = viewer
        self.app, self.local, self.events, self.uploads, self.unread = app, local, events, uploads, unread
        self.names = {"localhost", *(name.lower() for name in names)}
        self.open = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes on, answers or refuses one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # websockets: the page has none
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = VIEWER_HEADERS if scope["path"].startswith(f"{VIEWER}/") else HEADERS
                message["headers"] = [*message["headers"], *own]
            await send(message)

        self.open += 1
        try:
            await self._answer(scope, receive, send_with_headers)
        except RefusedError as refused:
            answer = PlainTextResponse(f"{refused}\n", refused.status, {"Connection": "close"})
            await answer(scope, receive, send_with_headers)
        except ClientDisconnect:  # in the middle of an upload: nobody is left to answer
            pass
        finally:
            self.open -= 1

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if self.open > OPEN_REQUESTS:
            raise RefusedError(503, f"{OPEN_REQUESTS} requests are open, and no more are taken")
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        self._check_host(headers)
        self._check_origin(headers, method, path)
        if method == "POST" and path == UPLOAD:
            answer: Response = await self._uploaded(Request(scope, receive))
            await answer(scope, receive, send)
        elif method == "POST" and path == JOIN:
            body = await _within(EVENT_SECONDS, _body(receive, EVENT_BYTES))
            await self.app(*_with_body(scope, receive, self._checked_event(body)), send)
        elif method == "GET" and path == ANSWERS:
            await self._stream_answers(scope, receive, send)
        elif method == "GET" and path == PROGRESS:
            await Response(DONE, media_type="text/event-stream")(scope, receive, send)
        elif (method == "GET" or (method, path) == ("HEAD", "/")) and self._is_readable(path):
            await self.app(scope, receive, send)
        else:
            raise RefusedError(404, f"{method} {path} is nothing that the page asks for")

    async def _stream_answers(self, scope: Any, receive: Any, send: Any) -> None:
        """The answers to a page's events, in one response for as long as the page is open.

        gradio ends the response after each event and says so. A page that sends its next event before it has read
        that believes the response is still open, and never fetches the answer.
        """
        session = _check_session(Request(scope).query_params.get("session_hash"))
        started = gone = False

        async def send_on(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                if not started:
                    await send(message)
                started = True
            elif message.get("body") and not message["body"].startswith(CLOSES):
                await send({**message, "more_body": True})

        async def receive_on() -> Any:
            nonlocal gone
            message = await receive()
            gone = gone or message["type"] == "http.disconnect"
            return message

        while not gone:
            if self.unread(session):
                await self.app(scope, receive_on, send_on)
            else:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(receive_on(), POLL_SECONDS)

    def _is_readable(self, path: str) -> bool:
        """Whether the page, or the viewer's, asks for this path."""
        known = READ.fullmatch(path) or (self.viewer and path.startswith(f"{VIEWER}/") and "\\" not in path)
        return bool(known) and ".." not in path

    # -- from where

    def _check_host(self, headers: Headers) -> None:
        """A page elsewhere can have its own name lead to this machine; the browser then says that name."""
        host = headers.get("host", "")
        name = _hostname(f"//{host}")
        try:
            own = ipaddress.ip_address(name).is_loopback or not self.local
        except ValueError:  # no address
            own = name in self.names
        if not own:
            raise RefusedError(403, f"this server is not reached by the name {host!r} (sodec ui --allow-host NAME)")

    @staticmethod
    def _check_origin(headers: Headers, method: str, path: str) -> None:
        """A browser says which page sends a request that changes something, and mostly with others too."""
        origin = headers.get("origin")
        if origin is None and method not in ("GET", "HEAD"):
            raise RefusedError(403, "the request has no Origin: only the page itself may send it")
        if origin is not None:
            scheme, _, place = origin.lower().partition("://")
            if scheme not in ("http", "https") or place != headers["host"].lower():
                raise RefusedError(403, f"a page of {origin} may not use this server")
        # The page itself can be opened by a link from anywhere.
        if path != "/" and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise RefusedError(403, "a page of another address may not use this server")

    # -- what

    def _checked_event(self, body: bytes) -> bytes:
        """An event with what the page sends of it, and nothing more."""
        try:
            event = json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise RefusedError(400, "an event is JSON") from None
        if not isinstance(event, dict):
            raise RefusedError(400, "an event is a JSON object")
        number, values, trigger = event.get("fn_index"), event.get("data"), event.get("trigger_id")
        session = _check_session(event.get("session_hash"))
        if type(number) is not int or number not in self.events:
            raise RefusedError(404, f"the page has no event {number!r}")
        if type(values) is not list or len(values) != len(self.events[number]):
            raise RefusedError(400, f"event {number} has {len(self.events[number])} values")
        for place, (value, allowed) in enumerate(zip(values, self.events[number], strict=True)):
            if not allowed(value):
                raise RefusedError(400, f"value {place} of event {number} is none that the page sends")
        if trigger is not None and type(trigger) is not int:
            raise RefusedError(400, "trigger_id is a number")
        if self.unread(session) >= UNREAD_EVENTS:
            raise RefusedError(429, f"{UNREAD_EVENTS} events of this page are not done, or their answers not fetched")
        checked = {"fn_index": number, "data": values, "trigger_id": trigger, "session_hash": session}
        return json.dumps(checked).encode()

    async def _uploaded(self, request: Request) -> Response:
        """Takes one file into memory; the answer is the token that the page's event then names."""
        length = request.headers.get("content-length", "")
        if not length.isascii() or not length.isdigit():
            raise RefusedError(411, "an upload says its length")
        if int(length) > self.uploads.file_bytes + MULTIPART_BYTES:
            raise RefusedError(413, f"this page takes {self.uploads.file_bytes:,} bytes at most")
        try:
            with self.uploads.room_for(int(length)):
                upload = await _within(60 + int(length) / SLOWEST, _parsed(request))
                if len(upload.data) > self.uploads.file_bytes:
                    raise RefusedError(413, f"this page takes {self.uploads.file_bytes:,} bytes at most")
        except UploadsFullError:
            raise RefusedError(503, "too many uploads wait; try again in a minute") from None
        return JSONResponse([self.uploads.add(upload)])


class _InMemory(MultiPartParser):
    """Keeps a file of any size off the disk; its size is checked before."""

    spool_max_size = 1 << 40


async def _parsed(request: Request) -> Uploaded:
    try:
        form = await _InMemory(request.headers, request.stream(), max_files=1, max_fields=0).parse()
    except (MultiPartException, KeyError) as error:
        raise RefusedError(400, f"an upload is multipart/form-data with one file ({error})") from None
    files = [value for _, value in form.multi_items() if not isinstance(value, str)]
    if len(files) != 1:
        raise RefusedError(400, "an upload is one file")
    return Uploaded(re.split(r"[/\\]", files[0].filename or "")[-1] or "photo", await files[0].read())


def _hostname(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _check_session(value: Any) -> str:
    """A session without a name of its own would be shared by all that have none."""
    if not isinstance(value, str) or not re.fullmatch(SESSION, value):
        raise RefusedError(400, "session_hash is a page's own: 6 to 64 letters and digits")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


async def _within(seconds: float, awaited: Any) -> Any:
    try:
        return await asyncio.wait_for(awaited, seconds)
    except asyncio.TimeoutError:
        raise RefusedError(408, f"the request did not arrive within {seconds:.0f} seconds") from None


async def _body(receive: Any, most: int) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise RefusedError(400, "the request was broken off")
        body += message.get("body", b"")
        if len(body) > most:
            raise RefusedError(413, f"an event has {most:,} bytes at most")
        if not message.get("more_body"):
            return body


def _with_body(scope: Any, receive: Any, body: bytes) -> tuple[Any, Any]:
    """The request with another body."""
    dropped = (b"content-length", b"transfer-encoding", b"content-type")
    headers = [(name, value) for name, value in scope["headers"] if name.lower() not in dropped]
    headers += [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    first = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_checked() -> Any:
        return first.pop() if first else await receive()

    return {**scope, "headers": headers}, receive_checked
