"""HTTP routes of the training panel; they also serve graphs that were queued without an editor.

    GET  /atelier/training                       {"sessions": [Session.snapshot, …]}, newest last
    GET  /atelier/training/sample?…&step=12      a sample picture, JPEG
    POST /atelier/training/stop                  end training now; the node outputs the best weights
    POST /atelier/training/sample                draw a sample picture after the running step
    POST /atelier/training/continue              queue a stopped training again, and it goes on

`prompt`, `node`, `workflow` and `run` select sessions: in the query of a GET, in the JSON object of a POST. The POST
routes may be used at any time and repeatedly; they answer with the sessions they reached:
`{"reached": [{"prompt": …, "node": …}], "message": "…"}`. The host offers each route below /api as well.
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from ..host import web_server
from .monitor import sessions
from .sessions import Session

SELECTORS = ("prompt", "node", "workflow", "run")
MAX_DIGITS = 18
"""More than any step has; Python refuses to parse much longer numbers."""


def add_routes() -> None:
    """Add the routes to the host's server, if there is one."""
    table = web_server.route_table()
    if table is not None:
        table.get("/atelier/training")(_get_sessions)
        table.get("/atelier/training/sample")(_get_sample)
        table.post("/atelier/training/stop")(_post_stop)
        table.post("/atelier/training/sample")(_post_sample)
        table.post("/atelier/training/continue")(_post_continue)


async def _get_sessions(request: web.Request) -> web.Response:
    return web.json_response({"sessions": [session.snapshot() for session in _select(request.query)]})


async def _get_sample(request: web.Request) -> web.Response:
    step = request.query.get("step", "")
    if not step.isdecimal() or len(step) > MAX_DIGITS:
        return web.json_response({"error": f"{step[:MAX_DIGITS]!r} is not the number of a step."}, status=400)
    samples = [jpeg for session in _select(request.query)
             for jpeg in [session.sample(int(step))] if jpeg is not None]
    if not samples:
        return web.json_response({"error": f"There is no sample picture of step {step}."}, status=404)
    return web.Response(body=samples[-1], content_type="image/jpeg")


async def _post_stop(request: web.Request) -> web.Response:
    running = [session for session in await _selected(request) if session.running]
    for session in running:
        session.request_stop()
    return _answer(running, "Training ends after the running step and the best weights go on." if running else
                    "Nothing is being trained.")


async def _post_sample(request: web.Request) -> web.Response:
    running = [session for session in await _selected(request) if session.running]
    sampling = [session for session in running if session.can_sample]
    for session in sampling:
        session.request_sample()
    return _answer(sampling, "A picture is drawn after the running step." if sampling else
                    "Train LoRA draws no pictures: its sample prompt is none." if running else
                    "Nothing is being trained.")


async def _post_continue(request: web.Request) -> web.Response:
    stopped = [session for session in await _selected(request) if session.stopped]
    sessions.request_continue(stopped)
    return _answer(stopped, "Queue the graph again, and training goes on." if stopped else
                   "No training was stopped and kept.")


def _answer(reached: list[Session], message: str) -> web.Response:
    return web.json_response({"message": message, "reached": [
        {"prompt": session.key.prompt, "node": session.key.node} for session in reached]})


async def _selected(request: web.Request) -> list[Session]:
    """The sessions that the request's body selects; an empty body selects all."""
    try:
        text = await request.text()
        selection = json.loads(text) if text.strip() else {}
        if not isinstance(selection, dict) or not all(isinstance(selection.get(name, ""), str) for name in SELECTORS):
            raise ValueError("not an object of texts")
    except (ValueError, RecursionError) as error:  # RecursionError: from deeply nested lists
        body = {"error": f"The body is not understood ({error}).",
                "do": 'Send nothing, or JSON such as {"prompt": "…", "node": "4"}.'}
        raise web.HTTPBadRequest(text=json.dumps(body), content_type="application/json") from error
    return _select(selection)


def _select(selection: Any) -> list[Session]:
    return sessions.find(**{name: selection.get(name, "") for name in SELECTORS})
