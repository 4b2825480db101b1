"""A go-between in front of every seat: what the drivers talk to, whether PostgreSQL or a pooler is behind it.

Intuition. A lone client of a pooler gets the same server connection for each transaction, so nothing that breaks when
connections change hands would ever show. The go-between sees when a client is between transactions, and there, before
it passes on the client's next message, lets strangers with other settings take the server connection that the client
had. Every driver and every program is disturbed at each transaction, whatever its API.

Mechanism. One listener; two threads a connection copy bytes. Server messages are scanned by their headers for
ReadyForQuery 'I'. Requests for TLS and GSS are answered "no", so that there is one plain stream to read.

Failure. `cut` closes every connection: the watch over a behaviour that hangs uses it, and the driver then raises.
"""

import contextlib
import socket
import struct
import threading

CANCEL, TLS, GSS = 80877102, 80877103, 80877104
CHUNK_BYTES = 65536
STARTUP_BYTES_MAX = 1 << 20


class ServerScan:
    """Follows the messages of a server's byte stream by their headers, and knows whether the last is an idle 'Z'."""

    def __init__(self):
        self.skip = 0
        self.head = b""
        self.idle = False

    def feed(self, chunk):
        at = 0
        while at < len(chunk):
            if self.skip:
                step = min(self.skip, len(chunk) - at)
                self.skip -= step
                at += step
                continue
            step = min(6 - len(self.head), len(chunk) - at)
            self.head += chunk[at : at + step]
            at += step
            at -= self._head_read()

    def _head_read(self):
        """Reads the header once it is there; returns how many bytes were read beyond it."""
        if len(self.head) < 5:
            return 0
        kind, length = self.head[:1], struct.unpack("!I", self.head[1:5])[0]
        if length == 4:
            beyond = len(self.head) - 5
            self.idle, self.head = False, b""
            return beyond
        if len(self.head) < 6:
            return 0
        self.idle = kind == b"Z" and self.head[5:6] == b"I"
        self.skip, self.head = length - 5, b""
        return 0


class Connection:
    """One client with its connection to the seat."""

    def __init__(self, between, client):
        self.between = between
        self.client = client
        self.server = None
        self.scan = ServerScan()

    def run(self):
        with contextlib.suppress(OSError):
            startup = self._startup()
            if startup is not None:
                self.server = socket.create_connection(self.between.target)
                self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.server.sendall(startup)
                back = threading.Thread(target=self._back, daemon=True)
                back.start()
                self._forth()
                back.join(timeout=5)
        self.close()
        self.between.forget(self)

    def _startup(self):
        while True:
            length, code = struct.unpack("!II", self._exactly(8))
            if not 8 <= length <= STARTUP_BYTES_MAX:
                return None
            if code not in (TLS, GSS):
                return struct.pack("!II", length, code) + self._exactly(length - 8)
            self.client.sendall(b"N")

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            chunk = self.client.recv(count - len(data))
            if not chunk:
                raise OSError("the client left")
            data += chunk
        return data

    def _forth(self):
        while chunk := self.client.recv(CHUNK_BYTES):
            if self.scan.idle and chunk[:1] != b"X":
                self.scan.idle = False
                self.between.stir()
            self.server.sendall(chunk)
        self.server.shutdown(socket.SHUT_WR)

    def _back(self):
        with contextlib.suppress(OSError):
            while chunk := self.server.recv(CHUNK_BYTES):
                self.scan.feed(chunk)
                self.client.sendall(chunk)
        # Also after a reset by the server: the client must see the end.
        with contextlib.suppress(OSError):
            self.client.shutdown(socket.SHUT_WR)

    def close(self):
        for end in (self.client, self.server):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


class GoBetween:
    """Listens on a free port of loopback for one seat."""

    def __init__(self, target, stir=None):
        self.target = target
        self._stir = stir
        self._lock = threading.Lock()
        self._open = set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with contextlib.suppress(OSError):
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = Connection(self, client)
                with self._lock:
                    self._open.add(connection)
                threading.Thread(target=connection.run, daemon=True).start()

    def stir(self):
        if self._stir is not None:
            self._stir()

    def forget(self, connection):
        with self._lock:
            self._open.discard(connection)

    def cut(self):
        """Closes every connection."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.close()

    def close(self):
        self.listener.close()
        self.cut()
