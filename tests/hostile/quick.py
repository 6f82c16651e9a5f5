"""The services' HTTP, with less patience than a service has, so that tests are quick."""

from __future__ import annotations

from shared.http import protocol


class Http(protocol.Http):
    """Half a second for a head."""

    head_deadline_s = 0.5
