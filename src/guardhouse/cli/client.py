"""The hub's REST interface from the command line: where the hub is, who asks, and what went wrong in plain words.

Settings come from flags, then the environment, then ``client.toml``. Knows no command. Runs in the `guardhouse`
command of whoever operates the hub.
"""

import functools
import ipaddress
import json
import os
import ssl
import stat
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import urlsplit

import click
import httpx2

from guardhouse import __version__
from guardhouse.cli.exit_codes import ExitCode
from guardhouse.cli.logins import Login, LoginsUnusable, config_directory, read_logins
from guardhouse.errors import GuardhouseError

__all__ = ["ClientError", "HubClient", "HubUnreachable", "decode_reply", "hub_options", "print_json"]

P = ParamSpec("P")
R = TypeVar("R")

CONNECT_TIMEOUT_S: Final = 10.0
# Longer than the hub's own keep-alive lines (15 s) and than the longest wait that one request may ask for (120 s).
READ_TIMEOUT_S: Final = 150.0
TOKEN_MAX_BYTES: Final = 4_096


class ClientError(GuardhouseError):
    """Something to tell the person, with the exit status that scripts see. ``code`` is the hub's word for it."""

    def __init__(self, message: str, *, exit_code: ExitCode, code: str = "", is_retryable: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.code = code
        self.is_retryable = is_retryable


class HubUnreachable(ClientError):  # noqa: N818 - a state of the network, told as it is
    """No answer came, or it broke off; asking again may help."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=ExitCode.UNAVAILABLE, code="unreachable")


@dataclass(frozen=True)
class Settings:
    """Where the hub is and who asks. The token is not in its repr."""

    url: str
    token: str
    ca_file: Path | None

    def __repr__(self) -> str:
        return f"Settings(url={self.url!r}, ca_file={self.ca_file!r}, token=…)"


def _usage(message: str) -> ClientError:
    return ClientError(message, exit_code=ExitCode.USAGE)


def _config_file(environ: Mapping[str, str]) -> Path | None:
    directory = config_directory(environ)
    path = directory / "client.toml" if directory is not None else None
    return path if path is not None and path.is_file() else None


def _from_file(environ: Mapping[str, str], context: str | None) -> dict[str, str]:
    path = _config_file(environ)
    if path is None:
        return {}
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _usage(f"cannot read {str(path)!r}: {error}") from error
    found: Any = document
    if context:
        found = document.get("contexts", {}).get(context)
        if not isinstance(found, dict):
            return {}
    values = {key: found[key] for key in ("hub_url", "token_file", "ca_file") if key in found}
    for key, value in values.items():
        if not isinstance(value, str):
            raise _usage(f"{str(path)!r}: {key} must be a text")
    return values


def _read_token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(TOKEN_MAX_BYTES)
    except OSError as error:
        raise ClientError(
            f"cannot read the API token file {str(path)!r}: {error.strerror}", exit_code=ExitCode.NOT_AUTHORIZED
        ) from error
    if mode & 0o007:
        raise ClientError(
            f"the API token file {str(path)!r} has mode {mode:04o}: anybody here could use it; run: chmod 600 {path}",
            exit_code=ExitCode.NOT_AUTHORIZED,
        )
    return content.decode("ascii", "replace").strip()


def find_settings(
    *,
    hub: str | None,
    token_file: str | None,
    ca_file: str | None,
    context: str | None,
    environ: Mapping[str, str],
) -> Settings:
    """Return where the hub is and the token: a flag beats the environment, which beats ``client.toml``, then the login.

    A login's token goes to the hub that it was made for, and to no other.

    Raises:
        ClientError: no hub or token is known, a file cannot be read, or the token would travel unprotected.
    """
    context = context or environ.get("GUARDHOUSE_CONTEXT")
    file = _from_file(environ, context)
    given = (hub or environ.get("GUARDHOUSE_HUB_URL") or file.get("hub_url") or "").rstrip("/")
    has_token = bool(token_file or environ.get("GUARDHOUSE_API_TOKEN") or environ.get("GUARDHOUSE_API_TOKEN_FILE"))
    login = None
    if not given or not (has_token or file.get("token_file")):
        login = _find_login(environ, None if file else context, given or None)
    if context and not file and login is None:
        raise _usage(f"--context {context!r} is neither in client.toml nor a login ('guardhouse context list')")
    url = given or (login.hub_url if login is not None else "")
    if not url:
        raise _usage(
            "no hub is known: run 'guardhouse login --hub URL', give --hub URL, or write client.toml (docs/hub.md)"
        )
    check_url(url)
    ca = ca_file or environ.get("GUARDHOUSE_CA_FILE") or file.get("ca_file") or (login.ca_file if login else None)
    if login is not None and not (has_token or file.get("token_file")):
        return Settings(url, _login_token(login), Path(ca).expanduser() if ca else None)
    if token_file is None and environ.get("GUARDHOUSE_API_TOKEN"):
        token = environ["GUARDHOUSE_API_TOKEN"].strip()
    else:
        chosen = token_file or environ.get("GUARDHOUSE_API_TOKEN_FILE") or file.get("token_file")
        if not chosen:
            raise ClientError(
                f"no API token is known: run 'guardhouse login --hub {url}', give --token-file, or set"
                " GUARDHOUSE_API_TOKEN_FILE or GUARDHOUSE_API_TOKEN",
                exit_code=ExitCode.NOT_AUTHORIZED,
            )
        token = _read_token(Path(chosen).expanduser())
    if not token.startswith("ght_") or not token.isascii() or not token.isprintable() or " " in token:
        what = "a runner token (wnt_…)" if token.startswith("wnt_") else "no API token"
        raise ClientError(
            f"what was given as the API token is {what}; API tokens start with ght_ ('guardhouse token create')",
            exit_code=ExitCode.NOT_AUTHORIZED,
        )
    return Settings(url, token, Path(ca).expanduser() if ca else None)


def _find_login(environ: Mapping[str, str], context: str | None, url: str | None) -> Login | None:
    try:
        found = read_logins(environ).find(context, url)
    except LoginsUnusable as error:
        raise ClientError(str(error), exit_code=ExitCode.NOT_AUTHORIZED) from error
    return found[1] if found is not None else None


def _login_token(login: Login) -> str:
    if datetime.fromisoformat(login.expires_at) <= datetime.now(UTC):
        raise ClientError(
            f"the login at {login.hub_url} ended at {login.expires_at}; run 'guardhouse login --hub {login.hub_url}'",
            exit_code=ExitCode.NOT_AUTHORIZED,
        )
    return login.token


def check_url(url: str) -> None:
    """Refuse an address that is no hub's, or that a secret must not be sent to.

    Raises:
        ClientError: it is one.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL) as error:
        raise _usage(f"the hub's address {url!r} is no URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not host or parts.username or parts.query or parts.fragment:
        raise _usage(f"the hub's address {url!r} is not like https://hub.example.com:8443")
    if parts.scheme == "http" and not _is_loopback(host):
        raise _usage(f"refusing to send a token to {url!r} without TLS; use https://, or a loopback address")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise _usage(f"cannot use the CA file {str(ca_file)!r}: {error}; it must be PEM") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class HubClient:
    """A connection to one hub. Use it in a ``with`` block."""

    def __init__(self, settings: Settings) -> None:
        self.url = settings.url
        self._headers = {
            "user-agent": f"guardhouse/{__version__}",
            **({"authorization": f"Bearer {settings.token}"} if settings.token else {}),
        }
        self._verify = _tls_context(settings.ca_file) if settings.url.startswith("https:") else True
        self._http = httpx2.Client(
            base_url=settings.url,
            headers=self._headers,
            verify=self._verify,
            timeout=httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            follow_redirects=False,
        )

    def __enter__(self) -> "HubClient":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.close()

    def open_async(self, timeout: httpx2.Timeout) -> httpx2.AsyncClient:
        """Return a client for the same hub with the same token, for a library that asks by itself."""
        return httpx2.AsyncClient(headers=self._headers, verify=self._verify, timeout=timeout)

    def request(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> dict[str, Any]:
        """Return the hub's answer to one request; an empty dictionary for an answer without a body.

        Raises:
            HubUnreachable: no answer.
            ClientError: the hub refused; its words, with the exit status they mean.
        """
        with self._explained():
            reply = self._http.request(method, path, params=_parameters(query), json=body)
        if reply.is_success:
            return _decode(reply.content)
        raise _refusal(reply.status_code, reply.content)

    @contextmanager
    def open_stream(
        self, method: str, path: str, *, query: Mapping[str, Any], content: Iterator[bytes] | None = None
    ) -> Iterator[httpx2.Response]:
        """Yield the hub's answer to one request, its body not read yet; ``content`` is sent as it comes.

        Raises:
            HubUnreachable: no answer, or it broke off while it was read.
            ClientError: the hub refused.
        """
        with self._explained(), self._http.stream(method, path, params=_parameters(query), content=content) as reply:
            if not reply.is_success:
                raise _refusal(reply.status_code, reply.read())
            yield reply

    def lines(self, path: str, *, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the objects of a stream of JSON lines.

        Raises:
            HubUnreachable: no answer, or it broke off.
            ClientError: the hub refused.
        """
        with self._explained(), self._http.stream("GET", path, params=_parameters(query)) as reply:
            if not reply.is_success:
                raise _refusal(reply.status_code, reply.read())
            for line in reply.iter_lines():
                if line:
                    yield _decode(line.encode())

    def chunks(self, path: str, *, query: Mapping[str, Any]) -> Iterator[bytes]:
        """Yield an answer's bytes as they come; errors as `lines`."""
        with self._explained(), self._http.stream("GET", path, params=_parameters(query)) as reply:
            if not reply.is_success:
                raise _refusal(reply.status_code, reply.read())
            yield from reply.iter_bytes()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error
        except httpx2.InvalidURL as error:
            raise _usage(f"{self.url!r} cannot be asked: {error}") from error

    def _unreachable(self, error: httpx2.TransportError) -> ClientError:
        text = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in text:
            why = text.partition("CERTIFICATE_VERIFY_FAILED]")[2].partition("(_ssl")[0].strip(" :")
            return ClientError(
                f"the certificate of {self.url} is not trusted: {why};"
                " give the CA that signed it with --ca-file, or check that the address is the hub's",
                exit_code=ExitCode.UNAVAILABLE,
                code="bad_certificate",
            )
        if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text:
            text = "it does not speak TLS; is it http:// on a loopback address?"
        return HubUnreachable(f"hub {self.url} does not answer: {text}")


def _parameters(query: Mapping[str, Any] | None) -> dict[str, str]:
    found = {}
    for key, value in (query or {}).items():
        if value is not None:
            found[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def decode_reply(content: bytes) -> dict[str, Any]:
    """Return the object in an answer's body.

    Raises:
        HubUnreachable: there is none, so it is no answer of a hub.
    """
    return _decode(content)


def _decode(content: bytes) -> dict[str, Any]:
    if not content:
        return {}
    try:
        value = json.loads(content)
    except ValueError as error:
        raise HubUnreachable(f"the answer is no JSON ({error}); is this address a guardhouse hub?") from error
    if not isinstance(value, dict):
        raise HubUnreachable("the answer is no JSON object; is this address a guardhouse hub?")
    return value


_EXIT_OF_STATUS: Final = {
    401: ExitCode.NOT_AUTHORIZED,
    403: ExitCode.NOT_AUTHORIZED,
    404: ExitCode.NOT_FOUND,
    429: ExitCode.UNAVAILABLE,
    502: ExitCode.UNAVAILABLE,
    503: ExitCode.UNAVAILABLE,
    504: ExitCode.UNAVAILABLE,
}


def _refusal(status: int, content: bytes) -> ClientError:
    try:
        error = json.loads(content)["error"]
        message, hint, code = str(error["message"]), str(error["hint"]), str(error["code"])
        is_retryable = error["retryable"] is True
    except (ValueError, KeyError, TypeError):
        message, hint, code, is_retryable = f"status {status}", "is this address a guardhouse hub?", "", False
    exit_code = _EXIT_OF_STATUS.get(status, ExitCode.FAILED)
    if code in {"environment_unavailable", "session_environment_gone"}:
        exit_code = ExitCode.UNAVAILABLE
    text = f"{message}; {hint}" if hint else message
    return ClientError(text, exit_code=exit_code, code=code, is_retryable=is_retryable)


def hub_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--hub``, ``--token-file``, ``--ca-file`` and ``--context``, and an open `HubClient` first.

    Errors of the hub end in one line on stderr and the exit status that they carry.
    """

    @functools.wraps(command)
    def wrapper(
        *args: Any,
        hub: str | None,
        token_file: str | None,
        ca_file: str | None,
        context: str | None,
        **kwargs: Any,
    ) -> Any:
        try:
            settings = find_settings(
                hub=hub, token_file=token_file, ca_file=ca_file, context=context, environ=os.environ
            )
            with HubClient(settings) as client:
                return command(client, *args, **kwargs)
        except ClientError as error:
            click.echo(f"guardhouse: {error}", err=True)
            sys.exit(error.exit_code)

    for option in (
        click.option("--context", metavar="NAME", help="A login, or a section of client.toml. [GUARDHOUSE_CONTEXT]"),
        click.option("--ca-file", metavar="FILE", help="CA that signed the hub's certificate. [GUARDHOUSE_CA_FILE]"),
        click.option(
            "--token-file",
            metavar="FILE",
            help="File with the API token. [GUARDHOUSE_API_TOKEN_FILE, GUARDHOUSE_API_TOKEN]",
        ),
        click.option("--hub", metavar="URL", help="Address of the hub. [GUARDHOUSE_HUB_URL]"),
    ):
        wrapper = option(wrapper)
    return wrapper


def print_json(value: Any) -> None:
    """Print one JSON value on one line."""
    click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
