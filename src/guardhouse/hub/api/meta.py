"""Routes that are about the hub itself: health, readiness, the OpenAPI document, the page for people.

Runs in the hub.
"""

from html import escape

import msgspec

from guardhouse import __version__
from guardhouse.hub.api import schemas_meta
from guardhouse.hub.api.door import Call, Reply

__all__ = ["show_health", "show_landing", "show_readiness"]

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Guardhouse hub</title></head>
<body>
<main>
<h1>Guardhouse hub</h1>
<p>Version {version}. This hub gives commands to runners on your hosts, each checked by a policy and confined by a
sandbox, and keeps what they answered.</p>
<ul>
<li>The API: <a href="api/v1/openapi.json">OpenAPI 3.1 document</a>, at <code>{url}/api/v1</code>, with
<code>Authorization: Bearer ght_…</code>.</li>
<li>From a terminal: <code>guardhouse --help</code>; set <code>GUARDHOUSE_HUB_URL={url}</code> and
<code>GUARDHOUSE_API_TOKEN_FILE</code>.</li>
<li>A runner dials <code>{connect_url}</code> with its environment's token.</li>
<li>For probes: <a href="healthz">/healthz</a> and <a href="readyz">/readyz</a>.</li>
</ul>
</main>
</body>
</html>
"""


async def show_health(call: Call) -> Reply:
    """Answer that the process runs."""
    del call
    return Reply(schemas_meta.Health(status="ok", version=__version__))


async def show_readiness(call: Call) -> Reply:
    """Answer whether the store can be read and written, and the hub goes on."""
    services = call.services
    reason = "the hub is shutting down" if services.is_stopping else await services.readiness.reason()
    body = schemas_meta.Readiness(status="not_ready" if reason else "ready", reason=reason)
    return Reply(body, status=503 if reason else 200)


async def show_landing(call: Call) -> Reply:
    """Answer the page for people who opened the address in a browser."""
    services = call.services
    page = _PAGE.format(
        version=escape(__version__), url=escape(services.public_url), connect_url=escape(services.connect_url)
    )
    return Reply(page.encode(), media_type="text/html; charset=utf-8")


def document_reply(document: dict[str, object]) -> Reply:
    """Return the OpenAPI document as a reply."""
    return Reply(msgspec.json.encode(document))
