"""`python -m local.sample_api` runs the sample API until it is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from local.sample_api.server import running
from local.sample_api.settings import Settings
from shared.observability import logs

log = logs.get(__name__)


async def _serve(settings: Settings) -> None:
    async with running(settings) as api:
        log.info("sample_api_ready", url=api.url)
        await asyncio.wait({api.stopped})


def main() -> None:
    """Run the sample API."""
    logs.set_up("sample_api")
    settings = Settings()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(settings))
    except OSError as error:
        sys.exit(f"The sample API cannot listen on SAMPLE_API_PORT {settings.port}: {error}")


if __name__ == "__main__":
    main()
