"""asyncpg: always the extended protocol, always binary, its own cache of prepared statements, its own cancels."""

import asyncio
import datetime
import decimal
import uuid

import asyncpg

from .registry import behaviour


def runs(act):
    """Makes a behaviour of a coroutine function that also gets a connection."""

    def run(seat, see):
        async def main():
            connection = await asyncpg.connect(seat.url(query="?sslmode=disable"), timeout=10)
            try:
                await act(seat, see, connection)
            finally:
                await asyncio.wait_for(connection.close(), 5)

        asyncio.run(main())

    run.__name__, run.__module__, run.__doc__ = act.__name__, act.__module__, act.__doc__
    return behaviour(run)


async def error(see, label, awaitable):
    """Records what an awaitable raises."""
    from .registry import describe

    try:
        got = await awaitable
    except Exception as raised:  # noqa: BLE001
        see(label, describe(raised))
    else:
        see(label, {"no error": str(got)})


@runs
async def values_in_binary(seat, see, connection):
    for parameter, kind in [
        (7, "int"), (2**40, "bigint"), (1.5, "float8"), (decimal.Decimal("3.1400"), "numeric"), ("ünï", "text"), (b"\0\1", "bytea"),
        (datetime.date(2024, 2, 29), "date"), (datetime.datetime(2024, 1, 1, 2, 3, 4, 5), "timestamp"), (uuid.UUID(int=9), "uuid"),
        ([1, None, 3], "int[]"), (datetime.timedelta(days=1, seconds=2), "interval"), ('{"a": 1}', "jsonb"), (None, "text"), (True, "bool"),
    ]:
        see(kind, [await connection.fetchval(f"SELECT $1::{kind}", parameter) for _ in range(2)])


@runs
async def types_looked_up(seat, see, connection):
    await connection.execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b mood[]); CREATE DOMAIN small AS int")
    see("row", str(await connection.fetchrow("SELECT ROW(1, ARRAY['ok']::mood[])::pair AS p, ARRAY[2]::small[] AS d, 'sad'::mood AS m")))
    see("in", await connection.fetchval("SELECT ($1::pair).b[1]::text", (5, ["sad"])))


@runs
async def cached_statements(seat, see, connection):
    for _ in range(5):
        see("again", await connection.fetchval("SELECT $1::int + 1", 5))
    for n in range(150):
        await connection.fetchval(f"SELECT {n}")
    see("after many", await connection.fetchval("SELECT $1::int + 1", 6))


@runs
async def statements_of_its_own(seat, see, connection):
    statement = await connection.prepare("SELECT $1::int AS a, $2::text AS b")
    see("attributes", [(a.name, a.type.name) for a in statement.get_attributes()])
    see("parameters", [p.name for p in statement.get_parameters()])
    for n in range(4):
        see(n, str(await statement.fetchrow(n, "x")))
        await connection.execute("SELECT 1")
    see("explain", "Plan" in (await statement.explain(1, "x"))[0])


@runs
async def a_table_changed_under_its_cache(seat, see, connection):
    await connection.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    see("before", [tuple(row) for row in await connection.fetch("SELECT * FROM t")])
    await connection.execute("ALTER TABLE t ADD COLUMN b int DEFAULT 2")
    see("after", [tuple(row) for row in await connection.fetch("SELECT * FROM t")])
    async with connection.transaction():
        see("within", [tuple(row) for row in await connection.fetch("SELECT * FROM t")])


@runs
async def a_table_changed_within_a_transaction(seat, see, connection):
    await connection.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
    await connection.fetch("SELECT * FROM t")
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("ALTER TABLE t ADD COLUMN b int DEFAULT 2")
    await error(see, "within", connection.fetch("SELECT * FROM t"))
    await transaction.rollback()
    see("after", [tuple(row) for row in await connection.fetch("SELECT * FROM t")])


@runs
async def without_a_cache(seat, see, connection):
    other = await asyncpg.connect(seat.url(query="?sslmode=disable"), statement_cache_size=0)
    try:
        for n in range(4):
            see(n, await other.fetchval("SELECT $1::int", n))
        await other.execute("CREATE TABLE t (a int)")
        await other.executemany("INSERT INTO t VALUES ($1)", [(n,) for n in range(10)])
        see("sum", await other.fetchval("SELECT sum(a) FROM t"))
    finally:
        await other.close()


@runs
async def executemany_is_atomic(seat, see, connection):
    await connection.execute("CREATE TABLE t (a int PRIMARY KEY)")
    await connection.executemany("INSERT INTO t VALUES ($1)", [(n,) for n in range(2000)])
    await error(see, "duplicate", connection.executemany("INSERT INTO t VALUES ($1)", [(5000,), (1,), (5001,)]))
    see("rows", tuple(await connection.fetchrow("SELECT count(*), max(a) FROM t")))


@runs
async def errors_with_fields(seat, see, connection):
    await connection.execute("CREATE TABLE t (a int PRIMARY KEY, b int NOT NULL CHECK (b > 0)); INSERT INTO t VALUES (1, 1)")
    for sql in ("SELECT 1/0", "INSERT INTO t VALUES (1, 1)", "INSERT INTO t VALUES (2, NULL)", "INSERT INTO t VALUES (2, -1)",
                "SELECT nope", "SELEC 1", "SELECT * FROM nowhere", "SELECT $1::int"):
        await error(see, sql, connection.fetch(sql))
        await error(see, "simple", connection.execute(sql))
    await error(see, "not a number", connection.fetch("SELECT $1::int", "x"))
    see("after", await connection.fetchval("SELECT 1"))


@runs
async def transactions_and_savepoints(seat, see, connection):
    await connection.execute("CREATE TABLE t (a int)")
    async with connection.transaction(isolation="repeatable_read"):
        await connection.execute("INSERT INTO t VALUES (1)")
        see("level", await connection.fetchval("SHOW transaction_isolation"))
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (2)")
                raise KeyError("back")
        except KeyError:
            pass
        await connection.execute("INSERT INTO t VALUES (3)")
    see("rows", [row[0] for row in await connection.fetch("SELECT a FROM t ORDER BY a")])
    async with connection.transaction(readonly=True, isolation="serializable", deferrable=True):
        await error(see, "read only", connection.execute("INSERT INTO t VALUES (4)"))


@runs
async def cursors_suspended(seat, see, connection):
    async with connection.transaction():
        cursor = await connection.cursor("SELECT generate_series(1, 1000)")
        see("first", [row[0] for row in await cursor.fetch(3)])
        await cursor.forward(10)
        see("then", (await cursor.fetchrow())[0])
        see("between", await connection.fetchval("SELECT 'other'"))
        total = 0
        async for row in connection.cursor("SELECT generate_series(1, $1::int)", 500, prefetch=7):
            total += row[0]
        see("sum", total)
    await error(see, "outside", cursor.fetch(1))


@runs
async def copies(seat, see, connection):
    import io

    await connection.execute("CREATE TABLE t (a int, b text)")
    see("records", await connection.copy_records_to_table("t", records=[(n, None if n % 3 else f"r{n}") for n in range(3000)]))
    out = io.BytesIO()
    see("out", await connection.copy_from_table("t", output=out, format="csv"))
    see("length", len(out.getvalue()))
    out.seek(0)
    see("in", await connection.copy_to_table("t", source=out, format="csv"))
    see("query", await connection.copy_from_query("SELECT * FROM t WHERE a < $1", 5, output=io.BytesIO()))
    see("count", await connection.fetchval("SELECT count(*) FROM t"))
    await error(see, "bad", connection.copy_to_table("t", source=io.BytesIO(b"x,y\n"), format="csv"))
    see("after", await connection.fetchval("SELECT 1"))


@runs
async def listeners(seat, see, connection):
    got = asyncio.Queue()
    await connection.add_listener("c", lambda _c, _pid, channel, payload: got.put_nowait((channel, payload)))
    other = await asyncpg.connect(seat.url(query="?sslmode=disable"))
    try:
        await other.execute("NOTIFY c, 'one'")
        see("one", await asyncio.wait_for(got.get(), 5))
        await connection.fetchval("SELECT 1")
        await other.fetchval("SELECT pg_notify('c', $1)", "two")
        see("two", await asyncio.wait_for(got.get(), 5))
    finally:
        await other.close()
    await connection.reset()
    see("none after reset", [row[0] for row in await connection.fetch("SELECT pg_listening_channels()")])


@runs
async def timeouts_cancel(seat, see, connection):
    for _ in range(3):
        await error(see, "timeout", connection.fetchval("SELECT pg_sleep(10)", timeout=0.1))
        see("after", await connection.fetchval("SELECT 'fine'"))
    task = asyncio.create_task(connection.fetchval("SELECT pg_sleep(10)"))
    await asyncio.sleep(0.1)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        see("task cancelled")
    see("after", await connection.fetchval("SELECT 'fine'"))


@runs
async def settings_at_login_and_later(seat, see, connection):
    other = await asyncpg.connect(
        seat.url(query="?sslmode=disable"), server_settings={"application_name": "async", "search_path": "elsewhere", "jit": "off"}
    )
    try:
        see("at login", [await other.fetchval(f"SHOW {name}") for name in ("application_name", "search_path", "jit")])
        see("whose", await other.fetchval("SELECT who FROM whose"))
        see("told", other.get_settings().application_name)
        await other.execute("SET TimeZone = 'Asia/Tokyo'")
        see("told", (other.get_settings().TimeZone, await other.fetchval("SHOW TimeZone")))
        await other.reset()
        see("after reset", (await other.fetchval("SHOW search_path"), await other.fetchval("SHOW TimeZone") != "Asia/Tokyo"))
    finally:
        await other.close()


@runs
async def a_pool_resets(seat, see, connection):
    async with asyncpg.create_pool(seat.url(query="?sslmode=disable"), min_size=2, max_size=4) as pool:
        async with pool.acquire() as one:
            await one.execute("SET work_mem = '3MB'")
            await one.execute("CREATE TEMP TABLE t (a int)")
            see("set", await one.fetchval("SHOW work_mem"))
        see("reset", [await pool.fetchval("SHOW work_mem") for _ in range(4)])
        see("sum", sum(await asyncio.gather(*(pool.fetchval("SELECT $1::int", n) for n in range(50)))))
    # Closing with the pool ends everything; the plain connection goes on.
    see("other", await connection.fetchval("SELECT 1"))


@runs
async def log_messages(seat, see, connection):
    got = []
    connection.add_log_listener(lambda _c, message: got.append((message.severity, message.sqlstate, message.message)))
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$")
    await asyncio.sleep(0)
    see("messages", got)


@runs
async def strings_of_statements(seat, see, connection):
    see("tag", await connection.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2); SELECT 1"))
    await error(see, "with parameters", connection.execute("SELECT $1::int; SELECT 2", 1))
    await error(see, "empty", connection.fetch(""))
