"""Values: what goes to the server and comes back, in text and in binary, through three drivers."""

import datetime
import decimal
import ipaddress
import uuid

from psycopg.types.json import Jsonb
from psycopg.types.range import Range

from .registry import behaviour, hash_of, rows, value

LITERALS = """
true, 1::int2, (-2147483648)::int4, 9223372036854775807::int8, 1.5::float4, 0.1::float8, 'NaN'::float8, 12.3400::numeric,
'text', 'v'::varchar(3), 'c'::char(3), 'n'::name, '\\x00ff'::bytea, '2024-02-29'::date, '12:34:56.789'::time,
'2024-02-29 12:00:00.123456'::timestamp, '2024-02-29 12:00:00+00'::timestamptz, '1 year 2 mons 3 days 04:05:06'::interval,
'7d444840-9dc0-11d1-b245-5ffdce74fad2'::uuid, '{"a": [1, null]}'::json, '{"a": 1}'::jsonb, '10.0.0.1/8'::inet,
'{1,NULL,3}'::int[], '{{a,b},{c,NULL}}'::text[], '[1,5)'::int4range, '(1,2)'::point, B'101'::bit(3), '12.34'::money,
'a b'::tsvector, '<a/>'::xml, 'pg_class'::regclass::text, ROW(1, 'x', NULL), '{[1,3),[5,7)}'::int4multirange
"""


@behaviour
def literals_as_text(seat, see):
    connection = seat.psycopg()
    see("row", connection.execute(f"SELECT {LITERALS}").fetchone())


@behaviour
def literals_as_binary(seat, see):
    connection = seat.psycopg()
    see("row", connection.execute(f"SELECT {LITERALS}", binary=True, prepare=True).fetchone())


@behaviour
def literals_through_psycopg2(seat, see):
    cursor = seat.psycopg2().cursor()
    cursor.execute(f"SELECT {LITERALS}".replace("%", "%%"))
    see("row", cursor.fetchone())
    see("columns", [(c.name, c.type_code, c.internal_size, c.precision, c.scale) for c in cursor.description])


PARAMETERS = [
    None, True, 7, 2**40, -(2**70), 1.25, decimal.Decimal("3.1400"), "ünï ☃ 𝄞", b"\x00\x01\xff",
    datetime.date(1999, 12, 31), datetime.datetime(2024, 2, 29, 1, 2, 3, 4), datetime.timedelta(days=-3, seconds=5),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc), datetime.time(1, 2, 3),
    uuid.UUID(int=5), ipaddress.ip_address("::1"), [1, 2, None], ["a", "b,c", 'd"e'], Range(1, 9), Jsonb({"k": [1, 2]}),
]


@behaviour
def parameters_and_back(seat, see):
    connection = seat.psycopg()
    for binary in (False, True):
        for index, parameter in enumerate(PARAMETERS):
            see(index, connection.execute("SELECT %s", [parameter], binary=binary).fetchone())


@behaviour
def parameters_in_binary(seat, see):
    connection = seat.psycopg()
    for index, parameter in enumerate(PARAMETERS):
        see.error(index, lambda p=parameter: connection.execute("SELECT %b", [p], binary=True).fetchone())


@behaviour
def nulls(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int, b text, c bytea)")
    connection.execute("INSERT INTO t VALUES (%s, %s, %s), (NULL, '', '')", [None, None, None])
    see("rows", rows(connection, "SELECT * FROM t"))
    see("count", rows(connection, "SELECT count(*), count(a), count(b) FROM t WHERE a IS NULL"))


@behaviour
def columns_described(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TABLE t (a int, b varchar(7), c numeric(9, 2), d timestamp(3)[])")
    cursor = connection.execute("SELECT *, a + 1 AS sum, 'x' AS \"odd \"\"name\" FROM t")
    described = [(c.name, c.type_code, c.internal_size, c.precision, c.scale, c.display_size) for c in cursor.description]
    see("columns", described)
    see("from a table", [cursor.pgresult.ftable(i) != 0 for i in range(6)])
    see("column numbers", [cursor.pgresult.ftablecol(i) for i in range(6)])


@behaviour
def no_columns_and_no_rows(seat, see):
    connection = seat.psycopg()
    cursor = connection.execute("SELECT")
    see("no columns", (cursor.statusmessage, cursor.rowcount, [tuple(row) for row in cursor.fetchall()]))
    cursor = connection.execute("SELECT 1 AS a WHERE false")
    see("no rows", (cursor.statusmessage, cursor.rowcount, cursor.fetchall(), cursor.description[0].name))


@behaviour
def sixteen_hundred_columns(seat, see):
    connection = seat.psycopg()
    row = connection.execute("SELECT " + ", ".join(f"{i} AS c{i}" for i in range(1600))).fetchone()
    see("sum", (len(row), sum(row)))


@behaviour
def many_rows(seat, see):
    connection = seat.psycopg()
    for binary in (False, True):
        cursor = connection.execute("SELECT i, repeat('x', i %% 50) FROM generate_series(1, 20000) i", [], binary=binary)
        fetched = cursor.fetchall()
        see("rows", (len(fetched), hash_of(repr(fetched).encode()), cursor.statusmessage))


@behaviour
def sixteen_mebibytes_each_way(seat, see):
    connection = seat.psycopg()
    big = bytes(range(256)) * (1 << 16)
    see("text", hash_of(connection.execute("SELECT repeat('abcdefgh', 2097152)").fetchone()[0].encode()))
    see("binary", connection.execute("SELECT %b::bytea", [big], binary=True).fetchone()[0] == big)
    see("length", value(connection, "SELECT octet_length(%b::bytea)", [big]))
    see("long statement", value(connection, f"SELECT length('{'y' * (4 << 20)}')"))


@behaviour
def a_value_of_every_length_around_buffers(seat, see):
    connection = seat.psycopg()
    for power in (10, 12, 13, 14, 16, 17):
        for length in range((1 << power) - 40, (1 << power) + 8, 3):
            if value(connection, "SELECT %s::text", ["z" * length]) != "z" * length:
                see("wrong at", length)
    see("checked")


@behaviour
def bytea_as_the_client_asks(seat, see):
    connection = seat.psycopg()
    for form in ("hex", "escape"):
        connection.execute(f"SET bytea_output = '{form}'")
        see(form, value(connection, "SELECT '\\x00615cff'::bytea::text"))
        see(form, value(connection, "SELECT '\\x00615cff'::bytea"))


@behaviour
def enums_domains_and_composites(seat, see):
    connection = seat.psycopg()
    connection.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    connection.execute("CREATE DOMAIN small AS int CHECK (VALUE < 10)")
    connection.execute("CREATE TYPE pair AS (a int, b mood)")
    from psycopg.types.composite import CompositeInfo, register_composite
    from psycopg.types.enum import EnumInfo, register_enum

    register_composite(CompositeInfo.fetch(connection, "pair"), connection)
    register_enum(EnumInfo.fetch(connection, "mood"), connection)
    see("values", [str(v) for v in connection.execute("SELECT 'ok'::mood, 3::small, ROW(1, 'sad')::pair").fetchone()])
    see.error("domain", lambda: connection.execute("SELECT 11::small"))
    see.error("enum", lambda: connection.execute("SELECT 'angry'::mood"))


@behaviour
def text_that_cannot_be_sent(seat, see):
    connection = seat.psycopg()
    see.error("nul", lambda: connection.execute("SELECT %s", ["a\0b"]))
    connection.execute("SET client_encoding = 'LATIN1'")
    see("latin1", value(connection, "SELECT 'é'"))
    see.error("no such character", lambda: value(connection, "SELECT U&'\\2603'"))
    see("after", value(connection, "SELECT 'à' || chr(233)"))


@behaviour
def precision_of_floats(seat, see):
    connection = seat.psycopg()
    see("default", value(connection, "SELECT (0.1::float8 + 0.2)::text"))
    connection.execute("SET extra_float_digits = 0")
    see("0", value(connection, "SELECT (0.1::float8 + 0.2)::text"))
    connection.execute("SET extra_float_digits = -3")
    see("-3", value(connection, "SELECT pi()::text"))


@behaviour
def result_formats_mixed(seat, see):
    connection = seat.psycopg()
    result = connection.pgconn.exec_params(b"SELECT $1::int, $2::text", [b"\x00\x00\x00\x05", b"five"], [23, 25], [1, 0], 1)
    see("binary", (result.get_value(0, 0), result.get_value(0, 1), result.fformat(0), result.fformat(1)))
    result = connection.pgconn.exec_params(b"SELECT $1, $2", [b"1", b"2"], None, None, 0)
    see("types left open", (result.ftype(0), result.ftype(1), result.get_value(0, 0)))

