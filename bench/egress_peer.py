"""The two ends of a download for bench/egress.py, each a process with a core to itself.

python -m bench.egress_peer serve                         # prints its port
python -m bench.egress_peer fetch PORT BYTES TIMES HELLO [PROXY]    # prints seconds of each
"""

import socket
import sys
import threading
import time

CHUNK = bytes(256 * 1024)


def _served(link: socket.socket) -> None:
    with link:
        said = b""
        while not said.endswith(b"\n"):
            said += link.recv(65536)
        left = int(said.rpartition(b"#")[2])
        while left > 0:
            left -= link.send(CHUNK[:left])


def serve() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            link, _ = listening.accept()
            threading.Thread(target=_served, args=(link,), daemon=True).start()


def fetch(port: int, size: int, hello: bytes, proxy: int | None) -> float:
    """The seconds from before the connection until the last byte."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", proxy or port)) as link:
        if proxy is not None:
            link.sendall(b"CONNECT site.test:443 HTTP/1.1\r\n\r\n")
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += link.recv(1000)
            assert b" 200 " in answer, answer
        # A hello, and behind it what only this server understands.
        link.sendall(hello + b"\x17\x03\x03\x00\x10#%014d\n" % size)
        buffer, left = bytearray(1024 * 1024), size
        while left:
            got = link.recv_into(buffer)
            assert got, "cut off"
            left -= got
    return time.perf_counter() - began


def main() -> None:
    if sys.argv[1] == "serve":
        serve()
    port, size, times = (int(each) for each in sys.argv[2:5])
    proxy = int(sys.argv[6]) if len(sys.argv) > 6 else None
    hello = bytes.fromhex(sys.argv[5])
    print(*[fetch(port, size, hello, proxy) for _ in range(times)])


if __name__ == "__main__":
    main()
