"""A scriptable Airbyte server on loopback HTTP, so that tests use the real client.

It emulates the Configuration API of 0.63.19 (unpaged lists, synchronous discover, stack traces in
errors) and of 1.7 and later (commands, pages of 20, `{"errorId"}` errors since 2.0), each with its
authentication. State is in plain attributes; methods script the failures. It runs no connectors: a
source offers the catalog that the test sets.
"""

from local.airbyte.api.defaults import ORGANIZATION_ID
from tests.fakes.airbyte_server._backend import Auth
from tests.fakes.airbyte_server._catalogs import DEFAULT_CATALOG, catalog, stream
from tests.fakes.airbyte_server._definitions import (
    HARDCODED_RECORDS,
    POSTGRES,
    SALESFORCE,
    WIDGETS,
    WORKSPACE_ID,
)
from tests.fakes.airbyte_server._faults import Fault
from tests.fakes.airbyte_server._gateways import GATEWAYS
from tests.fakes.airbyte_server._server import AirbyteServer, Request

__all__ = [
    "DEFAULT_CATALOG",
    "GATEWAYS",
    "HARDCODED_RECORDS",
    "ORGANIZATION_ID",
    "POSTGRES",
    "SALESFORCE",
    "WIDGETS",
    "WORKSPACE_ID",
    "AirbyteServer",
    "Auth",
    "Fault",
    "Request",
    "catalog",
    "stream",
]
