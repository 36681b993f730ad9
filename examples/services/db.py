"""A stand-in for a database: answers each line with what it knows of it."""

import socketserver
import sys

PRICES = {"apple": "3", "pear": "4"}


class Answer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            name = line.decode().strip()
            print(f"asked for {name}")
            self.wfile.write(f"{PRICES.get(name, 'unknown')}\n".encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


with Server(("127.0.0.1", int(sys.argv[1])), Answer) as server:
    server.serve_forever()
