"""Webhooks: signed messages about repairs, their subscriptions, deliveries and retries."""
