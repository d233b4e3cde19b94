"""Web pages for tasks: the policy is asked about each URL, a confined worker fetches, a long page is saved whole.

Knows rules and bounds; knows no HTTP. Runs in the runner.
"""

from datetime import datetime
from typing import Final

import msgspec

from guardhouse.policy import Context, Policy, decide_operation
from guardhouse.runner.bounds import FetchBounds
from guardhouse.runner.files import FilesService
from guardhouse.values import Verdict
from guardhouse.wire.operations import WebfetchArgs, WebfetchResult
from guardhouse.worker.fetch_client import FetchClient, UrlGrant
from guardhouse.worker.fetch_url import parse_fetch_url, rule_names_port

__all__ = ["WebService"]

_DEFAULT_BOUNDS: Final = FetchBounds()


class WebService:
    """Fetches pages under one policy. A policy without `webfetch` rules leaves every public address open."""

    def __init__(
        self, policy: Policy, *, client: FetchClient, files: FilesService, bounds: FetchBounds = _DEFAULT_BOUNDS
    ) -> None:
        """``bounds`` are the operator's: private networks that may be reached, longest time, largest page."""
        self._policy = policy
        self._client = client
        self._files = files
        self._bounds = bounds

    async def fetch(self, args: WebfetchArgs) -> WebfetchResult:
        """Return the page as text, bounded for one message.

        Raises:
            FetchRefused: there is no page; ``code`` says why.
            OperationDenied: a rule says no, of the URL asked for or of one it redirects to.
        """
        if args.timeout_s > self._bounds.timeout_s:
            args = msgspec.structs.replace(args, timeout=self._bounds.timeout_s)
        page = await self._client.fetch(args, self.grant)
        bounded = await self._files.bound(page.content.decode("utf-8", "replace"), operation="webfetch")
        return WebfetchResult(
            content=bounded.text,
            url=page.url,
            truncated=bounded.truncated,
            file_path=bounded.file_path,
            total_size=bounded.total_size,
            status=page.status,
            notes=page.notes,
        )

    async def aclose(self) -> None:
        """End the idle workers."""
        await self._client.aclose()

    def grant(self, url: str) -> UrlGrant:
        """Return what policy and operator grant for one URL.

        Raises:
            FetchRefused: it is no URL.
            OperationDenied: a rule says no.
        """
        decision = decide_operation(self._policy, "webfetch", url, context=Context(now=datetime.now().astimezone()))
        if decision.verdict is not Verdict.ALLOW:
            raise decision.refusal()
        port = parse_fetch_url(url).port
        return UrlGrant(
            any_port=decision.rule is not None and rule_names_port(decision.rule.match, port),
            networks=self._bounds.networks,
            max_bytes=self._bounds.max_bytes,
        )
