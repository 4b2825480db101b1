"""A shop without HTTP: what the workload asks for, asked of an application's own code, from as many threads as a web server has.

Intuition. `workload.jsonl` is what customers did. The same can be asked of a shop that is written with another framework.

Mechanism. An application has a method for each of `ROUTES`; it returns what is told (with 200), or a status with it, or
raises `Refused`. Threads take requests as they come, so that those of one customer run on many connections. Pages are
the shop's own affair: only what is below `/api` is asked.

Failure. What a method raises besides is told as 500 with the error.
"""

import base64
import concurrent.futures
import datetime
import decimal
import hashlib
import json
import re
import sys
from urllib.parse import parse_qs, urlsplit

THREADS = 6
ROUTES = [
    ("GET", r"/api/categories", "categories"),
    ("GET", r"/api/products", "products"),
    ("GET", r"/api/products/(\d+)", "product"),
    ("GET", r"/api/products/(\d+)/stock", "stock"),
    ("GET", r"/api/search", "search"),
    ("POST", r"/api/login", "login"),
    ("GET", r"/api/me", "me"),
    ("GET", r"/api/cart", "cart"),
    ("PUT", r"/api/cart/items/(\d+)", "put"),
    ("DELETE", r"/api/cart/items/(\d+)", "remove"),
    ("POST", r"/api/orders", "order"),
    ("GET", r"/api/orders", "orders"),
    ("GET", r"/api/orders/(\d+)", "order_of"),
    ("POST", r"/api/orders/(\d+)/payment", "pay"),
]
OF_CUSTOMERS = {"me", "cart", "put", "remove", "order", "orders", "order_of", "pay"}


class Refused(Exception):
    """Told with this status; what was begun is rolled back."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


def is_right(password, stored):
    """Against `salt:key`, both in base64, by scrypt with Node's parameters."""
    salt, key = (base64.b64decode(part) for part in stored.split(":"))
    return hashlib.scrypt(password.encode(), salt=salt, n=16384, r=8, p=1, dklen=len(key), maxmem=64 << 20) == key


def wanted(items):
    """Quantities by product, of an order's own list."""
    quantities = {}
    for item in items:
        quantities[item["productId"]] = quantities.get(item["productId"], 0) + item.get("quantity", 1)
    return sorted(quantities.items())


def availability(available):
    return "sold out" if available == 0 else "few left" if available < 10 else "in stock"


def arguments(name, request):
    """What the method of this name is called with."""
    parts = urlsplit(request["path"])
    query, body = parse_qs(parts.query), request.get("body", {})
    one = lambda key, other: query.get(key, [other])[0]  # noqa: E731
    if name == "products":
        return [one("category", None), one("sort", "rating"), int(one("page", 1)), int(one("per_page", 24))]
    if name == "search":
        return [one("q", "")]
    if name == "login":
        return [body["email"], body["password"]]
    last = {"put": [body.get("quantity", 1)], "pay": [body.get("cardToken")], "order": [body.get("items")]}
    return last.get(name, [])


def ask(shop, request):
    """`[status, told]`; None for a page."""
    path, customer = urlsplit(request["path"]).path, request.get("customer")
    for method, form, name in ROUTES:
        found = re.fullmatch(form, path)
        if method != request["method"] or not found:
            continue
        if name in OF_CUSTOMERS and customer is None:
            return [401, {}]
        try:
            own = [customer] if name in OF_CUSTOMERS else []
            told = shop.within(customer, getattr(shop, name), [*own, *map(int, found.groups()), *arguments(name, request)])
        except Refused as refused:
            return [refused.status, {"error": str(refused)}]
        except Exception as error:  # noqa: BLE001 - told, and so compared
            return [500, {"error": repr(error)}]
        return list(told) if isinstance(told, tuple) else [200, told]
    return None


def plain(value):
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.timezone.utc).isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    return repr(value)


def play(shop):
    """Asks what standard input has, and prints the answers."""
    answers = []
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        for line in sys.stdin:
            answers += threads.map(lambda request: ask(shop, request), json.loads(line))
    json.dump(answers, sys.stdout, default=plain)
