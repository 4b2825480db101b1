"""Plays a recorded afternoon of a shop directly and with reads on replicas, and compares every answer.

    workload.py --server URL --replicas 'URL URL' --tenfold PROGRAM --shop FOLDER [--only NAME] [--details]

Intuition. Nobody changes an application to have its reads split. So the same requests go to the same application, once at
PostgreSQL itself and once at the pooler, and nothing that it answers may differ, though of two replicas one always stands
still, and is late.

Mechanism. The shop of `examples/shop` over HTTP, and the same with Django, SQLAlchemy and node-postgres (`shops/`), each
with a database of its own for each seat, copied from one. The shop behind the pooler makes its tables through it. What
differs by nature is taken out by `Steady`, and by nothing else: the tokens of logins, and times of the run itself, of which
it is still compared that one thing's time stays the same.

Failure. Two checks keep this from passing for nothing: the servers' own statistics must show a fair share of the reads on
both replicas, and with `consistency = "eventual"` the same afternoon has to differ. An answer without the status that was
recorded is an error of the application, wherever it sits.
"""

import argparse
import concurrent.futures
import datetime
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import psycopg

import poolers
from seats import PASSWORDS, Server

HERE = os.path.dirname(os.path.abspath(__file__))
WORKLOAD = os.path.join(HERE, "shops", "workload.jsonl")
APPLICATIONS = {
    "django": [sys.executable, os.path.join(HERE, "shops", "django_shop.py")],
    "sqlalchemy": [sys.executable, os.path.join(HERE, "shops", "sqlalchemy_shop.py")],
    "node_postgres": ["node", os.path.join(HERE, "node", "shop.js")],
}
SEED = "shop_seed"
TURN_SECONDS = 0.4
SHARE_MIN = 0.4
PLAY_SECONDS_MAX = 120
FOLLOW_SECONDS_MAX = 30
AT_ONCE_MAX = 8
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
READS = r"""
SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid
WHERE datname = %s AND query ~* '^\s*select' AND query !~* 'for (no key )?update'
  AND query ~ '\m(products|categories|stock|reviews|users|cart_items|orders|order_items)\M'
"""


class Steady:
    """Answers without what differs by nature."""

    def __init__(self):
        self.since = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=5)
        self.times = {}

    def of(self, value, key=None, owner=None):
        if isinstance(value, dict):
            return {name: self.of(inner, name, value.get("id")) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.of(inner, key, owner) for inner in value]
        if key == "token":
            return "a token"
        if isinstance(value, str) and TIME.match(value):
            return self._time(value, key, owner)
        return value

    def _time(self, value, key, owner):
        """A time of this run is which of its owner's times it is."""
        if datetime.datetime.fromisoformat(value.replace("Z", "+00:00")) < self.since:
            return value
        seen = self.times.setdefault((owner, key), [])
        if value not in seen:
            seen.append(value)
        return f"time {seen.index(value)} of {owner}"


class Shop:
    """`examples/shop` as a process, asked over HTTP."""

    def __init__(self, folder, url):
        environment = os.environ | {"DATABASE_URL": url, "JWT_SECRET": "of the workload", "PORT": "0", "NODE_ENV": "production"}
        self.process = subprocess.Popen(["node", "server.js"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])
        self.tokens = {}
        self.own = threading.local()

    def play(self, moments):
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE_MAX) as threads:
            return [answer for moment in moments for answer in threads.map(self.ask, moment)]

    def ask(self, request):
        if not hasattr(self.own, "connection"):
            self.own.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        token = self.tokens.get(request.get("customer"))
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        body = json.dumps(request["body"]) if "body" in request else None
        self.own.connection.request(request["method"], request["path"], body, headers)
        response = self.own.connection.getresponse()
        text, kind = response.read().decode(), response.getheader("content-type")
        told = json.loads(text) if "json" in kind else text
        if request["path"] == "/api/login" and response.status == 200:
            self.tokens[request["customer"]] = told["token"]
        return [response.status, {"type": kind, "location": response.getheader("location"), "body": told}]

    def close(self):
        self.process.terminate()
        self.process.wait(20)


class Turns:
    """Of the replicas one after the other stands still, from where it was, while the others replay."""

    def __init__(self, urls):
        self.replicas = [psycopg.connect(url, autocommit=True) for url in urls]
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        turn = 0
        while not self.ended.wait(TURN_SECONDS):
            turn += 1
            for number, replica in enumerate(self.replicas):
                stands = number == turn % len(self.replicas)
                replica.execute("SELECT pg_wal_replay_pause()" if stands else "SELECT pg_wal_replay_resume()")

    def close(self):
        self.ended.set()
        self.thread.join()
        for replica in self.replicas:
            replica.execute("SELECT pg_wal_replay_resume()")
            replica.close()


class Stage:
    """The servers, a database for each play, and the poolers."""

    def __init__(self, chosen):
        self.server, self.shop = Server(chosen.server), chosen.shop
        self.program, self.urls = chosen.tenfold, chosen.replicas.split()
        self.primary, *self.replicas = (psycopg.connect(url, autocommit=True) for url in (chosen.server, *self.urls))
        self.poolers, self.opened = {}, []

    def open(self):
        """The shop's tables, the poolers, and the turns of the replicas."""
        self.primary.execute(f"DROP DATABASE IF EXISTS {SEED}")
        self.primary.execute(f"CREATE DATABASE {SEED} OWNER driver")
        self.set_up(self.address("direct"), SEED)
        addresses = [(urlsplit(url).hostname, urlsplit(url).port) for url in self.urls]
        for seat, consistency in (("split", "own_writes"), ("eventual", "eventual")):
            self.poolers[seat] = poolers.splitting(self.program, self.server, addresses, consistency)
            self.opened.append(self.poolers[seat])
        self.opened.append(Turns(self.urls))

    def address(self, seat):
        return ("127.0.0.1", self.poolers[seat].port) if seat in self.poolers else (self.server.host, self.server.port)

    def url(self, address, database):
        return f"postgresql://driver:{PASSWORDS['driver']}@{address[0]}:{address[1]}/{database}"

    def set_up(self, address, database):
        """As the shop does it itself."""
        environment = os.environ | {"DATABASE_URL": self.url(address, database)}
        subprocess.run(["node", "scripts/setup-db.js"], cwd=self.shop, env=environment, check=True, timeout=PLAY_SECONDS_MAX)

    def follow(self):
        """What is made past the pooler is no write of its clients: the replicas have to have it before they ask."""
        written = self.primary.execute("SELECT pg_current_wal_insert_lsn()").fetchone()[0]
        limit = time.monotonic() + FOLLOW_SECONDS_MAX
        for replica in self.replicas:
            while not replica.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [written]).fetchone()[0]:
                if time.monotonic() > limit:
                    raise TimeoutError("a replica does not follow")
                time.sleep(0.01)

    def play(self, name, seat, moments):
        """What the application answered there, and how many of its reads each server had."""
        database, address = f"{name}_{seat}", self.address(seat)
        through_pooler = name == "shop" and seat == "split"
        self.primary.execute(f"DROP DATABASE IF EXISTS {database}")
        self.primary.execute(f"CREATE DATABASE {database} OWNER driver" + ("" if through_pooler else f" TEMPLATE {SEED}"))
        self.follow()
        if through_pooler:
            self.set_up(address, database)
        steady = Steady()
        answers = self.answers(name, address, database, moments)
        reads = [server.execute(READS, [database]).fetchone()[0] for server in (self.primary, *self.replicas)]
        return [steady.of(answer) for answer in answers], reads

    def answers(self, name, address, database, moments):
        if name == "shop":
            shop = Shop(self.shop, self.url(address, database))
            try:
                return shop.play(moments)
            finally:
                shop.close()
        words = {"PGHOST": address[0], "PGPORT": str(address[1]), "PGUSER": "driver", "PGPASSWORD": PASSWORDS["driver"], "PGDATABASE": database}
        ended = subprocess.run(
            APPLICATIONS[name], input="\n".join(map(json.dumps, moments)), text=True, stdout=subprocess.PIPE, check=True,
            env=os.environ | words | {"DATABASE_URL": self.url(address, database), "NODE_NO_WARNINGS": "1"}, timeout=PLAY_SECONDS_MAX,
        )
        return json.loads(ended.stdout)

    def close(self):
        for thing in (*reversed(self.opened), self.primary, *self.replicas):
            thing.close()


def judge(name, stage, moments, details):
    """One application: what was found, and what of it must not be."""
    requests = [request for moment in moments for request in moment]
    began = time.monotonic()
    played = {seat: stage.play(name, seat, moments) for seat in ("direct", "split", "eventual")}
    direct, (split, reads) = played["direct"][0], played["split"]
    differing = [
        {"request": request, "direct": expected, "split": seen} for request, expected, seen in zip(requests, direct, split, strict=True) if seen != expected
    ]
    unexpected = [
        {"request": request, "direct": answer} for request, answer in zip(requests, direct, strict=True) if answer and answer[0] != request["status"]
    ]
    share = sum(reads[1:]) / max(1, sum(reads))
    stale = sum(seen != expected for expected, seen in zip(direct, played["eventual"][0], strict=True))
    failures = {
        "answers differ": differing[: None if details else 3],
        "not the status that was recorded": unexpected[: None if details else 3],
        "hardly any reads on replicas": share < SHARE_MIN or 0 in reads[1:],
        "no difference with floors ignored, so that nothing is shown": stale == 0,
    }
    return {
        "application": name, "requests": sum(answer is not None for answer in direct), "differ": len(differing),
        "reads at the primary and each replica": reads, "share of the replicas": round(share, 3),
        "differ with floors ignored": stale, "seconds": round(time.monotonic() - began),
        "failures": {what: found for what, found in failures.items() if found},
    }


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default=os.environ.get("DATABASE_URL"), help="a superuser's URL")
    parser.add_argument("--replicas", default=os.environ.get("REPLICA_URLS"), help="superuser's URLs of its replicas, with a blank between")
    parser.add_argument("--tenfold", required=True)
    parser.add_argument("--shop", required=True, help="a copy of examples/shop with its libraries")
    parser.add_argument("--only", action="append", choices=["shop", *APPLICATIONS])
    parser.add_argument("--details", action="store_true", help="all that differs")
    return parser.parse_args()


def main():
    chosen = options()
    with open(WORKLOAD, encoding="utf-8") as lines:
        moments = [json.loads(line) for line in lines]
    stage = Stage(chosen)
    try:
        stage.open()
        found = [judge(name, stage, moments, chosen.details) for name in chosen.only or ["shop", *APPLICATIONS]]
    finally:
        stage.close()
    print(json.dumps(found, indent=1, ensure_ascii=False))
    failed = sum(bool(application["failures"]) for application in found)
    # The lines that ./test adds up.
    print(f"# pass {len(found) - failed}\n# fail {failed}", file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
