"""Makes `workload.jsonl`: an afternoon in the shop, as its requests, with the status each got.

    record.py > workload.jsonl

Intuition. What shows a stale read is a write and, right behind it, everybody who could notice: the customer's own cart,
orders and order, another's look at the stock, the product's page.

Mechanism. A line is a moment: its requests are sent at once, the next line once all are answered. Only one request of a
moment writes, or none, so that what is told depends on no race; order numbers follow from that. The draw begins with a
fixed seed, and what the shop has left is kept track of, so that the statuses are known.

Failure. A shop that behaves otherwise answers another status than the one that stands here, which the player reports.
"""

import json
import random

SEED = 20260501
CUSTOMERS = list(range(1, 7))
ACTIONS = 100
DROP, DROP_PIECES = 24000, 50
WORDS = ["wool scarf", "navy denim jacket", "silk dress", "leather boot", "canvas bag", "no such thing"]
CATEGORIES = ["boots", "jackets", "hats", "bags", "limited-drop"]
SORTS = ["rating", "newest", "price"]


class Recorder:
    """The moments so far, and what they have left in the shop."""

    def __init__(self):
        self.draw = random.Random(SEED).random
        self.moments = []
        self.carts = {customer: set() for customer in CUSTOMERS}
        self.orders = {customer: [] for customer in CUSTOMERS}
        self.unpaid = {customer: [] for customer in CUSTOMERS}
        self.drop_left = DROP_PIECES
        self.drop_of = {}
        self.last_order = 0

    def one_of(self, choices):
        return choices[int(self.draw() * len(choices))]

    def number(self, low, high):
        return low + int(self.draw() * (high - low + 1))

    def moment(self, *requests):
        self.moments.append(requests)

    def look(self):
        """Reads of what hardly changes."""
        product = self.number(1, 24000)
        word = self.one_of(WORDS).replace(" ", "+")
        category, sort = self.one_of(CATEGORIES), self.one_of(SORTS)
        self.moment(
            get("/"), get(f"/categories/{category}?page={self.number(1, 3)}"), get(f"/products/{product}"), get("/api/categories"),
            get(f"/api/products?category={category}&sort={sort}&page={self.number(1, 4)}&per_page=10"), get(f"/api/search?q={word}"),
        )
        self.moment(get(f"/api/products/{product}"), get("/api/products/24001", status=404), get(f"/api/products/{product}/stock"))

    def noticed(self, customer, product):
        """Who could notice what was just written."""
        other = self.one_of([other for other in CUSTOMERS if other != customer])
        self.moment(
            get("/api/cart", customer), get(f"/api/products/{product}/stock"), get(f"/api/products/{product}"),
            get("/api/orders", customer), get("/api/orders", other), get("/api/me", customer),
        )
        if mine := self.orders[customer]:
            order = self.one_of(mine)
            self.moment(
                get(f"/api/orders/{mine[-1]}", customer), get(f"/api/orders/{order}", other, status=404),
                get(f"/products/{product}"), get(f"/api/products/{product}/stock", other),
            )

    def fill_cart(self, customer):
        product = self.number(1, 23900)
        self.moment(put(f"/api/cart/items/{product}", customer, {"quantity": self.number(1, 5)}))
        self.carts[customer].add(product)
        self.noticed(customer, product)
        if self.draw() < 0.3:
            self.moment(request("DELETE", f"/api/cart/items/{product}", customer))
            self.carts[customer].discard(product)
            self.noticed(customer, product)

    def buy(self, customer):
        """The cart, which may be empty."""
        bought = sorted(self.carts[customer])
        self.ordered(customer, None, 201 if bought else 400)
        self.carts[customer].clear()
        self.noticed(customer, bought[0] if bought else 1)

    def buy_at_once(self, customer):
        """Pieces of the limited drop, as long as there are any, and something else in the same order."""
        pieces, other = self.number(5, 12), self.number(1, 23900)
        is_left = pieces <= self.drop_left
        self.drop_left -= pieces if is_left else 0
        items = [{"productId": DROP, "quantity": pieces}, {"productId": other}]
        self.ordered(customer, {"items": items}, 201 if is_left else 409)
        if is_left:
            self.drop_of[self.last_order] = pieces
            self.carts[customer].discard(other)
        self.noticed(customer, DROP)

    def ordered(self, customer, body, status):
        self.moment(request("POST", "/api/orders", customer, body, status))
        if status == 201:
            self.last_order += 1
            self.orders[customer].append(self.last_order)
            self.unpaid[customer].append(self.last_order)

    def pay(self, customer):
        """The oldest order that waits for it; now and then a card is declined. A second payment is always refused."""
        owing = [customer for customer, orders in self.unpaid.items() if orders]
        if not owing:
            return
        customer = customer if customer in owing else owing[0]
        order = self.unpaid[customer].pop(0)
        is_good = self.draw() < 0.6
        path, card = f"/api/orders/{order}/payment", {"cardToken": "tok_ok" if is_good else "tok_declined"}
        self.moment(request("POST", path, customer, card, 200 if is_good else 402))
        if not is_good:
            self.drop_left += self.drop_of.get(order, 0)
        self.noticed(customer, DROP)
        self.moment(get(f"/api/orders/{order}", customer))
        self.moment(request("POST", path, customer, card, 409))

    def record(self):
        for customer in CUSTOMERS:
            login = {"email": f"customer{customer}@example.com", "password": "open sesame"}
            self.moment(request("POST", "/api/login", customer, login))
        wrong = {"email": "customer1@example.com", "password": "guess"}
        self.moment(request("POST", "/api/login", None, wrong, 401), get("/api/cart", status=401), get("/api/search", status=400))
        for _ in range(ACTIONS):
            customer, dice = self.one_of(CUSTOMERS), self.draw()
            if dice < 0.15:
                self.look()
            elif dice < 0.42:
                self.fill_cart(customer)
            elif dice < 0.56:
                filled = [customer for customer, cart in self.carts.items() if cart]
                self.buy(customer if dice < 0.44 or not filled else self.one_of(filled))
            elif dice < 0.75:
                self.buy_at_once(customer)
            else:
                self.pay(customer)
        return self.moments


def request(method, path, customer=None, body=None, status=200):
    told = {"customer": customer, "method": method, "path": path, "body": body}
    return {key: value for key, value in told.items() if value is not None} | {"status": status}


def get(path, customer=None, status=200):
    return request("GET", path, customer, status=status)


def put(path, customer, body):
    return request("PUT", path, customer, body)


if __name__ == "__main__":
    for moment in Recorder().record():
        print(json.dumps(moment, separators=(",", ":")))
