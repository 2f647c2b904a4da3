"""Prints every Stripe event once. Run as many as you like: DATABASE_URL=… python worker.py"""
import os
import signal

import psycopg
from psycopg.rows import namedtuple_row

running = True


def stop(*_):
    global running
    running = False


def handle(db, event):
    """The work; json.loads(event.body) has all of it. What it writes over `db` commits with the ack: exactly once."""
    if event.type == os.environ.get("FAIL_TYPE"):
        raise RuntimeError("told to fail")  # to watch what becomes of an event that fails
    print(event.position, event.event_id, event.type, flush=True)


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, row_factory=namedtuple_row) as db:
    db.execute("SELECT tollgate.create_consumer('python', start => 'earliest', if_not_exists => true)")
    db.execute("LISTEN tollgate_events")
    while running:
        # The body as text: one that Python cannot parse fails in `handle`, and not with all of its batch.
        batch = db.execute("SELECT claim, position, event_id, type, payload::text AS body FROM tollgate.claim('python', 100)").fetchall()
        if not batch:  # a notification is only a hint: retries come without one
            list(db.notifies(timeout=1, stop_after=1))
        for event in batch:
            try:
                with db.transaction():
                    handle(db, event)
                    db.execute("SELECT tollgate.ack(%s, %s::bigint[])", [event.claim, [event.position]])
            except Exception as error:
                db.execute("SELECT tollgate.nack(%s, %s, %s)", [event.claim, event.position, str(error)])
