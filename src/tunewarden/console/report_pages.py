"""Reports: of a case that was deleted, and of what deleting a file with its models would do now. To print, or as JSON."""

from collections.abc import Iterable

from starlette.responses import Response

from tunewarden.api import case_report_page, plan_report_page, report_page
from tunewarden.api.answers import JsonAnswer
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.deletion.cases.case_report import CaseReports
from tunewarden.deletion.plan_report import PlanReports


def show_of_case(visit: Visit) -> Response:
    """Return the report of a case."""
    of, case_id = visit.operations, visit.asked.segments["case_id"]
    report = CaseReports(of.database, of.clock, of.open_log).of(visit.caller, case_id)
    return _answer(visit, report, case_report_page.page(report), case_id)


def show_of_plan(visit: Visit) -> Response:
    """Return the report of a file's plan: what was found, what is held and why, what is in the way."""
    of, file_id = visit.operations, visit.asked.segments["file_id"]
    reports = PlanReports(of.database, of.clock, of.holds, of.executor.is_served)
    report = reports.of(visit.caller, file_id)
    return _answer(visit, report, plan_report_page.page(report), f"{file_id}.plan")


def _answer(visit: Visit, report: object, page: Iterable[str], name: str) -> Response:
    if visit.asked.asked_for("format") == "json":
        headers = {"content-disposition": f'attachment; filename="{name}.report.json"'}
        return JsonAnswer(report, headers=headers)
    return report_page.answer(page)


PAGES = (
    Page("GET", "/console/cases/{case_id}/report", show_of_case),
    Page("GET", "/console/files/{file_id}/report", show_of_plan),
)
