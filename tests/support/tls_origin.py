"""A legacy service over TLS for test_legacy_tls: tls_origin.py CERT KEY. Prints its port, serves until its input closes.

/ok       "ok", keep-alive            /big      64 MiB of zeros, keep-alive
/echo     the body's length           /notify   a body ended by close_notify
/cut      a body ended by FIN alone   /once     "ok", then the connection is closed without a word
"""
import socket
import ssl
import sys
import threading

MIB = bytes(1 << 20)


def answer(body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def read_request(f):
    line = f.readline()
    length = 0
    while True:
        field = f.readline()
        if field in (b"\r\n", b""):
            break
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    left = length
    while left:
        left -= len(f.read(min(left, 1 << 16)))
    return line.split(b" ")[1].decode() if line else None, length


def serve_one(s, f, path, length):
    """False: the connection is over."""
    if path == "/big":
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * len(MIB)))
        for _ in range(64):
            s.sendall(MIB)
    elif path == "/echo":
        s.sendall(answer(b"%d" % length))
    elif path in ("/notify", "/cut"):
        s.sendall(b"HTTP/1.1 200 OK\r\n\r\nto the end")
        if path == "/notify":
            s.unwrap()
        return False
    else:
        s.sendall(answer(b"ok"))
        return path != "/once"
    return True


def serve(raw, context):
    try:
        s = context.wrap_socket(raw, server_side=True)
        f = s.makefile("rb")
        while True:
            path, length = read_request(f)
            if path is None or not serve_one(s, f, path, length):
                break
        raw2 = socket.socket(fileno=s.detach())
        raw2.shutdown(socket.SHUT_RDWR)
        raw2.close()
    except OSError:
        pass


def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)

    def accept():
        while True:
            raw, _ = listener.accept()
            threading.Thread(target=serve, args=(raw, context), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


main()
