"""Nodes in Python for simulations in virtual time; standard library only, Python 3.9 or later.

    from aileron_cosim import Event, run

    def service(window):
        return [Event("echo", dst=event.src, payload=event.payload, time_us=event.time_us)
                for event in window.events]

    run(service)
"""

from .agenda import Agenda
from .node import NodeError, Start, Step, Window, run, serve
from .wire import Event, WireError

__all__ = ["Agenda", "Event", "NodeError", "Start", "Step", "Window", "WireError", "run", "serve"]
