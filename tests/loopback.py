"""A server on loopback that answers in JSON, as W&B's does."""

import http.server
import json
import threading


class JsonServer(http.server.ThreadingHTTPServer):
    """Answer POST and PUT with what `answer` gives, and keep what was asked.

    Args:
        status: to answer with; 0 never answers. It may be changed while the server runs.
    """

    daemon_threads = True

    def __init__(self, status=200):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status = status
        self.released = threading.Event()
        self.posts = []  # path, authorization, body
        self.url = f"http://127.0.0.1:{self.server_port}"

    def answer(self, path, body):
        return {}

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.released.set()
        self.shutdown()
        self.thread.join()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # a client that has given up


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self._body().decode(errors="replace")
        self.server.posts.append((self.path, self.headers.get("authorization"), body))
        if self.server.status == 0:
            self.server.released.wait()
        self._reply(self.server.answer(self.path, body))

    def do_PUT(self):
        self._body()
        self._reply({})

    def _body(self):
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _reply(self, answer):
        data = json.dumps(answer).encode()
        self.send_response(self.server.status or 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass
