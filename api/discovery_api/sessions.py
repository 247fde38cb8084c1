"""A browser's session: the person's Kubernetes token in an encrypted cookie.

The server keeps only who has signed out when: sessions that had begun by then are over, so that a
copy of their cookie is of no use.

The cookie is HttpOnly, SameSite=Strict and, over TLS, bound to this host. Every change that is made
with it has to prove that it came from one of our own pages: by a token that only they know, and by
the Origin that the browser tells.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from starlette.requests import HTTPConnection
from starlette.responses import Response

from .problems import ForgedError, InvalidRequestError
from .settings import ApiSettings

log = structlog.get_logger(__name__)

CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf"
_PIECE = 3500
_MOST_PIECES = 5
_RENEW_SECONDS = 300.0
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Session:
    """What the cookie holds. Times are seconds since 1970; `csrf` is known to our pages only."""

    token: str
    user: str
    csrf: str
    began: float
    seen: float
    expires: float


class Sessions:
    """Writes and reads the cookie."""

    def __init__(self, settings: ApiSettings) -> None:
        self._cipher = MultiFernet([Fernet(key) for key in _keys(settings.session_key_file)])
        self._absolute = settings.session_seconds
        self._idle = settings.session_idle_seconds
        own = settings.public_url.startswith("https://") or settings.tls_cert_file is not None
        self.secure = own
        self.cookie = "__Host-discovery" if own else "discovery"
        self._public_host = urlsplit(settings.public_url).netloc
        # by person when the last of their sessions began that is over
        self._ended: dict[str, float] = {}

    def begin(self, token: str, user: str) -> Session:
        """A new session; it ends with the token at the latest."""
        now = time.time()
        ends = min(now + self._absolute, _expiry(token) or now + self._absolute)
        return Session(token, user, secrets.token_urlsafe(24), now, now, ends)

    def of(self, connection: HTTPConnection) -> Session | None:
        """The session of a request; None without a valid one."""
        pieces = [
            connection.cookies.get(f"{self.cookie}.{number}", "") for number in range(_MOST_PIECES)
        ]
        sealed = "".join(pieces)
        if not sealed:
            return None
        try:
            session = Session(**json.loads(self._cipher.decrypt(sealed.encode())))
        except (InvalidToken, ValueError, TypeError):
            return None
        now = time.time()
        if now >= session.expires or now >= session.seen + self._idle:
            return None
        over = session.began <= self._ended.get(person_of(session), 0)
        return None if over else session

    def learn(self, ended: Mapping[str, float]) -> None:
        """Takes no session any more that has been ended, here or elsewhere.

        `ended` says by person (`person_of`) when the last of these sessions began.
        """
        none_is_older = time.time() - self._absolute
        for person, begun in ended.items():
            self._ended[person] = max(begun, self._ended.get(person, 0))
        self._ended = {who: begun for who, begun in self._ended.items() if begun > none_is_older}

    def sent(self, connection: HTTPConnection) -> bool:
        """Whether the browser has sent a session, valid or not."""
        return f"{self.cookie}.0" in connection.cookies

    def write(self, response: Response, session: Session) -> None:
        """Puts the session into the answer. Raises ProblemError where the token is too long."""
        sealed = self._cipher.encrypt(json.dumps(asdict(session)).encode()).decode()
        pieces = [sealed[start : start + _PIECE] for start in range(0, len(sealed), _PIECE)]
        if len(pieces) > _MOST_PIECES:
            raise InvalidRequestError(title="The token is too long for a session")
        for number in range(_MOST_PIECES):
            name = f"{self.cookie}.{number}"
            if number < len(pieces):
                response.set_cookie(
                    name,
                    pieces[number],
                    max_age=int(session.expires - time.time()),
                    path="/",
                    secure=self.secure,
                    httponly=True,
                    samesite="strict",
                )
            elif number > 0:
                response.delete_cookie(name, path="/", secure=self.secure, httponly=True)

    def renew(self, response: Response, session: Session) -> None:
        """Counts a look at a page against the idle time."""
        now = time.time()
        if now - session.seen >= _RENEW_SECONDS:
            self.write(response, Session(**(asdict(session) | {"seen": now})))

    def seal(self, text: str) -> str:
        """A text that only we can read and nobody can change."""
        return self._cipher.encrypt(text.encode()).decode()

    def unseal(self, sealed: str, seconds: int) -> str | None:
        """The text, if it is ours and not older."""
        try:
            return self._cipher.decrypt(sealed.encode(), ttl=seconds).decode()
        except InvalidToken:
            return None

    def end(self, response: Response) -> None:
        """Removes the cookie."""
        for number in range(_MOST_PIECES):
            response.delete_cookie(
                f"{self.cookie}.{number}", path="/", secure=self.secure, httponly=True
            )

    def check_origin(self, connection: HTTPConnection) -> None:
        """Raises ProblemError 403 where another site's page has sent the request."""
        origin = connection.headers.get("origin")
        site = connection.headers.get("sec-fetch-site", "same-origin")
        hosts = {connection.headers.get("host", ""), self._public_host} - {""}
        foreign = origin is not None and urlsplit(origin).netloc not in hosts
        if foreign or site not in ("same-origin", "none"):
            raise ForgedError("the request came from another site")

    def check_forgery(
        self, connection: HTTPConnection, session: Session, given: str | None
    ) -> None:
        """Raises ProblemError 403 unless one of our own pages has sent the request."""
        self.check_origin(connection)
        if not hmac.compare_digest((given or "").encode(), session.csrf.encode()):
            raise ForgedError("the page is out of date; load it again")


def person_of(session: Session) -> str:
    """What the person is known by who has signed out."""
    return hashlib.sha256(session.user.encode()).hexdigest()


def _keys(file: Path | None) -> list[bytes]:
    """Keys of a file, one a line, the first one seals. Without a file, one of this process."""
    if file is None:
        log.warning("sessions end with this process: DISCOVERY_SESSION_KEY_FILE is not set")
        return [Fernet.generate_key()]
    lines = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    if not lines or min(map(len, lines)) < 32:
        raise ValueError(f"{file}: write keys of at least 32 characters, one a line")
    return [base64.urlsafe_b64encode(hashlib.sha256(line.encode()).digest()) for line in lines]


def claims_of(token: str) -> dict[str, object]:
    """What a JWT says of itself. Kubernetes checks the token; nothing here relies on it."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _expiry(token: str) -> float | None:
    """When a JWT ends."""
    ends = claims_of(token).get("exp")
    return float(ends) if isinstance(ends, int | float) else None
