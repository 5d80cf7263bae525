"""Every page: its method, its path, and the function that answers. The one list of them: tests go through it."""

from tunewarden.console import (
    bulk_pages,
    case_pages,
    delete_pages,
    deletion_pages,
    file_pages,
    home_page,
    job_pages,
    log_pages,
    model_pages,
    retention_pages,
    sign_in_pages,
    statics,
    system_pages,
    webhook_pages,
)
from tunewarden.console.paths import OpenPage, Page

PAGES: tuple[Page | OpenPage, ...] = (
    OpenPage("GET", "/console/static/{name}", statics.show),
    *sign_in_pages.PAGES,
    *home_page.PAGES,
    *model_pages.PAGES,
    *delete_pages.PAGES,
    *bulk_pages.PAGES,
    *deletion_pages.PAGES,
    *case_pages.PAGES,
    *job_pages.PAGES,
    *file_pages.PAGES,
    *log_pages.PAGES,
    *retention_pages.PAGES,
    *webhook_pages.PAGES,
    *system_pages.PAGES,
)
