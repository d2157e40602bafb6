"""HTTP routes of the training panel; the same serve a graph that was queued without an editor.

    GET  /atelier/training                       {"sessions": [Session.snapshot, …]}, newest last
    GET  /atelier/training/sample?…&step=12      a sample picture, JPEG
    POST /atelier/training/stop                  end training now; the best weights go on down the graph
    POST /atelier/training/sample                draw a sample picture after the running step

`prompt`, `node`, `workflow` and `run` narrow all of them down: in the query of a GET, in the JSON object of a POST.
Both POST routes may be used at any moment and any number of times; they answer with the sessions they reached:
`{"reached": [{"prompt": …, "node": …}], "message": "…"}`. The host offers each route below /api as well.
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from . import host
from .sessions import Session
from .training_monitor import sessions

ADDRESS = ("prompt", "node", "workflow", "run")
DIGITS = 18
"""More than any step has; Python refuses to read numbers that are far longer."""


def add_routes() -> None:
    """Offer the routes on the host's server, where there is one."""
    table = host.route_table()
    if table is not None:
        table.get("/atelier/training")(_history)
        table.get("/atelier/training/sample")(_picture)
        table.post("/atelier/training/stop")(_stop)
        table.post("/atelier/training/sample")(_sample)


async def _history(request: web.Request) -> web.Response:
    return web.json_response({"sessions": [session.snapshot() for session in _addressed(request.query)]})


async def _picture(request: web.Request) -> web.Response:
    step = request.query.get("step", "")
    if not step.isdecimal() or len(step) > DIGITS:
        return web.json_response({"error": f"{step[:DIGITS]!r} is not the number of a step."}, status=400)
    found = [jpeg for session in _addressed(request.query)
             for jpeg in [session.sample(int(step))] if jpeg is not None]
    if not found:
        return web.json_response({"error": f"There is no sample picture of step {step}."}, status=404)
    return web.Response(body=found[-1], content_type="image/jpeg")


async def _stop(request: web.Request) -> web.Response:
    running = await _running(request)
    for session in running:
        session.ask_stop()
    return _reached(running, "Training ends after the running step and the best weights go on." if running else
                    "Nothing is being trained.")


async def _sample(request: web.Request) -> web.Response:
    running = await _running(request)
    able = [session for session in running if session.can_sample]
    for session in able:
        session.ask_sample()
    return _reached(able, "A picture is drawn after the running step." if able else
                    "No sample prompt is set in the training options." if running else "Nothing is being trained.")


def _reached(reached: list[Session], message: str) -> web.Response:
    return web.json_response({"message": message, "reached": [
        {"prompt": session.key.prompt, "node": session.key.node} for session in reached]})


async def _running(request: web.Request) -> list[Session]:
    """The running sessions that the request's body names; an empty body names all."""
    try:
        text = await request.text()
        address = json.loads(text) if text.strip() else {}
        if not isinstance(address, dict) or not all(isinstance(address.get(name, ""), str) for name in ADDRESS):
            raise ValueError("not an object of texts")
    except (ValueError, RecursionError) as error:  # the latter from lists in lists, a thousand deep
        body = {"error": f"The body is not understood ({error}).",
                "do": 'Send nothing, or JSON such as {"prompt": "…", "node": "4"}.'}
        raise web.HTTPBadRequest(text=json.dumps(body), content_type="application/json") from error
    return [session for session in _addressed(address) if session.running]


def _addressed(values: Any) -> list[Session]:
    return sessions.find(**{name: values.get(name, "") for name in ADDRESS})
