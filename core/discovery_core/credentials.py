"""How columns and values of passwords and keys are recognised: names in several languages, forms.

The import leaves such columns out, and the page that shows a file's first lines hides them.
"""

from __future__ import annotations

import re

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+")
ENDINGS = (
    "password", "passwords", "passwd", "pwd", "passphrase", "passwort", "kennwort", "wachtwoord",
    "contraseña", "contrasena", "contrasenya", "senha", "haslo", "hasło", "пароль", "secret",
    "secrets", "token", "tokens", "apikey", "apikeys", "privatekey", "secretkey", "accesskey",
)  # fmt: skip
PHRASES = re.compile(
    r"\b(?:mots? de passe|mdp|api keys?|private keys?|access keys?|secret keys?|ssh keys?|"
    r"community strings?|snmp community|credentials?)\b"
)
# How keys begin that are known by their form, as the import finds them; also for JavaScript, and
# rough: a page sees cells that are cut anywhere.
MARKS = re.compile(
    r"AKIA|ASIA|PRIVATE KEY|gh[pousr]_|xox[abeprs]-|AIza|eyJ[\w-]+\.eyJ|://[^\s/:@]*:[^\s/@]+@|"
    r"[Aa]ccount[_-]?[Kk]ey\s*=|[Ss]hared[Aa]ccess[Ss]ignature\s*="
)
# With one of these the header is about a credential: its age, its rules, where it is kept.
_ABOUT = frozenset(
    "expiry expires expired expire expiration expiring age policy last changed change set date "
    "length required ring count enabled disabled protected protection rotation rotated type "
    "complexity manager vault management never status reset days min max valid until attempts "
    "compliant profile name id ref reference path location arn url store provider service server "
    "public rotada rotado caducada "
    "ablauf ablaufdatum gültig geändert alter richtlinie caducidad expiración validade".split()
)


def is_credential_header(name: str) -> bool:
    """Whether a column of this name holds credentials, by its words in several languages."""
    words = [word.lower() for word in _WORDS.split(name) if word]
    if _ABOUT.intersection(words):
        return False
    return any(word.endswith(ENDINGS) for word in words) or bool(PHRASES.search(" ".join(words)))
