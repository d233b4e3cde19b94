"""A hub in a process of its own, for tests that kill it: prints its address and serves until killed."""

import sys
from pathlib import Path

import trio

from guardhouse.hub.config import HubConfig
from guardhouse.hub.logs import configure_logs
from guardhouse.hub.server import open_hub


async def _main() -> None:
    async with open_hub(HubConfig(state_dir=Path(sys.argv[1]), port=0)) as hub:
        sys.stdout.write(f"{hub.url}\n")
        sys.stdout.flush()
        await trio.sleep_forever()


if __name__ == "__main__":
    configure_logs(level="warning", log_format="text")
    trio.run(_main)
