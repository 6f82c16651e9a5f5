"""detect-secrets plugins for secrets of AAM and of the systems it is used with."""

from __future__ import annotations

import re

from detect_secrets.plugins.base import RegexBasedDetector


class SalesforceRefreshToken(RegexBasedDetector):
    """A connected app's refresh token, valid until it is revoked."""

    secret_type = "Salesforce refresh token"
    denylist = (re.compile(r"\b5Aep861[A-Za-z0-9._]{40,}"),)


class SalesforceConsumerKey(RegexBasedDetector):
    """A connected app's client id; the examples in the documentation are too short to match."""

    secret_type = "Salesforce consumer key"
    denylist = (re.compile(r"\b3MVG9[A-Za-z0-9._]{40,}"),)


class SalesforceSession(RegexBasedDetector):
    """An access token: the org's id, an exclamation mark, and the rest."""

    secret_type = "Salesforce session"
    denylist = (re.compile(r"\b00D[A-Za-z0-9]{12}(?:[A-Za-z0-9]{3})?![A-Za-z0-9._]{40,}"),)


class AamKey(RegexBasedDetector):
    """An AAM API key."""

    secret_type = "AAM key"
    denylist = (re.compile(r"\baam_[a-z0-9]+_[A-Za-z0-9]{8}_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"),)


class WebhookSecret(RegexBasedDetector):
    """The key that signs a webhook's messages."""

    secret_type = "Webhook secret"
    denylist = (re.compile(r"\bwhsec_[A-Za-z0-9+/]{32,}={0,2}"),)


class VaultToken(RegexBasedDetector):
    """A token of HashiCorp Vault or OpenBao."""

    secret_type = "Vault token"
    denylist = (
        re.compile(r"\bhv[sbr]\.[A-Za-z0-9_-]{24,}"),
        re.compile(r"\b[sbr]\.(?=[A-Za-z]*\d)[A-Za-z0-9]{24}\b"),
    )


class SupabaseToken(RegexBasedDetector):
    """A Supabase access token or secret key."""

    secret_type = "Supabase token"
    denylist = (re.compile(r"\bsb(?:p_[0-9a-f]{40}|_secret_[A-Za-z0-9_-]{20,})"),)
