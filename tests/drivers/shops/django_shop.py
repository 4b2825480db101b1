"""The shop with Django: its models over the shop's tables, a connection for each thread, psycopg 3 as Django sets it up.

Every other customer's requests run in one transaction each, as `ATOMIC_REQUESTS` has it.
"""

import os

import django
from django.conf import settings

NAMES = {"HOST": "PGHOST", "PORT": "PGPORT", "USER": "PGUSER", "PASSWORD": "PGPASSWORD", "NAME": "PGDATABASE"}
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql"} | {key: os.environ[name] for key, name in NAMES.items()}},
    USE_TZ=True,
)
django.setup()

from django.db import models, transaction  # noqa: E402 - needs the settings
from django.db.models.functions import Now  # noqa: E402

from play import Refused, availability, is_right, play, wanted  # noqa: E402


class Table(models.Model):
    class Meta:
        abstract = True
        app_label = "shop"


def table(name):
    return type("Meta", (), {"app_label": "shop", "db_table": name, "managed": False})


class Category(Table):
    id = models.IntegerField(primary_key=True)
    slug, name = models.TextField(), models.TextField()
    Meta = table("categories")


class Product(Table):
    id = models.IntegerField(primary_key=True)
    category = models.ForeignKey(Category, models.CASCADE)
    name, description, price_cents = models.TextField(), models.TextField(), models.IntegerField()
    attributes, created_at = models.JSONField(), models.DateTimeField()
    rating = models.DecimalField(max_digits=2, decimal_places=1)
    Meta = table("products")


class Stock(Table):
    product = models.OneToOneField(Product, models.CASCADE, primary_key=True)
    available = models.IntegerField()
    Meta = table("stock")


class Review(Table):
    product = models.ForeignKey(Product, models.CASCADE, related_name="reviews")
    author, stars, body, created_at = models.TextField(), models.IntegerField(), models.TextField(), models.DateTimeField()
    Meta = table("reviews")


class User(Table):
    id = models.IntegerField(primary_key=True)
    email, name, password_hash = models.TextField(), models.TextField(), models.TextField()
    Meta = table("users")


class CartItem(Table):
    pk = models.CompositePrimaryKey("user", "product")
    user, product = models.ForeignKey(User, models.CASCADE), models.ForeignKey(Product, models.CASCADE)
    quantity, added_at = models.IntegerField(), models.DateTimeField(db_default=Now())
    Meta = table("cart_items")


class Order(Table):
    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(User, models.CASCADE)
    status, total_cents = models.TextField(db_default="pending"), models.IntegerField()
    created_at, paid_at = models.DateTimeField(db_default=Now()), models.DateTimeField(null=True)
    Meta = table("orders")


class OrderItem(Table):
    pk = models.CompositePrimaryKey("order", "product")
    order = models.ForeignKey(Order, models.CASCADE, related_name="items")
    product, quantity, price_cents = models.ForeignKey(Product, models.CASCADE), models.IntegerField(), models.IntegerField()
    Meta = table("order_items")


SORTS = {"rating": ["-rating", "id"], "newest": ["-created_at", "id"], "price": ["price_cents", "id"]}


def card(product):
    return {"id": product.id, "name": product.name, "price": product.price_cents, "rating": product.rating, "category": product.category.slug}


def bill(order):
    return {"id": order.id, "status": order.status, "total": order.total_cents, "createdAt": order.created_at, "paidAt": order.paid_at}


class Shop:
    def within(self, customer, act, words):
        """In a transaction, if this customer's requests have one."""
        if customer is None or customer % 2:
            return act(*words)
        with transaction.atomic():
            return act(*words)

    def categories(self):
        return list(Category.objects.order_by("id").values("slug", "name"))

    def products(self, category, sort, page, per_page):
        found = Product.objects.select_related("category")
        found = found.filter(category__slug=category) if category else found
        start = (page - 1) * per_page
        return {"total": found.count(), "products": [card(one) for one in found.order_by(*SORTS[sort])[start : start + per_page]]}

    def product(self, number):
        product = Product.objects.select_related("category").filter(pk=number).first()
        if product is None:
            raise Refused(404, "No such product")
        reviews = product.reviews.order_by("-created_at").values("author", "stars", "body", "created_at")[:5]
        related = Product.objects.select_related("category").filter(category=product.category).exclude(pk=number)
        return card(product) | {
            "description": product.description, "attributes": product.attributes, "availability": availability(Stock.objects.get(pk=number).available),
            "reviews": list(reviews), "related": [card(one) for one in related.order_by(*SORTS["rating"])[:6]],
        }

    def stock(self, number):
        return {"productId": number, "available": Stock.objects.get(pk=number).available}

    def search(self, text):
        if not text:
            raise Refused(400, "q is missing")
        found = Product.objects.select_related("category").extra(where=["search @@ websearch_to_tsquery('english', %s)"], params=[text])
        return [card(one) for one in found.order_by("-rating", "id")[:20]]

    def login(self, email, password):
        user = User.objects.filter(email=email).first()
        if user is None or not is_right(password, user.password_hash):
            raise Refused(401, "Wrong email or password")
        return {"id": user.id, "name": user.name}

    def me(self, customer):
        return User.objects.values("id", "email", "name").get(pk=customer)

    def cart(self, customer):
        items = list(CartItem.objects.select_related("product").filter(user_id=customer).order_by("added_at", "product_id"))
        stock = Stock.objects.in_bulk([item.product_id for item in items])
        told = [
            {"productId": item.product_id, "name": item.product.name, "price": item.product.price_cents, "quantity": item.quantity,
             "available": stock[item.product_id].available >= item.quantity}
            for item in items
        ]
        return {"items": told, "total": sum(item["price"] * item["quantity"] for item in told)}

    def put(self, customer, product, quantity):
        CartItem.objects.update_or_create(user_id=customer, product_id=product, defaults={"quantity": quantity})
        return self.cart(customer)

    def remove(self, customer, product):
        CartItem.objects.filter(user_id=customer, product_id=product).delete()
        return self.cart(customer)

    def order(self, customer, items):
        with transaction.atomic():
            if items is None:
                bought = sorted(CartItem.objects.filter(user_id=customer).values_list("product_id", "quantity"))
            else:
                bought = wanted(items)
            if not bought:
                raise Refused(400, "The cart is empty")
            prices = {}
            for product, quantity in bought:
                left = Stock.objects.filter(pk=product, available__gte=quantity).update(available=models.F("available") - quantity)
                if not left:
                    raise Refused(409, f"Product {product} is sold out")
                prices[product] = Product.objects.get(pk=product).price_cents
            order = Order.objects.create(user_id=customer, total_cents=sum(prices[product] * quantity for product, quantity in bought))
            OrderItem.objects.bulk_create(
                OrderItem(order=order, product_id=product, quantity=quantity, price_cents=prices[product]) for product, quantity in bought
            )
            CartItem.objects.filter(user_id=customer, product_id__in=prices).delete()
        order.refresh_from_db()
        return 201, bill(order)

    def orders(self, customer):
        return [bill(order) for order in Order.objects.filter(user_id=customer).order_by("-id")[:20]]

    def order_of(self, customer, number):
        order = Order.objects.prefetch_related("items").filter(pk=number, user_id=customer).first()
        if order is None:
            raise Refused(404, "No such order")
        items = [[item.product_id, item.quantity, item.price_cents] for item in order.items.all()]
        return bill(order) | {"items": sorted(items)}

    def pay(self, customer, number, token):
        waiting = Order.objects.filter(pk=number, user_id=customer, status="pending")
        if not waiting.update(status="paying"):
            raise Refused(409, "This order is not waiting for a payment")
        order = Order.objects.get(pk=number)
        if token == "tok_declined":
            with transaction.atomic():
                for item in order.items.order_by("product_id"):
                    Stock.objects.select_for_update().filter(pk=item.product_id).update(available=models.F("available") + item.quantity)
                order.status = "cancelled"
                order.save()
            return 402, {"error": "The card was declined"}
        order.status, order.paid_at = "paid", Now()
        order.save(update_fields=["status", "paid_at"])
        order.refresh_from_db()
        return bill(order)


play(Shop())
