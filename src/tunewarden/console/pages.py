"""Every page: its method, its path, and the function that answers. The one list of them: tests go through it."""

from tunewarden.console import (
    delete_pages,
    deletion_pages,
    home_page,
    model_pages,
    sign_in_pages,
    statics,
)
from tunewarden.console.paths import OpenPage, Page

PAGES: tuple[Page | OpenPage, ...] = (
    OpenPage("GET", "/console/static/{name}", statics.show),
    *sign_in_pages.PAGES,
    *home_page.PAGES,
    *model_pages.PAGES,
    *delete_pages.PAGES,
    *deletion_pages.PAGES,
)
