"""`sodec ui` attacked with requests: by foreign pages, programs without a page, and visitors that send too much.

pytest tests/test_ui_server.py
"""

import io
import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from tiny import codec, photo

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'sodec[ui]'")

from visitor import Visitor

from sodec.ui import events as events_module
from sodec.ui import guard, uploads
from sodec.ui.app import served
from sodec.ui.server import is_local, listen, own_names
from sodec.ui.trial import Limits

LIMITS = Limits(bytes=200_000, pixels=100_000)


def png(width=64, height=48, seed=0):
    buffer = io.BytesIO()
    Image.fromarray(photo(width, height, seed)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    first = tmp_path_factory.mktemp("first") / "first.png"
    first.write_bytes(png(96, 64))
    with served(codec(), host="127.0.0.1", port=None, limits=LIMITS, photo=first, allowed_hosts=["photos.test"]) as one:
        yield one


@pytest.fixture
def visitor(page):
    return Visitor(page.address)


@pytest.fixture
def numbers(visitor):
    return visitor.numbers()


def shown(outputs):
    """All outputs of an event, as text."""
    return json.dumps(outputs)


# -- what a page does


def test_a_page_s_own_requests_are_answered(visitor, numbers):
    assert visitor.ask("GET", "/")[0] == 200
    assert "first.png" in shown(visitor.event(numbers["open"], "jpeg"))
    status, _, body = visitor.upload(png(), "mine.png")
    assert status == 200
    visitor.event(numbers["receive"], *json.loads(body))
    assert "mine.png" in shown(visitor.event(numbers["code"], "quality", 30, 5000))
    saved = visitor.event(numbers["stream_file"])[0]
    assert saved["name"] == "mine.sodec"


# -- from where


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:7860", "127.0.0.1.evil.test", "192.168.1.5", "", "a@b", "[::"]
)
def test_a_foreign_host_is_refused(page, host):
    """DNS rebinding: a page's name resolves to 127.0.0.1 after the page was loaded."""
    attacker = Visitor(page.address, host or " ")
    for answer in (attacker.ask("GET", "/"), attacker.ask("GET", "/config"), attacker.upload(png()),
                   attacker.join(1, [])):  # fmt: skip
        assert answer[0] in (400, 403)
    assert page.events.uploads.held == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:1234", "[::1]:7860", "photos.test", "127.8.8.8"])
def test_its_own_names_and_those_allowed_are_not_foreign(page, host):
    mine = Visitor(page.address, host)
    assert mine.ask("GET", "/")[0] == 200
    assert mine.upload(png())[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://127.0.0.1:1", "file://", "https://", None])
def test_a_foreign_page_can_t_upload_or_send_events(page, numbers, origin):
    attacker = Visitor(page.address, origin=origin)
    held = page.events.uploads.held
    assert attacker.upload(png())[0] == 403
    assert attacker.join(numbers["code"], ["quality", 30, 5000])[0] == 403
    assert attacker.ask("OPTIONS", "/gradio_api/upload", None, {"Access-Control-Request-Method": "POST"})[0] in (
        403,
        404,
    )
    assert page.events.uploads.held == held


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.test"}, {"Sec-Fetch-Site": "cross-site"},
                                     {"Sec-Fetch-Site": "same-site"}])  # fmt: skip
def test_a_foreign_page_can_t_read(visitor, headers):
    status, answered, _ = visitor.ask("GET", "/config", None, headers)
    assert status == 403
    assert "access-control-allow-origin" not in answered
    assert visitor.ask("GET", "/", None, {"Sec-Fetch-Site": "cross-site"})[0] == 200  # a link may lead to the page


def test_open_to_other_machines_its_addresses_and_own_name_are_taken_and_no_other_name():
    with listen("0.0.0.0", None) as listening:
        local, port = is_local(listening), listening.getsockname()[1]
    assert not local
    names = own_names("0.0.0.0", local, [])
    door = guard.Guard(None, names=names, local=local, events={}, uploads=None, unread=len)

    def enters(host):
        try:
            door._check_host(guard.Headers({"host": host}))
        except guard.RefusedError:
            return False
        return True

    assert enters(f"192.168.1.5:{port}")
    assert enters(f"[fe80::1]:{port}")
    assert enters(f"{socket.gethostname().upper()}:{port}")
    assert not enters(f"evil.test:{port}")


def test_a_port_that_is_taken_is_named(page):
    port = int(page.address.rstrip("/").rpartition(":")[2])
    with pytest.raises(OSError, match=f"can't listen on 127.0.0.1, port {port}: Address already in use"):
        listen("127.0.0.1", port)
    with listen("127.0.0.1", None) as other:
        assert other.getsockname()[1] > port


# -- past the page


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/run/predict"), ("POST", "/gradio_api/run/code"), ("POST", "/gradio_api/api/code"),
        ("POST", "/gradio_api/call/code"), ("POST", "/gradio_api/call/v2/code"), ("GET", "/gradio_api/call/code/1"),
        ("POST", "/gradio_api/component_server"), ("POST", "/gradio_api/stream/1"), ("POST", "/gradio_api/cancel"),
        ("POST", "/gradio_api/process_recording"), ("POST", "/gradio_api/vibe-edit"), ("POST", "/login"),
        ("GET", "/gradio_api/info"), ("GET", "/gradio_api/openapi.json"), ("GET", "/docs"), ("GET", "/monitoring"),
        ("GET", "/gradio_api/file=/etc/hostname"), ("GET", "/gradio_api/file=http://127.0.0.1:9/x"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1:9/x"), ("GET", "/gradio_api/runs"), ("PUT", "/"),
        ("GET", "/assets/../../../../etc/hostname"), ("GET", "/static/%2e%2e/%2e%2e/routes.py"),
        ("GET", "/gradio_api/heartbeat/None"), ("POST", "//gradio_api/run/predict"), ("POST", "/gradio_api/upload/"),
        ("POST", "/gradio_api//run/predict"), ("POST", "/gradio_api/run%2Fpredict"),
    ],
)  # fmt: skip
def test_nothing_but_the_page_s_addresses_is_there(visitor, numbers, method, path):
    body = json.dumps({"data": ["quality", 30, 5000], "fn_index": numbers["code"], "session_hash": "abcdefghij"})
    assert visitor.ask(method, path, body.encode(), {"Content-Type": "application/json"})[0] == 404


@pytest.mark.parametrize("session", ["left out", None, "", "None", "a b c d e f", 7, ["abcdefghij"], "x" * 65])
def test_an_event_without_a_session_of_its_own_is_refused(visitor, page, numbers, session):
    before = len(page.events.sessions)
    assert visitor.join(numbers["code"], ["quality", 30, 5000], session_hash=session)[0] == 400
    assert len(page.events.sessions) == before


def test_one_client_never_gets_another_s_stream(page, numbers):
    first, second = Visitor(page.address), Visitor(page.address)
    first.event(numbers["open"], "jpeg")
    token = json.loads(first.upload(png(seed=5), "private.png")[2])[0]
    first.event(numbers["receive"], token)
    first.event(numbers["code"], "quality", 30, 5000)
    assert second.event(numbers["stream_file"]) == [None]
    second.event(numbers["receive"], token)  # taken once, and by whoever knows it
    assert "private.png" not in shown(second.event(numbers["code"], "quality", 30, 5000))


def test_a_url_in_an_event_is_neither_fetched_nor_looked_up(visitor, numbers, monkeypatch):
    asked, real = [], socket.getaddrinfo

    def recorded(host, *arguments, **options):
        asked.append(host)
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", recorded)
    url = "http://elsewhere.invalid/photo.png"
    file = {"path": url, "url": url, "orig_name": "photo.png", "meta": {"_type": "gradio.FileData"}}
    for value in (file, [file], {"a": file}, json.dumps(file), url):
        for name, values in (("receive", [value]), ("code", [value, 30, 5000]), ("open", [value])):
            visitor.join(numbers[name], values, event_data=file)
    visitor.ask("GET", f"/gradio_api/file={url}")
    visitor.ask("GET", f"/gradio_api/proxy={url}")
    visitor.answers()
    assert "elsewhere.invalid" not in asked
    assert visitor.join(numbers["receive"], [file])[0] == 400


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"[" * 4000, b"\xff\xfe", b" " * 100_000, b'{"fn_index": 1e9999}',
        b'{"fn_index": true, "session_hash": "abcdefghij", "data": []}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_event_is_refused(visitor, body):
    answer = visitor.ask("POST", "/gradio_api/queue/join", body, {"Content-Type": "application/json"})
    assert answer[0] in (400, 404, 413)


@pytest.mark.parametrize(
    "values",
    [
        [], ["quality"], ["quality", 30, 5000, 1], ["quality", 30, [5000]], ["quality", {}, 1000], ["x", 30, 5000],
        ["quality", float("nan"), 5000], ["bytes", 1, float("inf")], [["quality"], 30, 5000], ["bytes", 1, 10**30],
        ["bytes", 1, -5], ["quality", 100.5, 5000], ["quality", "30", 5000], ["bytes", 30, None],
        ["quality", True, 5000],
    ],
)  # fmt: skip
def test_values_that_no_page_sends_are_refused(visitor, numbers, values):
    assert visitor.join(numbers["code"], values)[0] == 400


# -- without measure


def test_an_upload_without_an_event_is_dropped_and_never_on_the_disk(visitor, page, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(page.events.uploads, "_clock", lambda: now)
    before = page.events.uploads.held
    assert visitor.upload(png())[0] == 200
    assert page.events.uploads.held > before
    assert not [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file()]
    now += uploads.SECONDS + 1
    page.events.expire()  # as the server does by itself
    assert page.events.uploads.held == 0


def test_uploads_have_a_limit_in_all(visitor, page):
    page.events.uploads._waiting.clear()
    statuses = [visitor.upload(bytes(LIMITS.bytes - 100))[0] for _ in range(8)]
    assert statuses[: uploads.FILES - 1] == [200] * (uploads.FILES - 1)
    assert statuses[-4:] == [503] * 4
    assert page.events.uploads.held <= page.events.uploads.most
    page.events.uploads._waiting.clear()
    statuses = [visitor.upload(b"")[0] for _ in range(300)]
    assert 503 in statuses, "empty files are limited too"
    page.events.uploads._waiting.clear()


def test_uploads_on_their_way_count_and_are_forgotten_when_broken_off(visitor, page):
    page.events.uploads._waiting.clear()
    slow = []
    for _ in range(uploads.FILES):
        connection = socket.create_connection(visitor.place)
        connection.sendall(f"POST /gradio_api/upload HTTP/1.1\r\nHost: {visitor.host}\r\nOrigin: {visitor.origin}\r\n"
                           f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {LIMITS.bytes}\r\n\r\n--x"
                           .encode())  # fmt: skip
        slow.append(connection)
    wait(lambda: page.events.uploads.held >= uploads.FILES * LIMITS.bytes)
    assert visitor.upload(bytes(LIMITS.bytes - 100))[0] == 503
    for connection in slow:
        connection.close()
    wait(lambda: page.events.uploads.held == 0)
    assert visitor.upload(png())[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Length": "999999999999"}, 413), ({"Content-Length": "-5"}, 400), ({"Content-Length": "x"}, 400),
        ({"Transfer-Encoding": "chunked"}, 411), ({}, 411),
        ({"Content-Length": "3", "Content-Type": "text/plain"}, 400),
    ],
)  # fmt: skip
def test_an_upload_must_say_a_length_that_is_allowed(visitor, headers, status):
    with socket.create_connection(visitor.place, timeout=30) as connection:
        lines = {"Host": visitor.host, "Origin": visitor.origin, "Content-Type": "multipart/form-data; boundary=x"}
        text = "".join(f"{name}: {value}\r\n" for name, value in (lines | headers).items())
        connection.sendall(f"POST /gradio_api/upload HTTP/1.1\r\n{text}\r\n--x".encode())
        assert int(connection.recv(100).split()[1]) == status


def test_several_files_or_fields_in_one_upload_are_refused(visitor, page):
    page.events.uploads._waiting.clear()
    part = '--x\r\nContent-Disposition: form-data; name="files"{}\r\n\r\nabc\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    named = part.format('; filename="a"')
    for body in (named * 2, part.format("") * 50 + named, part.format(""), "", named.replace('name="files"; ', "")):
        assert visitor.ask("POST", "/gradio_api/upload", f"{body}--x--\r\n".encode(), kind)[0] == 400
    assert page.events.uploads.held == 0


def test_a_name_that_is_a_path_is_a_name(visitor, page):
    token = json.loads(visitor.upload(png(), "../../etc/x.png")[2])[0]
    assert page.events.uploads.take(token).name == "x.png"


def test_pictures_at_once_are_opened_and_coded_one_at_a_time(page, numbers, monkeypatch):
    at_once = {"open_upload": [], "run_trial": []}
    for name, seen in at_once.items():
        running, lock, real = set(), threading.Lock(), getattr(events_module, name)

        def counted(*arguments, running=running, lock=lock, real=real, seen=seen):
            with lock:
                running.add(threading.get_ident())
                seen.append(len(running))
            try:
                time.sleep(0.02)
                return real(*arguments)
            finally:
                with lock:
                    running.discard(threading.get_ident())

        monkeypatch.setattr(events_module, name, counted)

    def visit(seed):
        one = Visitor(page.address)
        with gate:
            token = json.loads(one.upload(png(seed=seed), f"{seed}.png")[2])[0]
            one.event(numbers["receive"], token)
        outputs[seed] = shown(one.event(numbers["code"], "quality", 30, 5000))

    outputs, gate = {}, threading.Semaphore(3)  # as many uploads as may wait
    threads = [threading.Thread(target=visit, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert all(f"{seed}.png" in outputs[seed] for seed in range(8))
    assert at_once == {"open_upload": [1] * 8, "run_trial": [1] * 8}


def test_answers_that_nobody_fetches_have_a_limit(visitor, numbers):
    statuses = [visitor.join(numbers["code"], ["quality", 30, 5000])[0] for _ in range(2 * guard.UNREAD_EVENTS)]
    assert statuses == [200] * guard.UNREAD_EVENTS + [429] * guard.UNREAD_EVENTS
    assert len(visitor.answers()) == guard.UNREAD_EVENTS
    assert visitor.join(numbers["code"], ["quality", 30, 5000])[0] == 200
    visitor.answers()


def test_requests_that_stay_open_have_a_limit(visitor, monkeypatch):
    monkeypatch.setattr(guard, "OPEN_REQUESTS", 0)
    assert visitor.ask("GET", "/")[0] == 503
    monkeypatch.undo()
    assert visitor.ask("GET", "/")[0] == 200


def test_a_page_whose_photo_was_dropped_says_so_and_saves_nothing(visitor, page, numbers):
    visitor.event(numbers["open"], "jpeg")
    visitor.event(numbers["receive"], *json.loads(visitor.upload(png())[2]))
    visitor.event(numbers["code"], "quality", 30, 5000)
    page.events.sessions.drop(visitor.session)
    assert visitor.event(numbers["stream_file"]) == [None]
    assert "no longer holds" in shown(visitor.event(numbers["code"], "quality", 30, 5000))
    visitor.event(numbers["receive"], *json.loads(visitor.upload(png(), "again.png")[2]))
    assert "again.png" in shown(visitor.event(numbers["code"], "quality", 30, 5000))


def test_every_answer_is_told_not_to_be_sniffed(visitor, page, numbers):
    answers = [visitor.ask("GET", path) for path in ("/", "/config", "/theme.css", "/nothing", "/favicon.ico")]
    answers += [
        visitor.upload(png()),
        visitor.join(numbers["code"], []),
        Visitor(page.address, "evil.test").ask("GET", "/"),
    ]
    assert {answer[1].get("x-content-type-options") for answer in answers} == {"nosniff"}
    assert all("default-src 'self'" in answer[1]["content-security-policy"] for answer in answers)


def test_gradio_keeps_no_history_in_the_browser(visitor):
    assert not json.loads(visitor.ask("GET", "/config")[2]).get("run_history")


def wait(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
