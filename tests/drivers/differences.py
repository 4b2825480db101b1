"""Where two seats differ, and whether the written list says so.

Intuition. The page for users that lists the differences is the specification: a difference that is not on it fails the
run, and so does a line of it that has stopped being true.

Mechanism. Rows of the page's tables name behaviours in backticks, `area.name`. A row counts for the transaction seat;
one that contains the word "session" in its own marker, `area.name (session)`, counts for the session seat.

Failure. A name on the page that no behaviour has is an error of the page and is reported as gone.
"""

import re

NAME = re.compile(r"`([a-z0-9_]+\.[a-z0-9_]+)`(?: \((session)\))?")


def compare(seat, direct, pooled, details):
    """One entry for each behaviour that differs, with its first differing step."""
    entries = []
    for name, expected in direct.items():
        seen = pooled[name]
        if seen == expected:
            continue
        at = next((i for i, (a, b) in enumerate(zip(expected, seen, strict=False)) if a != b), None)
        if at is None:
            at = min(len(expected), len(seen))
        entry = {
            "seat": seat,
            "behaviour": name,
            "direct": expected[at] if at < len(expected) else None,
            "pooled": seen[at] if at < len(seen) else None,
        }
        if details:
            entry |= {"all direct": expected, "all pooled": seen}
        entries.append(entry)
    return entries


class Written:
    """The written list: (seat, behaviour) pairs that may differ."""

    def __init__(self, pairs, names):
        self.pairs = pairs
        self.names = set(names)

    @classmethod
    def read(cls, path, names):
        """`path` None: an empty list."""
        pairs = set()
        if path:
            with open(path, encoding="utf-8") as page:
                for line in page:
                    if line.startswith("|"):
                        pairs |= {(seat or "transaction", name) for name, seat in NAME.findall(line)}
        return cls(pairs, names)

    def judge(self, differences):
        """Sorts what was found into listed and unlisted, and finds what is listed but gone."""
        found = {(entry["seat"], entry["behaviour"]) for entry in differences}
        listed = [entry for entry in differences if (entry["seat"], entry["behaviour"]) in self.pairs]
        unlisted = [entry for entry in differences if (entry["seat"], entry["behaviour"]) not in self.pairs]
        # A run of some behaviours only says nothing about the others.
        gone = sorted(f"{name} ({seat})" for seat, name in self.pairs - found if name in self.names)
        return {"listed": listed, "unlisted": unlisted, "gone": gone}
