"""The command line. Results go to standard output, one per line; everything else to standard error."""

import platform

import click

from tunewarden import __version__
from tunewarden.cli.lazy_group import Lazy, LazyGroup

EPILOG = """\b
Server:
  TUNEWARDEN_URL, TUNEWARDEN_API_KEY    which server is asked, with which key
  OPENAI_BASE_URL, OPENAI_API_KEY       the same, where those are not set
  TUNEWARDEN_ADMIN_KEY, OPENAI_ADMIN_KEY  instead of those keys, for users, projects and invites
  --data DIR                            on the server's machine, as its Owner

\b
Exit status:
  0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused, 5 conflict, 6 unavailable

Reference: docs/reference/commands.md
"""


COMMANDS = {
    "admin-keys": Lazy(
        "tunewarden.cli.admin_key_commands:admin_keys",
        "Keys that administer the organization.",
    ),
    "audit": Lazy(
        "tunewarden.cli.audit_commands:audit",
        "What was done, by whom: list, export, verify.",
    ),
    "aliases": Lazy("tunewarden.cli.alias_commands:aliases", "Stable names of models."),
    "backup": Lazy(
        "tunewarden.cli.data_commands:backup",
        "Back up the database.",
    ),
    "bases": Lazy("tunewarden.cli.base_commands:bases", "Base models.", ("base",)),
    "certificates": Lazy(
        "tunewarden.cli.certificate_commands:certificates",
        "Certificates of engines on other hosts.",
    ),
    "console": Lazy(
        "tunewarden.cli.console_commands:console",
        "The pages for people, at /console of the server.",
    ),
    "config": Lazy("tunewarden.cli.config_commands:configuration", "Settings."),
    "deletions": Lazy(
        "tunewarden.cli.deletion_commands:deletions", "Deletions and their receipts."
    ),
    "doctor": Lazy(
        "tunewarden.cli.doctor_command:doctor",
        "Check the data directory and this machine.",
    ),
    "expiry": Lazy(
        "tunewarden.cli.data_commands:expiry",
        "Expiry of files and uploads.",
    ),
    "files": Lazy("tunewarden.cli.file_commands:files", "Files of training data."),
    "fine-tunes": Lazy(
        "tunewarden.cli.fine_tune_commands:fine_tunes", "Fine-tuning jobs.", ("finetune",)
    ),
    "holds": Lazy("tunewarden.cli.hold_commands:holds", "What must not be deleted."),
    "invites": Lazy("tunewarden.cli.invite_commands:invites", "Links that make users."),
    "keyring": Lazy("tunewarden.cli.data_commands:keyring", "The models' keys."),
    "keys": Lazy("tunewarden.cli.key_commands:keys", "API keys."),
    "log": Lazy("tunewarden.cli.log_commands:log", "The deletion log."),
    "migrate": Lazy(
        "tunewarden.cli.migrate_commands:migrate", "Moving models here from another server."
    ),
    "models": Lazy("tunewarden.cli.model_commands:models", "Fine-tuned models."),
    "organizations": Lazy(
        "tunewarden.cli.organization_commands:organizations", "Organizations of this server."
    ),
    "projects": Lazy("tunewarden.cli.project_commands:projects", "Projects, and who is in them."),
    "receipts": Lazy(
        "tunewarden.cli.receipt_commands:receipts", "Signed proofs of deletions.", ("receipt",)
    ),
    "replicas": Lazy("tunewarden.cli.replica_commands:replicas", "Engines of remote bases."),
    "service-accounts": Lazy(
        "tunewarden.cli.service_account_commands:service_accounts",
        "Service accounts: users of one project who are no people.",
    ),
    "retention": Lazy(
        "tunewarden.cli.retention_commands:retention",
        "Old models: preview and delete them, by hand or by rules.",
    ),
    "serve": Lazy("tunewarden.cli.serve_command:serve", "Start the server."),
    "tour": Lazy(
        "tunewarden.cli.tour_command:tour",
        "See what deleting means: a model answers, is deleted in mid-stream, is gone.",
    ),
    "usage": Lazy(
        "tunewarden.cli.usage_command:usage", "Show requests and tokens, the most requests first."
    ),
    "users": Lazy("tunewarden.cli.user_commands:users", "People of the organization."),
    "webhooks": Lazy("tunewarden.cli.webhook_commands:webhooks", "Where events are sent."),
}


def _check_system(name: str) -> None:
    """Refuse Linux-only commands before importing modules that other systems do not have."""
    # The fence needs Linux's OFD locks, the scratch directory its tmpfs. Receipts can be verified anywhere.
    if platform.system() != "Linux" and name != "receipts":
        raise click.ClickException(
            "Tunewarden runs on Linux. On other systems, run it in a Linux container or virtual machine."
        )


@click.group(cls=LazyGroup, lazy=COMMANDS, check=_check_system, epilog=EPILOG)
@click.version_option(__version__)
def cli() -> None:
    """A self-hosted, OpenAI-compatible home for fine-tuned models, where delete means deleted."""
