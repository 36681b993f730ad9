"""Answers over HTTP with what the cache says; the standard library is all that it needs."""

import json
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, CACHE_PORT = map(int, sys.argv[1:])


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.strip("/") or "nothing"
        with socket.create_connection(("127.0.0.1", CACHE_PORT)) as cache:
            cache.sendall(f"{name}\n".encode())
            price = cache.makefile().readline().strip()
        body = json.dumps({"name": name, "price": price}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", PORT), Answer).serve_forever()
