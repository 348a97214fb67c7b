"""One port before several: each connection goes to the next of them that accepts it."""
import contextlib
import itertools
import socket
import threading


class Balancer:
    def __init__(self):
        self.ports, self.turn, self.lock = [], itertools.count(), threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, *ports):
        with self.lock:
            self.ports = list(ports)

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _reach(self):
        with self.lock:
            ports, first = list(self.ports), next(self.turn)
        for i in range(len(ports)):
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", ports[(first + i) % len(ports)]))
        return None

    def _serve(self, client):
        server = self._reach()
        if not server:
            client.close()
            return
        there = threading.Thread(target=self._pump, args=(client, server), daemon=True)
        there.start()
        self._pump(server, client)
        there.join()
        client.close()
        server.close()

    @staticmethod
    def _pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (sink, source):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_WR if end is sink else socket.SHUT_RD)

    def stop(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
