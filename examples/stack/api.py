"""The API: every request reads a greeting from PostgreSQL, and is counted in Redis."""

import json
import signal
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

from stores import Postgres, Redis, StoreError

port = int(sys.argv[1])
database, cache = Postgres(sys.argv[2]), Redis(int(sys.argv[3]))


class Handler(BaseHTTPRequestHandler):
    """Answers one request; a second replica answers the next one meanwhile."""

    timeout = 5

    def do_GET(self) -> None:
        try:
            greeting = database.value("select words from greetings where language = 'en'")
            answer = {"greeting": greeting, "visits": cache.increment("visits"), "port": port}
            self._send(HTTPStatus.OK, answer)
        except StoreError as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)})

    def _send(self, status: HTTPStatus, answer: dict[str, object]) -> None:
        body = json.dumps(answer).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def leave(*_: object) -> None:
    print("the API has put its tools away")
    sys.exit()


signal.signal(signal.SIGTERM, leave)
HTTPServer(("127.0.0.1", port), Handler).serve_forever()
