"""SQLAlchemy and Django: what an application's framework does by itself, on top of its driver."""

import os
import subprocess
import sys
import json

from .registry import behaviour, plain

ENGINES = {"psycopg2": "postgresql+psycopg2", "psycopg": "postgresql+psycopg"}


def engine(seat, driver, **options):
    import sqlalchemy

    return sqlalchemy.create_engine(seat.url(ENGINES[driver], query="?sslmode=disable"), **options)


def orm_steps(seat, see, driver):
    import enum

    import sqlalchemy as sa
    from sqlalchemy import orm
    from sqlalchemy.dialects import postgresql as pg

    class Base(orm.DeclarativeBase):
        pass

    class Mood(enum.Enum):
        sad = 1
        ok = 2

    class Author(Base):
        __tablename__ = "author"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        name: orm.Mapped[str] = orm.mapped_column(sa.String(50), unique=True)
        mood: orm.Mapped[Mood]
        tags = sa.orm.mapped_column(pg.ARRAY(sa.String))
        extra = sa.orm.mapped_column(pg.JSONB)
        books: orm.Mapped[list["Book"]] = orm.relationship(back_populates="author", cascade="all, delete-orphan")

    class Book(Base):
        __tablename__ = "book"
        id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
        title: orm.Mapped[str]
        author_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("author.id"))
        author: orm.Mapped[Author] = orm.relationship(back_populates="books")

    made = engine(seat, driver)
    Base.metadata.create_all(made)
    with orm.Session(made) as session:
        session.add_all(
            Author(name=f"a{n}", mood=Mood.ok, tags=["x", f"t{n}"], extra={"n": [n, None]}, books=[Book(title=f"b{n}{i}") for i in range(3)])
            for n in range(40)
        )
        session.commit()
        see("joined", session.scalar(sa.select(sa.func.count()).select_from(Author).join(Book)))
        author = session.scalars(sa.select(Author).options(orm.selectinload(Author.books)).where(Author.name == "a7")).one()
        see("loaded", (author.mood.name, author.tags, author.extra, [book.title for book in author.books]))
        with session.begin_nested():
            author.name = "renamed"
        session.add(Author(name="a1", mood=Mood.sad))
        see.error("duplicate", session.commit)
        session.rollback()
        see("rolled back", session.scalar(sa.select(sa.func.count()).where(Author.name == "renamed")))
        session.execute(sa.update(Author).where(Author.id < 3).values(name=Author.name + "!"))
        session.delete(session.get(Author, 3))
        session.commit()
        see("names", list(session.scalars(sa.select(Author.name).order_by(Author.id).limit(4))))
    made.dispose()


@behaviour
def sqlalchemy_orm_on_psycopg2(seat, see):
    orm_steps(seat, see, "psycopg2")


@behaviour
def sqlalchemy_orm_on_psycopg(seat, see):
    orm_steps(seat, see, "psycopg")


@behaviour
def sqlalchemy_core(seat, see):
    import sqlalchemy as sa

    for driver in ENGINES:
        made = engine(seat, driver, pool_pre_ping=True, pool_size=2, pool_recycle=3600)
        meta = sa.MetaData()
        table = sa.Table("t", meta, sa.Column("id", sa.Integer, primary_key=True), sa.Column("b", sa.Text), sa.Column("c", sa.Numeric(8, 2)))
        meta.create_all(made)
        with made.begin() as connection:
            got = connection.execute(table.insert().returning(table.c.id), [{"b": str(n), "c": n} for n in range(1500)]).scalars().all()
            see("returned", (len(got), sum(got)))
        with made.connect().execution_options(stream_results=True, yield_per=100) as connection:
            see("streamed", sum(row.c for row in connection.execute(sa.select(table))))
        with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            see("autocommit", connection.exec_driver_sql("VACUUM t").rowcount)
        with made.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
            see("serializable", connection.exec_driver_sql("SHOW transaction_isolation").scalar())
        with made.connect() as connection:
            see("default again", connection.exec_driver_sql("SHOW transaction_isolation").scalar())
            see("default level", connection.default_isolation_level)
        meta.drop_all(made)
        made.dispose()


@behaviour
def sqlalchemy_reflection(seat, see):
    import sqlalchemy as sa

    seat.psycopg().execute("""CREATE TABLE p (id serial PRIMARY KEY, name varchar(20) NOT NULL DEFAULT 'x', UNIQUE (name));
        CREATE TABLE c (p_id int REFERENCES p ON DELETE CASCADE, n numeric(5, 1) CHECK (n > 0), tags text[]);
        CREATE INDEX c_n ON c (n DESC) WHERE n > 1; COMMENT ON TABLE c IS 'children'; CREATE VIEW v AS SELECT * FROM c""")
    made = engine(seat, "psycopg")
    inspector = sa.inspect(made)
    see("tables", [sorted(names()) for names in (inspector.get_table_names, inspector.get_view_names, inspector.get_schema_names)])
    for table in ("p", "c"):
        see(table, [plain(str(column)) for column in inspector.get_columns(table)])
        see("keys", (str(inspector.get_pk_constraint(table)), str(inspector.get_foreign_keys(table)), sorted(map(str, inspector.get_indexes(table)))))
        see("checks", sorted(map(str, inspector.get_check_constraints(table))))
    made.dispose()


@behaviour
def sqlalchemy_two_phase(seat, see):
    import sqlalchemy as sa

    made = engine(seat, "psycopg2")
    with made.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (a int)")
    with made.connect() as connection:
        transaction = connection.begin_twophase("first")
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        transaction.prepare()
        transaction.commit()
        transaction = connection.begin_twophase("second")
        connection.exec_driver_sql("INSERT INTO t VALUES (2)")
        transaction.rollback()
    with made.connect() as connection:
        see("rows", connection.execute(sa.text("SELECT a FROM t")).scalars().all())
    made.dispose()


@behaviour
def sqlalchemy_on_asyncpg(seat, see):
    import asyncio

    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import create_async_engine

    async def main():
        made = create_async_engine(seat.url("postgresql+asyncpg"), pool_size=3, connect_args={"ssl": False})
        async with made.begin() as connection:
            await connection.execute(sa.text("CREATE TABLE t (a int)"))
            await connection.execute(sa.text("INSERT INTO t VALUES (:a)"), [{"a": n} for n in range(100)])

        async def one(n):
            async with made.connect() as connection:
                return (await connection.execute(sa.text("SELECT a FROM t WHERE a = :a"), {"a": n})).scalar()

        see("at once", await asyncio.gather(*(one(n) for n in range(20))))
        async with made.connect() as connection:
            result = await connection.stream(sa.text("SELECT a FROM t ORDER BY a"))
            see("streamed", sum([row.a async for row in result]))
            await connection.rollback()
            await connection.execution_options(isolation_level="REPEATABLE READ")
            see("level", (await connection.execute(sa.text("SHOW transaction_isolation"))).scalar())
        await made.dispose()

    asyncio.run(main())


def django_steps(seat, see, **options):
    """Django's settings are global to a process, so each seat gets one."""
    program = os.path.join(os.path.dirname(os.path.dirname(__file__)), "django_shop.py")
    ended = subprocess.run(
        [sys.executable, program, json.dumps(options)], env=os.environ | seat.environment(), capture_output=True, text=True, timeout=30
    )
    see("exit", (ended.returncode, ended.stderr[-2000:]))
    for label, seen in json.loads(ended.stdout or "[]"):
        see(label, seen)


@behaviour
def django(seat, see):
    django_steps(seat, see)


@behaviour
def django_with_binding_by_the_server(seat, see):
    django_steps(seat, see, OPTIONS={"server_side_binding": True}, CONN_MAX_AGE=60)


@behaviour
def django_without_server_side_cursors(seat, see):
    django_steps(seat, see, DISABLE_SERVER_SIDE_CURSORS=True, OPTIONS={"isolation_level": 4})


