"""What a behaviour is: a named function that does something through a driver and tells what it saw.

Intuition. Nothing here asserts what PostgreSQL does: PostgreSQL itself is asked, in the direct seat. So a behaviour
only has to be repeatable; whatever it tells must be the same in the other seats.

Mechanism. `@behaviour` puts a function into `BEHAVIOURS` under `<file>.<function>`. It is called with the seat and
with `see(label, value)`, which records a step. An exception that it lets out is a step as well.

Failure. A value JSON has no form for is recorded as its type and `repr`, so that a driver's conversions are compared.
"""

BEHAVIOURS = {}


def behaviour(function):
    """Registers a behaviour."""
    area = function.__module__.rsplit(".", 1)[-1]
    name = f"{area}.{function.__name__}"
    assert name not in BEHAVIOURS, name
    BEHAVIOURS[name] = function
    return function


class Sight:
    """The steps that one behaviour told."""

    def __init__(self, steps=()):
        self.steps = list(steps)

    def __call__(self, label, value=None):
        self.steps.append([label, plain(value)])

    def error(self, label, act):
        """Does `act` and records the error it raises; `None` if it raises none."""
        try:
            value = act()
        except Exception as error:  # noqa: BLE001 - whatever the driver raises is what is compared
            self(label, describe(error))
        else:
            self(label, {"no error": plain(getattr(value, "statusmessage", value))})


def plain(value):
    """`value` as JSON that keeps apart what a driver keeps apart."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return [plain(item) for item in value]
    if type(value) is dict:
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (bytes, bytearray, memoryview)):
        raw = bytes(value)
        return f"bytes {raw.hex()}" if len(raw) <= 64 else f"{len(raw)} bytes, {hash_of(raw)}"
    return f"{type(value).__name__} {value!r}"


def hash_of(raw):
    """A short digest of something long."""
    import hashlib

    return hashlib.sha256(raw).hexdigest()[:16]


FIELDS = (
    "severity sqlstate message_primary message_detail message_hint statement_position internal_position internal_query"
    " context schema_name table_name column_name datatype_name constraint_name source_function"
).split()
# asyncpg's names for the same.
ASYNCPG_FIELDS = "severity sqlstate message detail hint position context schema_name table_name constraint_name".split()


def describe(error):
    """An exception of any driver: its class, SQLSTATE and the fields of the server's message."""
    told = {"class": type(error).__name__}
    diag = getattr(error, "diag", None)
    if diag is not None and getattr(diag, "sqlstate", None):
        fields = ((field, getattr(diag, field, None)) for field in FIELDS)
    elif getattr(error, "sqlstate", None):
        fields = ((field, getattr(error, field, None)) for field in ASYNCPG_FIELDS)
    else:
        fields = [("text", steady(str(error)))]
    return told | {name: plain(value) for name, value in fields if value is not None}


def steady(text):
    """A driver's own text without what differs from connection to connection: ports and process ids."""
    import re

    text = re.sub(r"port \d+", "port N", text)
    text = re.sub(r"large object \d+", "large object N", text)
    return re.sub(r"\bPID \d+", "PID N", text)


def rows(connection, sql, params=None):
    """All rows of a statement through psycopg."""
    return connection.execute(sql, params).fetchall()


def value(connection, sql, params=None):
    """The one value of a statement through psycopg."""
    return connection.execute(sql, params).fetchone()[0]
