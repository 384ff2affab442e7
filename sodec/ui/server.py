"""The page's server: gradio's application behind the guard, in threads of its own."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

FIRST_PORT, PORTS = 7860, 100
SWEEP_SECONDS = 20.0
CLOSE_SECONDS = 1  # for open requests to end; pages hold theirs open for ever


@contextmanager
def running(app: Any, listening: socket.socket, sweep: Callable[[], None]) -> Iterator[threading.Thread]:
    """The thread that serves `app`, while `sweep` is called every `SWEEP_SECONDS`; both end with the block."""
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=CLOSE_SECONDS, server_header=False, ws="none"
    )
    server, stopped = uvicorn.Server(config), threading.Event()

    def sweep_again_and_again() -> None:
        while not stopped.wait(SWEEP_SECONDS):
            sweep()

    serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    threading.Thread(target=sweep_again_and_again, daemon=True).start()
    serving.start()
    try:
        while serving.is_alive() and not server.started:
            serving.join(0.01)
        yield serving
    finally:
        stopped.set()
        # Pages hold requests open, and uvicorn reports each that it breaks off with a traceback.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        server.should_exit = True
        serving.join(CLOSE_SECONDS + 4)


def listen(host: str, port: int | None) -> socket.socket:
    """A socket at `host` and `port`, or the first free port from 7860.

    Raises `OSError` where there is no such address, or the port is taken.
    """
    family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port or FIRST_PORT, type=socket.SOCK_STREAM)[0]
    for number in [port] if port else range(FIRST_PORT, FIRST_PORT + PORTS):
        try:
            return socket.create_server((address[0], number), family=family)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
    ports = port or f"{FIRST_PORT} to {FIRST_PORT + PORTS - 1}"
    raise OSError(f"can't listen on {host}, port {ports}: {reason}")


def is_local(listening: socket.socket) -> bool:
    """Whether no other machine can reach it."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def own_names(host: str, local: bool, allowed: Collection[str]) -> set[str]:
    """Names that lead here: what the user says, and, for other machines, this one's name in the local network."""
    names = {host, *allowed}
    if not local:
        machine = socket.gethostname()
        names |= {machine, f"{machine.partition('.')[0]}.local"}
    return names


def address_of(listening: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
