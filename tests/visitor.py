"""A client of `sodec ui` without a browser: it sends the requests of a page, and those of an attacker."""

from __future__ import annotations

import http.client
import json
import secrets
from urllib.parse import urlsplit


class Visitor:
    """One page of the server at `address`. `host` and `origin` are what its browser says; None says nothing."""

    def __init__(self, address: str, host: str | None = None, origin: str | None = "own") -> None:
        parts = urlsplit(address)
        self.place = (parts.hostname, parts.port)
        self.host = host or parts.netloc
        self.origin = f"http://{self.host}" if origin == "own" else origin
        self.session = secrets.token_hex(5)
        self.unanswered = 0

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None):
        """(status, headers, body) of one request."""
        connection = http.client.HTTPConnection(*self.place, timeout=60)
        sent = {"Host": self.host, **({"Origin": self.origin} if self.origin else {}), **(headers or {})}
        if method == "GET":
            sent.pop("Origin", None)
            sent.update(headers or {})
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def numbers(self) -> dict[str, int]:
        """gradio's number of each event, by the name of its function."""
        config = json.loads(self.ask("GET", "/config")[2])
        return {event["api_name"]: event["id"] for event in config["dependencies"]}

    def upload(self, data: bytes, name: str = "photo.png", **options):
        """As `ask`; the body of a good answer is a list of one token."""
        kind = "multipart/form-data; boundary=sodec"
        head = f'--sodec\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + b"\r\n--sodec--\r\n"
        return self.ask("POST", "/gradio_api/upload", body, {"Content-Type": kind, **options})

    def join(self, number: int, values: list, **changed):
        """As `ask`: sends an event."""
        event = {"fn_index": number, "data": values, "session_hash": self.session, "trigger_id": 1, **changed}
        body = json.dumps({name: value for name, value in event.items() if value != "left out"}).encode()
        answer = self.ask("POST", "/gradio_api/queue/join", body, {"Content-Type": "application/json"})
        self.unanswered += answer[0] == 200
        return answer

    def answers(self) -> list:
        """What the events that were sent have brought, each a list of outputs, or None after an error."""
        connection = http.client.HTTPConnection(*self.place, timeout=60)
        path = f"/gradio_api/queue/data?session_hash={self.session}"
        connection.request("GET", path, headers={"Host": self.host})
        brought = []
        try:
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            while self.unanswered:
                line = answer.readline()
                assert line, "the server closed the connection"
                message = json.loads(line[6:]) if line.startswith(b"data: ") else {"msg": ""}
                if message["msg"] == "process_completed":
                    brought.append(message["output"].get("data"))
                    self.unanswered -= 1
        finally:
            connection.close()
        return brought

    def event(self, number: int, *values) -> list:
        """The outputs of an event."""
        status, _, body = self.join(number, list(values))
        assert status == 200, body
        return self.answers()[-1]
