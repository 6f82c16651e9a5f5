"""Signed messages to the outside about repairs: subscriptions, deliveries and their retries."""
