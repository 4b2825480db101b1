"""Where two seats differ, and whether the written list says so.

Intuition. The page for users that lists the differences is the specification: a difference that is not on it fails the
run, and so does a line of it that has stopped being true.

Mechanism. Rows of the page's tables name behaviours in backticks, `area.name`. A row counts for the transaction seat;
one that contains the word "session" in its own marker, `area.name` (session), counts for the session seat, and so with
"split". A seat that splits is one by transaction, so that what is listed for that one may differ there as well. With "at
times" in the marker, it may also be as directly: whether it differs depends on which server connection is free.

Failure. A name on the page that no behaviour has is an error of the page and is reported as gone.
"""

import re

NAME = re.compile(r"`([a-z0-9_]+\.[a-z0-9_]+)`(?: \((session|split)?(?:, )?(at times)?\))?")


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
    """The written list: (seat, behaviour) pairs that differ, some of them only at times."""

    def __init__(self, pairs, names, at_times=()):
        self.pairs = pairs
        self.at_times = set(at_times)
        self.names = set(names)

    @classmethod
    def read(cls, path, names):
        """`path` None: an empty list."""
        pairs, at_times = set(), set()
        if path:
            with open(path, encoding="utf-8") as page:
                for line in page:
                    for name, seat, times in NAME.findall(line) if line.startswith("|") else ():
                        pairs.add((seat or "transaction", name))
                        if times:
                            at_times.add((seat or "transaction", name))
        return cls(pairs, names, at_times)

    def judge(self, differences, seats):
        """Sorts what was found in these seats into listed and unlisted, and finds what is listed but gone."""
        found = {(entry["seat"], entry["behaviour"]) for entry in differences}
        listed = [entry for entry in differences if self._lists(entry)]
        unlisted = [entry for entry in differences if not self._lists(entry)]
        # A run of some behaviours only, or of one mode, says nothing about the others.
        was_run = lambda seat, name: seat in seats and name in self.names  # noqa: E731
        gone = sorted(f"{name} ({seat})" for seat, name in self.pairs - self.at_times - found if was_run(seat, name))
        return {"listed": listed, "unlisted": unlisted, "gone": gone}

    def _lists(self, entry):
        seat, name = entry["seat"], entry["behaviour"]
        return (seat, name) in self.pairs or (seat == "split" and ("transaction", name) in self.pairs)
