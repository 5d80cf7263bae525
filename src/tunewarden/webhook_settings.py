"""The settings of webhooks: where the server may send events."""

from dataclasses import dataclass
from functools import partial

from tunewarden.deletion_settings import DeletionSettings
from tunewarden.settings import networks, setting

ALLOWED = "webhook_allowed_networks"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings(DeletionSettings):
    """A part of `config.Config`, and the next one: a dataclass with slots has one line of ancestors."""

    webhook_allowed_networks: str = setting(
        "networks beside the public internet that webhooks may be sent to, separated by commas, such as `10.1.2.0/24`; "
        "`none`: the public internet only. Addresses that serve credentials of a cloud's machines are never allowed",
        default="none",
        check=partial(networks, setting=ALLOWED),
    )
    webhook_http_to_loopback: bool = setting(
        "whether webhooks may be sent to this machine's loopback addresses, and there without TLS: for development. A "
        "client can then make the server send events to any of this machine's ports above 1023, and to port 443",
        default=False,
    )
