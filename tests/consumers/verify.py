"""Verifies a webhook as Stripe's documentation tells a user to, with Stripe's own library.

Usage: verify.py BODY_FILE SIGNATURE_HEADER SECRET
Prints `ok`, the event's id and its description, or the name of the exception.
"""

import sys

import stripe

path, header, secret = sys.argv[1:]
with open(path, "rb") as file:
    body = file.read()
try:
    event = stripe.Webhook.construct_event(body, header, secret)
except Exception as error:
    print(type(error).__name__)
else:
    print("ok", event.id, ascii(event.data.object.description))
