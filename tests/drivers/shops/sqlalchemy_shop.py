"""The shop with SQLAlchemy's ORM, its classes made from the tables as they are found.

A session for each request, as web frameworks have it: psycopg 3 for some customers, psycopg2 for the others, and for who
is nobody yet, transactions that are REPEATABLE READ and READ ONLY.
"""

import os

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.ext.automap import automap_base

from play import Refused, availability, is_right, play, wanted

URL = os.environ["DATABASE_URL"].split("://", 1)[1]
ENGINES = [sa.create_engine(f"postgresql+{driver}://{URL}", pool_size=6) for driver in ("psycopg", "psycopg2")]
SNAPSHOT = ENGINES[0].execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
Base = automap_base()
Base.prepare(ENGINES[0])
Category, Product, Stock, Review, User, CartItem, Order, OrderItem = (
    Base.classes[name] for name in "categories products stock reviews users cart_items orders order_items".split()
)
SORTS = {
    "rating": [Product.rating.desc(), Product.id], "newest": [Product.created_at.desc(), Product.id], "price": [Product.price_cents, Product.id],
}
CARDS = sa.select(Product).options(orm.joinedload(Product.categories, innerjoin=True))


def card(product):
    return {"id": product.id, "name": product.name, "price": product.price_cents, "rating": product.rating, "category": product.categories.slug}


def bill(order):
    return {"id": order.id, "status": order.status, "total": order.total_cents, "createdAt": order.created_at, "paidAt": order.paid_at}


class Shop:
    def within(self, customer, act, words):
        """In a session of its own."""
        if customer is None:
            with orm.Session(SNAPSHOT) as session:
                return act(session, *words)
        with orm.Session(ENGINES[customer % 2]) as session:
            told = act(session, *words)
            session.commit()
            return told

    def categories(self, session):
        return [[one.slug, one.name] for one in session.scalars(sa.select(Category).order_by(Category.id))]

    def products(self, session, category, sort, page, per_page):
        found, count = CARDS, sa.select(sa.func.count()).select_from(Product)
        if category:
            found, count = (one.where(Product.categories.has(slug=category)) for one in (found, count))
        shown = found.order_by(*SORTS[sort]).limit(per_page).offset((page - 1) * per_page)
        return {"total": session.scalar(count), "products": [card(one) for one in session.scalars(shown)]}

    def product(self, session, number):
        product = session.get(Product, number)
        if product is None:
            raise Refused(404, "No such product")
        reviews = session.scalars(sa.select(Review).where(Review.product_id == number).order_by(Review.created_at.desc()).limit(5))
        related = CARDS.where(Product.category_id == product.category_id, Product.id != number).order_by(*SORTS["rating"]).limit(6)
        return card(product) | {
            "description": product.description, "attributes": product.attributes,
            "availability": availability(session.get(Stock, number).available),
            "reviews": [[one.author, one.stars, one.body, one.created_at] for one in reviews],
            "related": [card(one) for one in session.scalars(related)],
        }

    def stock(self, session, number):
        return {"productId": number, "available": session.get(Stock, number).available}

    def search(self, session, text):
        if not text:
            raise Refused(400, "q is missing")
        found = CARDS.where(Product.search.op("@@")(sa.func.websearch_to_tsquery("english", text)))
        return [card(one) for one in session.scalars(found.order_by(*SORTS["rating"]).limit(20))]

    def login(self, session, email, password):
        user = session.scalars(sa.select(User).where(User.email == email)).one_or_none()
        if user is None or not is_right(password, user.password_hash):
            raise Refused(401, "Wrong email or password")
        return {"id": user.id, "name": user.name}

    def me(self, session, customer):
        user = session.get(User, customer)
        return {"id": user.id, "email": user.email, "name": user.name}

    def cart(self, session, customer):
        found = (
            sa.select(CartItem, Product, Stock).join(Product, Product.id == CartItem.product_id)
            .join(Stock, Stock.product_id == Product.id).where(CartItem.user_id == customer).order_by(CartItem.added_at, Product.id)
        )
        told = [
            {"productId": product.id, "name": product.name, "price": product.price_cents, "quantity": item.quantity,
             "available": stock.available >= item.quantity}
            for item, product, stock in session.execute(found)
        ]
        return {"items": told, "total": sum(item["price"] * item["quantity"] for item in told)}

    def put(self, session, customer, product, quantity):
        item = session.get(CartItem, (customer, product))
        if item is None:
            session.add(CartItem(user_id=customer, product_id=product, quantity=quantity))
        else:
            item.quantity = quantity
        session.commit()
        return self.cart(session, customer)

    def remove(self, session, customer, product):
        session.execute(sa.delete(CartItem).where(CartItem.user_id == customer, CartItem.product_id == product))
        session.commit()
        return self.cart(session, customer)

    def order(self, session, customer, items):
        if items is None:
            mine = sa.select(CartItem).where(CartItem.user_id == customer).order_by(CartItem.product_id)
            bought = [(item.product_id, item.quantity) for item in session.scalars(mine)]
        else:
            bought = wanted(items)
        if not bought:
            raise Refused(400, "The cart is empty")
        prices = {}
        for product, quantity in bought:
            taking = sa.update(Stock).where(Stock.product_id == product, Stock.available >= quantity)
            if not session.execute(taking.values(available=Stock.available - quantity)).rowcount:
                raise Refused(409, f"Product {product} is sold out")
            prices[product] = session.get(Product, product).price_cents
        order = Order(user_id=customer, total_cents=sum(prices[product] * quantity for product, quantity in bought))
        session.add(order)
        session.flush()
        session.add_all(
            OrderItem(order_id=order.id, product_id=product, quantity=quantity, price_cents=prices[product]) for product, quantity in bought
        )
        session.execute(sa.delete(CartItem).where(CartItem.user_id == customer, CartItem.product_id.in_(prices)))
        session.commit()
        return 201, bill(order)

    def orders(self, session, customer):
        return [bill(order) for order in session.scalars(sa.select(Order).where(Order.user_id == customer).order_by(Order.id.desc()).limit(20))]

    def order_of(self, session, customer, number):
        order = session.scalars(sa.select(Order).where(Order.id == number, Order.user_id == customer)).one_or_none()
        if order is None:
            raise Refused(404, "No such order")
        items = session.scalars(sa.select(OrderItem).where(OrderItem.order_id == number).order_by(OrderItem.product_id))
        return bill(order) | {"items": [[item.product_id, item.quantity, item.price_cents] for item in items]}

    def pay(self, session, customer, number, token):
        mine = sa.update(Order).where(Order.id == number, Order.user_id == customer, Order.status == "pending")
        if not session.execute(mine.values(status="paying")).rowcount:
            raise Refused(409, "This order is not waiting for a payment")
        session.commit()
        order = session.get(Order, number)
        if token == "tok_declined":
            for item in session.scalars(sa.select(OrderItem).where(OrderItem.order_id == number).order_by(OrderItem.product_id)):
                stock = session.get(Stock, item.product_id, with_for_update=True)
                stock.available += item.quantity
            order.status = "cancelled"
            return 402, {"error": "The card was declined"}
        order.status, order.paid_at = "paid", sa.func.now()
        session.commit()
        return bill(order)


play(Shop())
