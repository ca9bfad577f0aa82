"""An HTTP server around a predictor: POST /predict, GET /health."""

import asyncio
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
from aiohttp import web

from phalanx.exit.codes import ConfigError
from phalanx.exit.messages import say

from ..prediction.answers import as_json
from ..prediction.predictor import Predictor, predicted
from .requests import answer, asked

_GRACE_S = 30.0  # for requests that are being answered when the server is told to end
_CLOSE_S = 0.5  # for their answers to reach the clients; a request of which a part has come is dropped
_KEPT = 10_000  # latencies that percentiles are of
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Server:
    """Answers one request after the other in a thread of its own, so that /health answers meanwhile."""

    def __init__(self, predictor: Predictor, facts: Mapping[str, Any], limit_bytes: int) -> None:
        """`facts` of the model are what /health tells; `limit_bytes` is the longest body of a request."""
        self._predictor, self._facts = predictor, facts
        self._thread = ThreadPoolExecutor(1, "predict")
        self._latencies_s: deque[float] = deque(maxlen=_KEPT)
        self._answered = self._refused = self._answering = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.app = web.Application(client_max_size=limit_bytes, middlewares=[_errors_as_json])
        self.app.router.add_post("/predict", self._predict)
        self.app.router.add_get("/health", self._health)

    async def _predict(self, request: web.Request) -> web.Response:
        began = time.perf_counter()
        body = await request.read()
        self._answering += 1
        self._idle.clear()
        try:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._thread, self._answer, body, request.content_type)
        except ConfigError as error:
            self._refused += 1
            return _json({"error": str(error)}, 400)
        finally:
            self._answering -= 1
            if not self._answering:
                self._idle.set()
        self._answered += 1
        self._latencies_s.append(time.perf_counter() - began)
        return web.Response(body=found, content_type="application/json")

    async def finish(self) -> None:
        """Until what was asked is answered, `_GRACE_S` at most."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), _GRACE_S)

    def _answer(self, body: bytes, content_type: str) -> bytes:
        question = asked(body, content_type, self._predictor)
        found = predicted(self._predictor, question.samples)
        if failed := [each["error"] for each in found if "error" in each]:
            raise ConfigError(str(failed[0]))
        return answer(found, alone=question.alone)

    async def _health(self, _: web.Request) -> web.Response:
        seen = np.array(self._latencies_s) * 1000
        latency = {f"p{share}": float(np.percentile(seen, share)) for share in (50, 99)} if len(seen) else None
        counts = {"answering": self._answering, "answered": self._answered, "refused": self._refused}
        return _json({"status": "ready", **self._facts, **counts, "latency_ms": latency}, 200)


@web.middleware
async def _errors_as_json(request: web.Request, handler: Any) -> web.StreamResponse:
    """What aiohttp refuses is told as JSON, too; a fault of ours is told on standard error alone."""
    try:
        found: web.StreamResponse = await handler(request)
    except web.HTTPException as error:
        advice = ". There are POST /predict and GET /health" if error.status in (404, 405) else ""
        response = _json({"error": f"{error.reason}{advice}"}, error.status)
        response.headers.update({name: value for name, value in error.headers.items() if name == "Allow"})
        return response
    except (web.RequestPayloadError, ConnectionError):  # such as no gzip, or a client that has gone
        return _json({"error": "the body does not arrive as its headers say"}, 400)
    except Exception:  # the client is not told what our code looks like
        traceback.print_exc()
        return _json({"error": "the server failed at this request; its standard error tells more"}, 500)
    return found


def _json(value: Mapping[str, Any], status: int) -> web.Response:
    return web.Response(text=as_json(value), status=status, content_type="application/json")


def serve(server: Server, host: str, port: int, what: str) -> None:
    """Until SIGTERM or SIGINT, after which requests that are being answered are. Raises ConfigError for the address."""
    asyncio.run(_serve(server, host, port, what))


async def _serve(server: Server, host: str, port: int, what: str) -> None:
    ended = asyncio.Event()
    for heard in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(heard, ended.set)
    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=_CLOSE_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
    except (OSError, OverflowError) as error:
        await runner.cleanup()
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"Nothing can listen on {host}:{port}: {why}. Type another --port, or --host") from None
    where = runner.addresses[0]
    shown = f"[{where[0]}]" if ":" in where[0] else where[0]
    sys.stdout.write(f"serving {what} on http://{shown}:{where[1]}: POST /predict, GET /health; Ctrl-C ends it\n")
    sys.stdout.flush()
    if host not in _LOOPBACK:
        say(f"whoever reaches {shown}:{where[1]} may ask: there is neither a password nor encryption")
    await ended.wait()
    await site.stop()
    await server.finish()
    await runner.cleanup()
