"""A small Django application, run once against the database of the environment; prints its steps as JSON.

Mechanism. Settings are made in the process, tables by the schema editor; then models, transactions, locks, cursors.
"""

import json
import os
import sys

import django
from django.conf import settings

steps = []


def see(label, value=None):
    steps.append([label, value if isinstance(value, (int, str, list, dict, type(None))) else repr(value)])


def configure(options):
    names = {"HOST": "PGHOST", "PORT": "PGPORT", "USER": "PGUSER", "PASSWORD": "PGPASSWORD", "NAME": "PGDATABASE"}
    database = {"ENGINE": "django.db.backends.postgresql"} | {key: os.environ[name] for key, name in names.items()}
    settings.configure(
        DATABASES={"default": database | options}, INSTALLED_APPS=["django.contrib.contenttypes"], USE_TZ=True, TIME_ZONE="Asia/Tokyo",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()


def make_models():
    from django.db import models

    class Product(models.Model):
        name = models.CharField(max_length=50, unique=True)
        price = models.DecimalField(max_digits=8, decimal_places=2)
        stock = models.IntegerField(default=0)
        made = models.DateTimeField(null=True)
        extra = models.JSONField(default=dict)

        class Meta:
            app_label = "shop"
            constraints = [models.CheckConstraint(condition=models.Q(stock__gte=0), name="stock_left")]

    class Order(models.Model):
        product = models.ForeignKey(Product, on_delete=models.CASCADE, related_name="orders")
        count = models.IntegerField()

        class Meta:
            app_label = "shop"

    return Product, Order


def crud(product, order):
    from django.db import IntegrityError, models, transaction
    from django.utils import timezone

    made = timezone.datetime(2024, 2, 29, 12, tzinfo=timezone.get_fixed_timezone(0))
    product.objects.bulk_create(product(name=f"p{n}", price=n, stock=n, made=made, extra={"n": [n]}) for n in range(300))
    see("count", product.objects.filter(extra__n__0__gt=100).count())
    first = product.objects.get(name="p7")
    see("time", [str(first.made), str(timezone.localtime(first.made))])
    see("sum", str(product.objects.aggregate(total=models.Sum("price"))["total"]))
    order.objects.create(product=first, count=2)
    see("related", [o.product.name for o in order.objects.select_related("product")])
    see("updated", product.objects.filter(stock__lt=10).update(stock=models.F("stock") + 5))
    see("iterated", sum(p.stock for p in product.objects.order_by("id").iterator(chunk_size=20)))
    try:
        with transaction.atomic():
            product.objects.create(name="p1", price=1)
    except IntegrityError as error:
        see("duplicate", [type(error).__name__, str(error)])
    try:
        product.objects.filter(name="p1").update(stock=-1)
    except IntegrityError as error:
        see("check", str(error).splitlines()[0])
    see("upsert", len(product.objects.bulk_create(
        [product(name="p1", price=99), product(name="new", price=5)], update_conflicts=True, unique_fields=["name"], update_fields=["price"])))
    see("get_or_create", [product.objects.get_or_create(name=name, defaults={"price": 1})[1] for name in ("p1", "another")])


def transactions(product):
    from django.db import connection, transaction

    done = []
    with transaction.atomic():
        transaction.on_commit(lambda: done.append("committed"))
        locked = product.objects.select_for_update(nowait=True).get(name="p3")
        locked.stock -= 1
        locked.save()
        try:
            with transaction.atomic():
                product.objects.filter(name="p3").delete()
                raise KeyError("back")
        except KeyError:
            see("savepoint", product.objects.filter(name="p3").exists())
    see("on commit", done)
    with transaction.atomic():
        product.objects.all().delete()
        transaction.set_rollback(True)
    see("rolled back", product.objects.count())
    transaction.set_autocommit(False)
    product.objects.filter(name="p4").update(stock=1000)
    transaction.rollback()
    transaction.set_autocommit(True)
    see("stock", product.objects.get(name="p4").stock)
    with connection.cursor() as cursor:
        for name in ("TimeZone", "client_encoding", "transaction_isolation"):
            cursor.execute(f"SHOW {name}")
            see(name, cursor.fetchone()[0])
        cursor.callproc("upper", ["x"])
        see("callproc", cursor.fetchone()[0])


def introspection(product):
    from django.db import connection

    with connection.cursor() as cursor:
        see("tables", sorted(t.name for t in connection.introspection.get_table_list(cursor)))
        see("columns", [c.name for c in connection.introspection.get_table_description(cursor, "shop_product")])
        see("constraints", sorted(connection.introspection.get_constraints(cursor, "shop_product")))
    see("explain", "Scan" in product.objects.filter(name="p1").explain())
    connection.close()
    see("after close", product.objects.count())
    see("usable", connection.is_usable())


def main():
    configure(json.loads(sys.argv[1]))
    product, order = make_models()
    from django.db import connection

    with connection.schema_editor() as editor:
        editor.create_model(product)
        editor.create_model(order)
    crud(product, order)
    transactions(product)
    introspection(product)
    print(json.dumps(steps))


main()
