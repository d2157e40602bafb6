"""HTTP routes of the list of folders on Image Folder.

    GET  /atelier/folders              {"folders": [{"name": "rex", "pictures": 12}, …]}
    POST /atelier/folders?folder=rex   a form with one "file"; {"file": "a.png"}, or {"error": "…"}
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from aiohttp import web

from ...atelier.errors import AtelierError
from ..host import input_folders, web_server


def add_routes() -> None:
    """Add the routes to the host's server, if there is one."""
    table = web_server.route_table()
    if table is not None:
        table.get("/atelier/folders")(_get_folders)
        table.post("/atelier/folders")(_post_file)


async def _get_folders(request: web.Request) -> web.Response:
    try:
        found = await asyncio.to_thread(input_folders.picture_folders)
    except AtelierError as error:
        return _error(str(error))
    return web.json_response({"folders": [asdict(folder) for folder in found]})


async def _post_file(request: web.Request) -> web.Response:
    file = (await request.post()).get("file")
    if not isinstance(file, web.FileField):
        return _error('There is no file. Send a form with a file called "file".')
    try:
        path = await asyncio.to_thread(lambda: input_folders.add_file(request.query.get("folder", ""), file.filename,
                                                                      file.file.read()))
    except AtelierError as error:
        return _error(str(error))
    return web.json_response({"file": path.name})


def _error(text: str) -> web.Response:
    return web.json_response({"error": text}, status=400)
