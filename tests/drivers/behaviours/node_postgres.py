"""node-postgres: its behaviours are in `node/behaviours.js`; each runs in a process of its own."""

import json
import os
import subprocess

from .registry import BEHAVIOURS

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(__file__)), "node", "behaviours.js")
PROGRAM_SECONDS_MAX = 35


def node(words, environment):
    return subprocess.run(
        ["node", PROGRAM, *words], env=os.environ | {"NODE_NO_WARNINGS": "1"} | environment,
        capture_output=True, text=True, timeout=PROGRAM_SECONDS_MAX,
    )


def behaviour_of(name):
    def run(seat, see):
        ended = node([name], seat.environment())
        see("exit", (ended.returncode, ended.stderr[-1500:]))
        for label, seen in json.loads(ended.stdout or "[]"):
            see(label, seen)

    return run


names = node([], {})
assert names.returncode == 0, names.stderr
for name in json.loads(names.stdout):
    BEHAVIOURS[f"node_postgres.{name}"] = behaviour_of(name)
