"""The page and its files: fixed names, read once."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response
from starlette.exceptions import HTTPException

_HERE = Path(__file__).parent / "page"
_REPORT = Path(__file__).parents[1] / "exports" / "report"
_SHARED = {"parts.js": "parts.js", "masks.js": "masks.js", "report.css": "page.css"}
"""Files of the HTML report that the page draws with, by the name that the page gives them."""
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def add_page(app: FastAPI) -> None:
    """Adds the page at / and its files below /assets/."""
    page = (_HERE / "page.html").read_bytes()
    assets = {file.name: file for file in _HERE.iterdir() if file.suffix in _TYPES and file.suffix != ".html"}
    assets |= {name: _REPORT / file for name, file in _SHARED.items()}
    contents = {name: (file.read_bytes(), _TYPES[file.suffix]) for name, file in assets.items()}

    @app.get("/", include_in_schema=False)
    async def show() -> Response:
        """Returns the page."""
        return Response(page, media_type=_TYPES[".html"])

    @app.get("/assets/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        """Returns a file of the page."""
        if name not in contents:
            raise HTTPException(404, f"The page has no file {name!r}.")
        content, media_type = contents[name]
        return Response(content, media_type=media_type)
