"""Web pages for tasks: the policy is asked about each URL, a confined worker fetches, a long page is saved whole.

Knows rules and bounds; knows no HTTP. Runs in the runner.
"""

from datetime import datetime
from functools import partial
from typing import Final

import msgspec

from guardhouse.policy import Context, Policy, decide_operation
from guardhouse.runner.bounds import FetchBounds
from guardhouse.runner.files import FilesService
from guardhouse.runner.passage import Passage
from guardhouse.wire.operations import WebfetchArgs, WebfetchResult
from guardhouse.worker.fetch_client import FetchClient, UrlGrant
from guardhouse.worker.fetch_url import parse_fetch_url, rule_names_port

__all__ = ["WebService"]

_DEFAULT_BOUNDS: Final = FetchBounds()


class WebService:
    """Fetches pages under one policy. A policy without `webfetch` rules leaves every public address open."""

    def __init__(
        self,
        policy: Policy,
        *,
        client: FetchClient,
        files: FilesService,
        bounds: FetchBounds = _DEFAULT_BOUNDS,
        environment: frozenset[str] | None = None,
    ) -> None:
        """``bounds`` are the operator's: private networks that may be reached, longest time, largest page.

        ``environment``: this host's tags, for rules with conditions.
        """
        self._policy = policy
        self._client = client
        self._files = files
        self._bounds = bounds
        self._environment = environment

    async def fetch(self, args: WebfetchArgs, passage: Passage | None = None) -> WebfetchResult:
        """Return the page as text, bounded for one message.

        Args:
            passage: whom a rule may ask, and what is written down; without one nobody can be asked.

        Raises:
            FetchRefused: there is no page; ``code`` says why.
            OperationDenied: a rule says no, of the URL asked for or of one it redirects to.
            NeedsApproval: a rule asks, and ``passage`` holds no answer; try again when it does. What was fetched on the
                way is fetched again: people's time is not the page's.
        """
        passage = Passage() if passage is None else passage
        if args.timeout_s > self._bounds.timeout_s:
            args = msgspec.structs.replace(args, timeout=self._bounds.timeout_s)
        page = await self._client.fetch(args, partial(self.grant, passage=passage))
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

    def grant(self, url: str, *, passage: Passage) -> UrlGrant:
        """Return what policy and operator grant for one URL.

        Raises:
            FetchRefused: it is no URL.
            OperationDenied: a rule says no.
            NeedsApproval: a rule asks, and ``passage`` holds no answer.
        """
        context = Context(now=datetime.now().astimezone(), requester=passage.requester, environment=self._environment)
        decision = decide_operation(self._policy, "webfetch", url, context=context)
        passage.check([decision])
        port = parse_fetch_url(url).port
        return UrlGrant(
            any_port=decision.rule is not None and rule_names_port(decision.rule.match, port),
            networks=self._bounds.networks,
            max_bytes=self._bounds.max_bytes,
        )
