"""The go-between and the strangers of one seat, in a process of their own.

Intuition. Some calls of the drivers block with Python's lock held. A go-between in the same process would then never
pass on what they wait for, and no watch could end them.

Mechanism. A pipe carries one command at a time and its answer. `watch` is the watch over a behaviour: when its time is
up all connections are closed, and `unwatch` tells so.

Failure. When the parent is gone the pipe ends, and so does the process.
"""

import multiprocessing
import threading

from gobetween import GoBetween
from strangers import Strangers


def serve(pipe, target, dsn, in_turns):
    """The child's whole life."""
    strangers = Strangers(dsn, in_turns) if dsn else None
    between = GoBetween(target, strangers.stir if strangers else None)
    hung = threading.Event()
    watch = None

    def give_up():
        hung.set()
        between.cut()

    pipe.send(between.port)
    while True:
        try:
            command, *words = pipe.recv()
        except EOFError:
            break
        answer = None
        if command == "watch":
            hung.clear()
            watch = threading.Timer(words[0], give_up)
            watch.daemon = True
            watch.start()
        elif command == "unwatch":
            watch.cancel()
            answer = hung.is_set()
        elif command == "soil" and strangers:
            strangers.soil()
        elif command == "leave" and strangers:
            strangers.leave()
        elif command == "close":
            break
        pipe.send(answer)
    if strangers:
        strangers.leave()
    between.close()


class Between:
    """The parent's end."""

    def __init__(self, target, dsn=None, in_turns=False):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, target, dsn, in_turns), daemon=True)
        self._process.start()
        theirs.close()
        self.port = self._pipe.recv()

    def ask(self, *command):
        """Sends a command and waits for its answer."""
        self._pipe.send(command)
        return self._pipe.recv()

    def close(self):
        self._pipe.send(("close",))
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
