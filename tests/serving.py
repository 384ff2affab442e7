"""A server of a folder, for tests of pages in a browser."""

import functools
import http.server
import threading
from urllib.parse import urlsplit

# Always sent, since a browser may keep an answer without it, and then refuse that to a page of another server.
SHARED = {"Access-Control-Allow-Origin": "*"}


class Server:
    """Serves a folder, with headers that can be changed, and keeps the paths that were asked for."""

    def __init__(self, folder):
        self.headers, self.asked = SHARED, []
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                outer.asked.append(urlsplit(self.path).path)
                super().do_GET()

            do_POST = do_GET

            def end_headers(self):
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                super().end_headers()

        self.folder = folder
        handler = functools.partial(Handler, directory=folder)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
