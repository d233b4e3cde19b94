"""The upgrade of a runner's connection: its token is judged before the WebSocket exists.

A refusal is an HTTP status with the hub's one shape of error, never an accepted and then closed WebSocket. The token
comes in the Authorization header, or as the plain protocol has it in the query; neither is ever logged.
Runs in the hub.
"""

from typing import TYPE_CHECKING, Final

import structlog
from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from guardhouse import __version__, limits
from guardhouse.errors import GuardhouseError, InvariantError
from guardhouse.hub.api.door import bearer_token, error_response
from guardhouse.hub.api.errors import ApiError, as_api_error
from guardhouse.hub.authorize import AuthenticationFailed
from guardhouse.hub.clock import now_ms
from guardhouse.hub.credentials import token_digest
from guardhouse.hub.forwarded import client_address
from guardhouse.hub.gateway.keys import host_of, is_signed_by
from guardhouse.hub.gateway.link import RunnerLink
from guardhouse.hub.gateway.links import AlreadyConnected
from guardhouse.hub.store.environments import EnvironmentRecord
from guardhouse.wire import SUBPROTOCOL
from guardhouse.wire.messages import Welcome
from guardhouse.wire.proof import SCHEME, KeyProof, parse_proof
from guardhouse.wire.session import HubSession

if TYPE_CHECKING:
    from guardhouse.hub.services import Services

__all__ = ["GATEWAY_PATHS", "RunnerGateway"]

_log = structlog.get_logger("guardhouse.hub.gateway")

# Ours, and the two that the seed's runner dials (WIRE_PROTOCOL "Transport").
GATEWAY_PATHS: Final = ("/api/v1/runner/ws", "/safari/worknode/ws", "/safari/environment/ws")


class RunnerGateway:
    """Serves the gateway paths."""

    def __init__(self, services: "Services") -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one upgrade and the connection after it (ASGI)."""
        websocket = WebSocket(scope, receive, send)
        await websocket.receive()
        address = client_address(
            websocket.client.host if websocket.client else None,
            websocket.headers.getlist("x-forwarded-for"),
            self._services.config.trusted_proxies,
        )
        try:
            with self._services.admission.upgrading():
                environment, credential = await self._admit(websocket, address)
            if scope["state"]["probe"].is_gone:
                # Else it would be online, and be given tasks, until somebody read that it is not.
                _log.info("runner_gone_before_welcome", remote_address=address)
                return
            subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", []) else None
            link = self._link(websocket, environment, subprotocol, address, credential=credential)
            self._services.links.claim(environment.id, link)
        except GuardhouseError as error:
            if isinstance(error, InvariantError):
                raise
            refusal = _refusal(error)
            if refusal.status == 503 and refusal.retry_after_s is None:
                refusal.retry_after_s = self._services.admission.retry_after_s()
            if isinstance(error, _ChallengeNeeded):
                answer = error_response(refusal)
                answer.headers["www-authenticate"] = f'{SCHEME} challenge="{error.challenge}"'
                await websocket.send_denial_response(answer)
                return
            _log.warning("runner_refused", remote_address=address, status=refusal.status, reason=str(error))
            self._services.links.presence_log.note_refused(
                environment=error.environment_id if isinstance(error, AlreadyConnected) else None,
                address=address,
                status=refusal.status,
                code=refusal.body.error.code,
                reason=str(error),
            )
            await websocket.send_denial_response(error_response(refusal))
            return
        try:
            await websocket.accept(subprotocol=subprotocol)
            await link.run()
        except WebSocketDisconnect:
            _log.info("runner_gone_before_welcome", remote_address=address)
        finally:
            self._services.links.release(environment.id, link)

    async def _admit(self, websocket: WebSocket, address: str | None) -> tuple[EnvironmentRecord, bytes | None]:
        """Return the environment that the token opens, and the token's digest; None where a key did.

        Raises:
            AuthenticationFailed: no valid token.
            TooManyGuesses: too many wrong ones came from there.
            AlreadyConnected: its runner is here already.
            ApiError: 503, the hub is stopping.
            StoreUnavailable: who it is cannot be read now.
        """
        services = self._services
        if services.is_stopping:
            raise ApiError(
                503,
                "stopping",
                "the hub is shutting down",
                hint="reconnect in a moment",
                retryable=True,
                retry_after_s=services.admission.retry_after_s(),
            )
        proof = _key_proof(websocket.headers)
        if proof is not None:
            environment_id, credential = self._admit_key(proof, address), None
        else:
            token = services.credentials.runner(
                runner_token(websocket.headers, websocket.query_params),
                now_ms=now_ms(),
                address=address,
            )
            environment_id, credential = token.environment_id, token.digest
        environment = await services.admission.read(environment_id)
        if environment is None:
            raise AuthenticationFailed("runner token unknown, expired or revoked")
        await services.links.check_free(environment.id, address=address)
        return environment, credential

    def _admit_key(self, proof: KeyProof, address: str | None) -> str:
        """Return the environment whose key signed.

        Raises:
            _ChallengeNeeded: there is nothing signed yet, or the challenge is over.
            AuthenticationFailed: the signature is not of one of the environment's keys, for this hub.
            TooManyGuesses: too many wrong ones came from there.
        """
        services, at_ms = self._services, now_ms()
        environment_id = proof.environment_id
        is_open = proof.challenge is not None and services.challenges.is_open(
            proof.challenge, environment_id, now_ms=at_ms
        )
        if proof.challenge is None or not is_open:
            raise _ChallengeNeeded(services.challenges.make(environment_id, now_ms=at_ms))
        guess = token_digest(environment_id)
        source = services.credentials.check_may_guess(guess, address=address)
        keys = services.credentials.runner_keys(environment_id, now_ms=at_ms)
        is_right = is_signed_by(keys, proof, host=host_of(services.public_url))
        services.credentials.note_guess(source, guess, right=is_right)
        if not is_right:
            raise AuthenticationFailed(
                f"no key of this environment signed for {host_of(services.public_url)!r}: was it rotated away, or does"
                " the runner dial another name than the hub's --public-url?"
            )
        services.challenges.use(proof.challenge, now_ms=at_ms)
        return environment_id

    def _link(
        self,
        websocket: WebSocket,
        environment: EnvironmentRecord,
        subprotocol: str | None,
        address: str | None,
        *,
        credential: bytes | None,
    ) -> RunnerLink:
        services = self._services
        welcome = Welcome(
            worknode_id=environment.id,
            name=environment.name or "",
            labels=environment.tags,
            output_window_bytes=limits.OUTPUT_WINDOW_BYTES,
            hub_version=__version__,
        )
        probe = websocket.scope["state"]["probe"]
        return RunnerLink(
            websocket=websocket,
            probe=probe,
            session=HubSession(welcome=welcome, subprotocol=subprotocol, now_s=probe.last_heard_s),
            environment=environment,
            database=services.database,
            board=services.board,
            desk=services.desk,
            links=services.links,
            remote_address=address,
            credential=credential,
        )


class _ChallengeNeeded(AuthenticationFailed):
    """A runner with a key has not signed yet what this hub wants signed."""

    def __init__(self, challenge: str) -> None:
        super().__init__("sign the challenge in WWW-Authenticate with the machine's key")
        self.challenge = challenge


def _key_proof(headers: Headers) -> KeyProof | None:
    """Return the proof of a runner's key, None where it comes with a token.

    Raises:
        AuthenticationFailed: it is not written as it should be.
    """
    sent = headers.getlist("authorization")
    scheme, _, rest = (sent[0] if len(sent) == 1 else "").partition(" ")
    if scheme.lower() != SCHEME.lower():
        return None
    proof = parse_proof(rest)
    if proof is None:
        raise AuthenticationFailed("the proof of the runner's key is not written as docs/wire_protocol.md says")
    return proof


def runner_token(headers: Headers, query: QueryParams) -> str:
    """Return the token of the header, or of the query's ``token``.

    Raises:
        AuthenticationFailed: none, several, or two that differ.
    """
    in_query = query.getlist("token")
    in_header = [bearer_token(headers)] if "authorization" in headers else []
    found = set(in_query + in_header)
    if len(found) != 1 or len(in_query) > 1:
        raise AuthenticationFailed(
            "a runner sends its token (wnt_…) once: as 'Authorization: Bearer' or as the query parameter 'token'"
        )
    return found.pop()


def _refusal(error: GuardhouseError) -> ApiError:
    if isinstance(error, AlreadyConnected):
        return ApiError(409, "already_connected", str(error), hint="one runner an environment", retryable=True)
    if isinstance(error, AuthenticationFailed):
        return ApiError(
            401, "authentication_failed", str(error), hint="compare it with 'guardhouse env token ENVIRONMENT'"
        )
    return as_api_error(error)
