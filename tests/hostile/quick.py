"""The services' HTTP, with less patience than a service has, so that tests are quick."""

from __future__ import annotations

from shared import http_protocol


class Http(http_protocol.Http):
    """Half a second for a head."""

    head_deadline_s = 0.5
