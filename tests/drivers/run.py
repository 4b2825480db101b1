"""Runs every behaviour in every seat and prints, as JSON, where a pooled seat differs from PostgreSQL itself.

    run.py --server URL --tenfold PROGRAM          starts the pooler in its modes itself; `split`, if there is a --replica
    run.py --server URL --pgbouncer PROGRAM        the same with PgBouncer
    run.py --server URL --seat session=HOST:PORT --seat transaction=HOST:PORT
           [--mode MODE] [--listed FILE] [--only PATTERN] [--details]

Exits with 1 if a difference is not on the written list (a table whose rows name behaviours in backticks), if something
listed is not different any more, or if a behaviour is not repeatable directly. Those are printed as `unstable`.

`DATABASE_URL` stands for --server if that is not given. The URL must be a superuser's.
"""

import argparse
import fnmatch
import importlib
import json
import os
import pkgutil
import sys
import threading
import time
import traceback

import behaviours
import poolers
from behaviours.registry import BEHAVIOURS, Sight, describe
from differences import Written, compare
from seats import Seat, Server

BEHAVIOUR_SECONDS_MAX = float(os.environ.get("BEHAVIOUR_SECONDS_MAX", 40))
CUT_SECONDS_MAX = 3.0
MODES = ("session", "transaction", "split")


def perform(seat, name, sight):
    """One behaviour; an exception it lets out is a step."""
    try:
        BEHAVIOURS[name](seat, sight)
    except Exception as error:  # noqa: BLE001 - what a driver raises is what is compared
        sight("raised", describe(error))
        if os.environ.get("TRACE"):
            traceback.print_exc()


def run_one(seat, name):
    """The steps of one behaviour in one seat, the last one being what it left behind, if anything."""
    sight = Sight()
    try:
        seat.fresh()
    except Exception as error:  # noqa: BLE001
        return [["the database could not be made clean", describe(error)]]
    seat.between.ask("watch", BEHAVIOUR_SECONDS_MAX)
    act = threading.Thread(target=perform, args=(seat, name, sight), daemon=True)
    act.start()
    # A driver that does not notice even that its connection was closed is left behind with its thread.
    act.join(BEHAVIOUR_SECONDS_MAX + CUT_SECONDS_MAX)
    if seat.between.ask("unwatch") or act.is_alive():
        sight = Sight([*sight.steps, ["hung", True]])
    try:
        left = seat.tidy()
    except Exception as error:  # noqa: BLE001
        left = describe(error)
    if left:
        sight("left behind", left)
    if os.environ.get("STEPS"):
        print(json.dumps([seat.name, name, sight.steps], ensure_ascii=False), file=sys.stderr, flush=True)
    return sight.steps


def run_seat(seat, names):
    """Steps by behaviour."""
    told = {}
    began = time.monotonic()
    for name in names:
        before = time.monotonic()
        if os.environ.get("NAMES"):
            print(f"{seat.name}: {name}", file=sys.stderr, flush=True)
        told[name] = run_one(seat, name)
        if os.environ.get("SLOW") and time.monotonic() - before > 1:
            print(f"{seat.name}: {name}: {time.monotonic() - before:.1f} s", file=sys.stderr, flush=True)
    print(f"{seat.name}: {len(names)} behaviours, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return told


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=os.environ.get("DATABASE_URL"))
    parser.add_argument("--replica", default=os.environ.get("REPLICA_URL"), help="of the server, for the mode split")
    parser.add_argument("--tenfold")
    parser.add_argument("--pgbouncer")
    parser.add_argument("--seat", action="append", default=[], metavar="NAME=HOST:PORT")
    parser.add_argument("--mode", action="append", choices=MODES, help="of the pooler started; all that can be")
    parser.add_argument("--listed", help="the page whose table is the written list")
    parser.add_argument("--only", action="append", help="behaviours by name, with * and ?")
    parser.add_argument("--details", action="store_true", help="what was seen, not only where it differs")
    chosen = parser.parse_args()
    if not chosen.server:
        parser.error("--server or DATABASE_URL is needed")
    return chosen


def seats(chosen, server, stack):
    """The pooled seats that were asked for, by name."""
    addresses = dict(seat.split("=", 1) for seat in chosen.seat)
    for name, start in (("tenfold", poolers.tenfold), ("pgbouncer", poolers.pgbouncer)):
        if program := getattr(chosen, name):
            for mode in chosen.mode or (MODES if name == "tenfold" and server.replica else MODES[:2]):
                pooler = start(program, server, mode)
                stack.append(pooler)
                addresses[mode] = f"127.0.0.1:{pooler.port}"
    for mode, address in addresses.items():
        host, port = address.rsplit(":", 1)
        yield Seat(mode, server, (host, int(port)), in_turns=mode != "session", splits=mode == "split")


def main():
    chosen = options()
    for module in pkgutil.iter_modules(behaviours.__path__):
        importlib.import_module(f"behaviours.{module.name}")
    names = [name for name in BEHAVIOURS if not chosen.only or any(fnmatch.fnmatch(name, p) for p in chosen.only)]
    server, stack = Server(chosen.server, chosen.replica), []
    try:
        direct = Seat("direct", server)
        stack.append(direct)
        first, second = run_seat(direct, names), run_seat(direct, names)
        unstable = compare("direct again", first, second, chosen.details)
        differences, seated = [], []
        for seat in seats(chosen, server, stack):
            differences += compare(seat.name, first, run_seat(seat, names), chosen.details)
            seat.close()
            seated.append(seat.name)
    finally:
        for thing in reversed(stack):
            thing.close()
    written = Written.read(chosen.listed, names)
    report = {"behaviours": len(names), "unstable": unstable} | written.judge(differences, seated)
    print(json.dumps(report, indent=1, ensure_ascii=False))
    sys.stdout.flush()
    failed = len(unstable) + len(report["unlisted"]) + len(report["gone"])
    # The lines that ./test adds up: each behaviour counts once in each pooled seat.
    passed = max(0, len(names) * len(seated) - failed)
    print(f"# pass {passed}\n# fail {failed}", file=sys.stderr, flush=True)
    # Threads of drivers that hang must not keep us.
    os._exit(1 if failed else 0)


if __name__ == "__main__":
    main()
