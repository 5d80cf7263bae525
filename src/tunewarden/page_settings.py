"""The settings of what people open in a browser, and of the mail that sends them there."""

from dataclasses import dataclass

from tunewarden.settings import hosts, one_line, origins, setting, web_address
from tunewarden.sso_settings import SsoSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSettings(SsoSettings):
    """A part of `config.Config`, and the next one."""

    docs_are_open: bool = setting(
        "whether `/docs` and `/openapi.json`, which describe this API, can be read without a key",
        default=False,
    )
    cors_origins: str = setting(
        "origins of web pages, separated by commas, whose scripts may call this server from a browser, such as "
        '`https://chat.example`; `*` for any, `none` for none. See "Browsers and HTTP/2"',
        default="none",
        check=origins,
    )
    public_url: str = setting(
        "the address at which people reach this server, such as `https://models.example`: links of invites begin with "
        "it. With `none` they begin with the address that the invite was asked for at, and are not mailed",
        default="none",
        check=web_address,
    )
    console_hosts: str = setting(
        "further names at which people open `/console`, separated by commas, such as `models.example` or "
        "`models.example:8443`. Beside them are allowed: that of `public_url`, and `localhost`, `127.0.0.1`, `[::1]`. "
        "All but these three need TLS. Under any other name nothing is shown, so that a page elsewhere cannot pass a "
        "name of its own off as this server",
        default="none",
        check=hosts,
    )
    smtp_host: str = setting(
        "the mail server that sends invites; `none`: nothing is mailed, hand the links out yourself",
        default="none",
        check=one_line,
    )
    smtp_port: int = setting(
        "its port",
        default=587,
        limits=(1, 65_535),
    )
    smtp_security: str = setting(
        "how the connection to it is encrypted: `starttls`, `tls` from the first byte (port 465), or `none`. Its "
        "certificate must be valid; for an authority of your own set `SSL_CERT_FILE`",
        default="starttls",
        choices=("starttls", "tls", "none"),
    )
    smtp_user: str = setting(
        "the name to log in with; `none`: nobody logs in. The password is in `smtp_password_file`, or in the "
        "environment as `TUNEWARDEN_SMTP_PASSWORD`; it is no setting, so that nothing shows it",
        default="none",
        check=one_line,
    )
    smtp_password_file: str = setting(
        "a file whose first line is the password; `none`: `TUNEWARDEN_SMTP_PASSWORD` has it",
        default="none",
    )
    smtp_sender: str = setting(
        "the address that invites come from",
        default="none",
        check=one_line,
    )
