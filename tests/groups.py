"""Which tests need what, which begin first, and what each of `make quick`, `make test`, `make batteries`, `make
test-vllm`, `make test-clients`, `make test-image`, `make test-uvx` and `make fuzz-api` runs.

`make quick`: what needs neither torch nor a server. `make test`: all but the batteries. A battery attacks one promise
at random, with kills, crashes, power cuts, load or mutants: its short form is `make batteries`, its long one `make
torture`.
"""

from pathlib import Path

ROOT = Path(__file__).parent
# Left out where torch is not installed, and of `make quick`.
NEED_ENGINE = (
    "cli/test_demo.py",
    "cli/test_tour.py",
    "conformance",
    "contract/test_embedded_engine.py",
    "packaging/test_demo.py",
    "trainer",
    "unit/artifacts/test_what_peft_writes.py",
    "unit/embedded_engine",
    "unit/vllm_plugin/test_worker.py",
)
# They need vLLM, in an environment of its own: `make test-vllm`.
NEED_VLLM = ("vllm",)
# They need environments of the clients' own: `make test-clients`.
NEED_CLIENTS = ("clients",)
# They need root, and tools for containers: `make test-image`.
NEED_CONTAINERS = ("image",)
# It fills a cache with a gigabyte: `make test-uvx`.
NEED_UVX = ("packaging/test_uvx_demo.py",)
FUZZ = ("fuzz",)
# Of the quick directories, what starts servers.
NEED_SERVERS = (
    "docs/test_backup_and_restore.py",
    "docs/test_erase_by_file.py",
    "docs/test_export_a_model.py",
    "docs/test_governing_pages.py",
    "docs/test_move_from_openai.py",
    "docs/test_moving_from_openai.py",
    "docs/test_old_models.py",
    "docs/test_readme.py",
    "docs/test_receive_webhooks.py",
    "docs/test_requests_and_audits.py",
    "docs/test_tls_proxy.py",
    "docs/test_troubleshooting.py",
    "docs/test_upgrade_page.py",
    "docs/test_tutorials.py",
    "properties/test_remnants_of_texts.py",
)
BATTERIES = (
    "api/test_cut_answers.py",
    "api/test_engine_leases.py",
    "api/test_hostile_constraints.py",
    "api/test_tool_circle.py",
    "chaos",
    "console/test_receipt_module.py",
    "properties/test_case_crashes.py",
    "properties/test_deletion_of_parts.py",
    "properties/test_deletions_together.py",
    "properties/test_keyring_crashes.py",
    "properties/test_life_of_access.py",
    "properties/test_life_of_an_organization.py",
    "properties/test_log_crashes.py",
    "properties/test_power_cuts.py",
    "properties/test_protocol_mutants.py",
    "properties/test_receipt_mutants.py",
    "properties/test_receipt_mutations.py",
    "properties/test_restores.py",
    "properties/test_simulation.py",
    "properties/test_upload_crashes.py",
)
# Not of `make test`, each with a target of the Makefile.
OF_THEIR_OWN = {
    "batteries": BATTERIES,
    "vllm": NEED_VLLM,
    "clients": NEED_CLIENTS,
    "image": NEED_CONTAINERS,
    "uvx": NEED_UVX,
    "fuzz": FUZZ,
}
# tests/test_house_rules.py keeps torch and servers out of these.
QUICK = (
    "unit",
    "properties",
    "contract",
    "deploy",
    "docs",
    "test_house_rules.py",
    "test_sql_dialect.py",
    "test_table_owners.py",
)
# They run on one worker, which starts the server that they share: its engine takes ten seconds of a processor to start.
ENGINE_SERVER = (
    "api/test_deleting_in_use.py",
    "api/test_fair_rows.py",
    "api/test_fine_tuning.py",
    "api/test_hostile_constraints.py",
    "api/test_inference.py",
    "api/test_inference_parameters.py",
    "api/test_receipts_of_engines.py",
    "api/test_responses.py",
    "api/test_revoked_keys.py",
    "api/test_seed_page.py",
    "api/test_structured_outputs.py",
    "api/test_tools.py",
    "api/test_usage_of_engines.py",
    "cli/test_tour.py",
    "docs/test_erase_by_file.py",
)
# The longest files, longest first: a long one that began last would be waited for alone. The first stands for all
# that share its server. The Makefile has xdist keep this order.
FIRST = (
    "api/test_seed_page.py",
    "console/test_in_a_browser.py",
    "console/test_single_sign_on_in_a_browser.py",
    "conformance/test_sdk_suite.py",
    "chaos/test_three_organizations.py",
    "cli/test_serve.py",
    "trainer/test_supervised.py",
    "api/test_webhooks.py",
    "contract/test_embedded_engine.py",
    "chaos/test_kill_nine.py",
    "trainer/test_dpo.py",
    "cli/test_fine_tune_commands.py",
    "api/test_authorization.py",
    "chaos/test_killed_jobs.py",
    "api/test_rate_limits.py",
    "api/test_file_search.py",
    "api/test_cases.py",
    "properties/test_protocol_mutants.py",
    "unit/finetuning/test_runner.py",
    "api/test_replicas.py",
    "cli/test_demo.py",
    "api/test_hot_path.py",
    "chaos/test_streams_are_cut.py",
    "trainer/test_failures.py",
    "cli/test_drain.py",
    "unit/embedded_engine/test_odd_parameters.py",
    "api/test_log_key_rotation.py",
    "api/test_cut_answers.py",
    "api/test_file_streams.py",
    "api/test_bulk_deletions.py",
    "api/test_hostile_clients.py",
    "api/test_files.py",
    "api/test_aliases.py",
    "properties/test_deletion_crashes.py",
    "properties/test_keyring_crashes.py",
    "chaos/test_begun_after_ack.py",
    "docs/test_export_a_model.py",
    "api/test_canary.py",
    "properties/test_remnants_of_texts.py",
)


def rank(path: Path) -> int:
    """Tell how early a file's tests begin; 0 is first."""
    below = path.relative_to(ROOT).as_posix()
    return FIRST.index(below) if below in FIRST else len(FIRST)


def has(group: str, path: Path) -> bool:
    """Tell whether a group, as the Makefile names it, has the tests of this file."""
    below = path.relative_to(ROOT)
    if group == "quick":
        return _is_in(below, QUICK) and not _is_in(below, (*BATTERIES, *NEED_ENGINE, *NEED_SERVERS))
    if group in OF_THEIR_OWN:
        return _is_in(below, OF_THEIR_OWN[group])
    return not any(_is_in(below, places) for places in OF_THEIR_OWN.values())


def _is_in(path: Path, places: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(place) for place in places)
