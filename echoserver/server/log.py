"""The log: a logger that unwinds nothing.

A logging handler may raise: those of test suites do, to allow no warnings.
That is told, and ends neither the accepting nor the closing of a connection.
"""

import contextlib
import logging
import traceback
from typing import Any

__all__ = ["logger"]


class Logger(logging.LoggerAdapter):  # type: ignore[type-arg,unused-ignore]

    """A logger that prints what its handlers raise, and goes on."""

    def log(self, level: Any, msg: Any, *args: Any, **kwargs: Any) -> None:
        try:
            super().log(level, msg, *args, **kwargs)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:   # pytest.fail() raises no Exception
            with contextlib.suppress(Exception):
                traceback.print_exc()


logger = Logger(logging.getLogger("echoserver"), {})
