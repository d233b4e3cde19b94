"""How curl and wget say where they connect to: reviewed data for seeing a second destination behind a rule's star.

Used to doubt a command that a rule allows because of one URL; never to allow anything. An option that is in none of
the tables is read as one without a value, so that what follows counts as a destination: the stricter reading.

Sources: curl(1) 7.88 to 8.11, wget(1) 1.21. Pure data.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["CLIENTS", "Client"]


@dataclass(frozen=True, slots=True)
class Client:
    """The options of one program, as written: ``-x``, ``--proxy``.

    Attributes:
        elsewhere: they name a host to connect to, or a file that does.
        valued: they take a value that names none.
    """

    elsewhere: frozenset[str]
    valued: frozenset[str]


def _options(letters: str, names: str) -> frozenset[str]:
    return frozenset([f"-{letter}" for letter in letters] + [f"--{name}" for name in names.split()])


CLIENTS: Final[dict[str, Client]] = {
    "curl": Client(
        elsewhere=_options(
            "xK",
            "abstract-unix-socket alt-svc config connect-to dns-servers doh-url expand-url ipfs-gateway preproxy proxy"
            " proxy1.0 resolve socks4 socks4a socks5 socks5-hostname unix-socket url",
        ),
        valued=_options(
            "ACDEFHPQTUXYbcdehmortuwyz",
            "aws-sigv4 cacert capath cert cert-type ciphers connect-timeout continue-at cookie cookie-jar"
            " create-file-mode crlfile curves data data-ascii data-binary data-raw data-urlencode delegation"
            " dns-interface dns-ipv4-addr dns-ipv6-addr dump-header ech egd-file engine etag-compare etag-save"
            " expect100-timeout form form-string ftp-account ftp-alternative-to-user ftp-method ftp-port"
            " ftp-ssl-ccc-mode happy-eyeballs-timeout-ms haproxy-clientip header help hostpubmd5 hostpubsha256 hsts"
            " interface ip-tos json keepalive-cnt keepalive-time key key-type krb libcurl limit-rate local-port"
            " login-options mail-auth mail-from mail-rcpt max-filesize max-redirs max-time netrc-file noproxy"
            " oauth2-bearer output output-dir parallel-max pass pinnedpubkey proto proto-default proto-redir"
            " proxy-cacert proxy-capath proxy-cert proxy-cert-type proxy-ciphers proxy-crlfile proxy-header proxy-key"
            " proxy-key-type proxy-pass proxy-pinnedpubkey proxy-service-name proxy-tls13-ciphers proxy-tlsauthtype"
            " proxy-tlspassword proxy-tlsuser proxy-user pubkey quote random-file range rate referer request"
            " request-target retry retry-delay retry-max-time sasl-authzid service-name socks5-gssapi-service"
            " speed-limit speed-time stderr telnet-option tftp-blksize time-cond tls-max tls13-ciphers tlsauthtype"
            " tlspassword tlsuser trace trace-ascii trace-config upload-file url-query user user-agent variable"
            " vlan-priority write-out",
        ),
    ),
    "wget": Client(
        elsewhere=_options("eiB", "base config execute input-file input-metalink use-askpass"),
        valued=_options(
            "ADIOPQRTUXaltwo",
            "accept accept-regex append-output backups bind-address body-data body-file ca-certificate ca-directory"
            " certificate certificate-type ciphers compression connect-timeout crl-file cut-dirs default-page"
            " directory-prefix dns-timeout domains exclude-directories exclude-domains follow-tags ftp-password"
            " ftp-user header http-password http-user ignore-tags include-directories level limit-rate load-cookies"
            " local-encoding method output-document output-file password pinnedpubkey post-data post-file"
            " prefer-family private-key private-key-type progress proxy-password proxy-user quota read-timeout"
            " referer regex-type reject reject-regex rejected-log remote-encoding report-speed restrict-file-names"
            " retry-on-http-error save-cookies secure-protocol start-pos timeout tries user user-agent wait waitretry"
            " warc-dedup warc-file warc-header warc-max-size warc-tempdir",
        ),
    ),
}
