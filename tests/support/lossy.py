"""Ways to a server: one that can lose replies and be closed, and one on which nobody ever answers."""
import contextlib
import socket
import threading


class Lossy:
    """Bytes pass both ways, until a request is to stay unanswered."""

    def __init__(self, to_port, host="127.0.0.1"):
        self.to, self.pattern, self.lost, self.port = (host, to_port), None, 0, 0
        self.lock, self.ends, self.listener = threading.Lock(), set(), None
        self.open()

    def open(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def lose_reply_to(self, pattern):
        """The next request with these bytes reaches the server; the connection closes when the reply comes."""
        self.pattern = pattern

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(self.to)
            except OSError:
                return
            doomed = threading.Event()
            with self.lock:
                self.ends |= {client, server}
            threading.Thread(target=self._pump, args=(client, server, doomed, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, doomed, False), daemon=True).start()

    def _pump(self, source, to, doomed, upwards):
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                if upwards and self._is_it(piece):
                    doomed.set()
                elif not upwards and doomed.is_set():
                    break
                to.sendall(piece)
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_it(self, piece):
        with self.lock:
            found = self.pattern is not None and self.pattern in piece
            if found:
                self.pattern, self.lost = None, self.lost + 1
            return found

    def close(self):
        """With all that are connected; until open()."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            ends, self.ends = self.ends, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class BlackHole:
    """Connections are made and never answered."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.listener.getsockname()[1]

    def close(self):
        self.listener.close()
