"""Starts a pooler for one seat: Tenfold, or PgBouncer to see how the same list looks there.

Mechanism. A configuration in a folder of its own, a free port, the program as a child of ours; ready when the port
takes connections. Both log in to the server as the client's user, by passwords in a users file.

Failure. A pooler that exits or stays deaf is an error with what it printed. `close` ends it and removes its folder.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time

from seats import DATABASE, PASSWORDS

START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 10.0
POOL_SIZE = 40

TENFOLD = """
workers = {workers}
[admin]
listen = "127.0.0.1:{admin}"
[drain]
deadline = "1s"
[pooler]
listen = "127.0.0.1:{port}"
[database."*"]
primary = "postgres://{host}:{server_port}"
pool = {{ mode = "{mode}", size = {size}, reserve = 0 }}
users = {{ file = "users.txt" }}
{replicas}
"""
PGBOUNCER = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 500
ignore_startup_parameters = extra_float_digits
server_reset_query_always = 0
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Pooler:
    """A running pooler."""

    def __init__(self, template, file, command, server, mode, replicas=""):
        self.folder = tempfile.mkdtemp(prefix="drivers-")
        self.port = free_port()
        os.chmod(self.folder, 0o755)
        path = os.path.join(self.folder, file)
        with open(path, "w", encoding="utf-8") as config:
            config.write(
                template.format(
                    host=server.host, server_port=server.port, port=self.port, admin=free_port(), mode=mode,
                    size=POOL_SIZE, folder=self.folder, workers=os.environ.get("WORKERS", "1"),
                    replicas=replicas,
                )
            )
        with open(os.path.join(self.folder, "users.txt"), "w", encoding="utf-8") as users:
            users.writelines(f'"{name}" "{password}"\n' for name, password in PASSWORDS.items())
        os.chmod(os.path.join(self.folder, "users.txt"), 0o600 if file.endswith(".toml") else 0o644)
        self.log = open(os.path.join(self.folder, "log"), "w+", encoding="utf-8")
        self.child = subprocess.Popen([*command, path], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        self._wait()

    def _wait(self):
        limit = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self.child.poll() is not None or time.monotonic() > limit:
                    self.log.seek(0)
                    text = self.log.read()
                    self.close()
                    raise RuntimeError(f"the pooler did not start:\n{text}") from None
                time.sleep(0.02)

    def close(self):
        self.child.terminate()
        try:
            self.child.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        if os.environ.get("LOGS"):
            self.log.seek(0)
            with open(f"{os.environ['LOGS']}-{self.port}.txt", "w", encoding="utf-8") as kept:
                kept.write(self.log.read())
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def tenfold(program, server, mode):
    """Tenfold's own program; in the mode `split` by transaction, with reads on the server's replica."""
    if mode == "split":
        return splitting(program, server, [server.replica], "own_writes")
    return Pooler(TENFOLD, "tenfold.toml", [program, "run", "-c"], server, mode)


def splitting(program, server, replicas, consistency):
    """Tenfold by transaction, with reads on these replicas (host, port)."""
    listed = json.dumps([f"{host}:{port}" for host, port in replicas])
    lines = f'replicas = {listed}\nreads = {{ consistency = "{consistency}" }}'
    return Pooler(TENFOLD, "tenfold.toml", [program, "run", "-c"], server, "transaction", lines)


def pgbouncer(program, server, mode):
    """PgBouncer, which refuses to run as root."""
    command = [program, "-u", "nobody"] if os.geteuid() == 0 else [program]
    return Pooler(PGBOUNCER, "pgbouncer.ini", [*command], server, mode)


__all__ = ["DATABASE", "pgbouncer", "splitting", "tenfold"]
