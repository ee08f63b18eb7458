"""Texts without secrets: what is printed of an address, and of an error whose text other people's code made."""

from __future__ import annotations

import base64
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterable
from types import TracebackType
from urllib.parse import quote, quote_plus, unquote, unquote_plus

VARIABLE = "MLFLOW_TRACKING_URI"
USER, PASSWORD, TOKEN = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"
SHORTEST_SECRET = 3  # shorter texts are only hidden inside an address: elsewhere they would garble the message
SHORTEST_PIECE = 4  # of a password that is cut where an address ends a part: parsers quote what they do not understand
DELIMITERS = re.compile(r"[#/?\[\]%:@&;=]")
QUERY_MARKS = "?#;"
USER_INFO = re.compile(r"(?<=://)[^\s'\"<>]*@")
QUERY_SECRET = re.compile(
    r"([?&;][^=&\s'\"]*(?:token|key|secret|passw|pwd|sig|auth|credential)[^=&\s'\"]*=)[^&\s'\")]+", re.IGNORECASE
)


def without_secrets(scheme: str, rest: str) -> str:
    """An address for people: nothing before its last @, and nothing after a question mark, number sign or semicolon."""
    end = min((rest.find(mark) for mark in QUERY_MARKS if mark in rest), default=len(rest))
    if "@" in rest[end:]:  # part of a password, or of a token: what is what cannot be told
        return f"{scheme}://***"
    head, tail = rest[:end], "?***" if end < len(rest) else ""
    return f"{scheme}://***@{head.rpartition('@')[2]}{tail}" if "@" in head else f"{scheme}://{head}{tail}"


def secrets_in(address: str) -> set[str]:
    """The texts of SCHEME://USER:PASSWORD@HOST?QUERY that must not be printed."""
    scheme, separator, rest = address.partition("://")
    rest = rest if separator else address
    is_file = scheme.startswith(("sqlite", "file")) and rest.startswith("/")
    user_info = "" if is_file else rest.rpartition("@")[0]
    password = user_info.partition(":")[2]
    whole = {user_info, password}
    parts = [password]
    for mark in QUERY_MARKS:
        query = rest.partition(mark)[2]
        whole.add(query)
        parts += [part.partition("=")[2] for part in re.split("[&;]", query)]
    pieces = {piece for part in parts for piece in DELIMITERS.split(unquote(part)) if len(piece) >= SHORTEST_PIECE}
    return {*whole, *parts, *pieces} - {""}


def forms_of(secret: str) -> set[str]:
    """How a secret may stand in a message: as it is, escaped as in an address, as in Python's repr."""
    plain = {secret, unquote(secret), unquote_plus(secret)}
    return {
        form for text in plain for form in (text, quote(text, safe=""), quote_plus(text), quote(text), repr(text)[1:-1])
    }


def secrets_of_environment() -> set[str]:
    """What the variables hold that MLflow reads: the secret parts of the address, the password, the token."""
    get = os.environ.get
    found = secrets_in(get(VARIABLE, "").strip()) | {get(PASSWORD, ""), get(TOKEN, "")}
    if password := get(PASSWORD):
        found.add(base64.b64encode(f"{get(USER, '')}:{password}".encode()).decode())
    return found - {""}


def conceal(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without `secrets`, without those of the environment, and without the user in any address."""
    forms = {form.strip() for secret in {*secrets, *secrets_of_environment()} for form in forms_of(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(f"{form}@", "***@")
        if len(form) >= SHORTEST_SECRET:
            text = text.replace(form, "***")
    return QUERY_SECRET.sub(r"\1***", USER_INFO.sub("***@", text))


def conceal_tracebacks() -> None:
    """From now on tracebacks are printed without secrets: a mistake of the program, in any thread."""
    sys.excepthook = _print_concealed

    def print_of_thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None:
            _print_concealed(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)

    threading.excepthook = print_of_thread


def _print_concealed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(conceal("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr, flush=True)
