"""is_secret_name: whether what a variable is called says that its value is a secret."""

from __future__ import annotations

import re
from functools import lru_cache

_SECRET = frozenset(
    {
        "apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token",
        "cred", "creds", "pass", "passphrase", "passwords", "pat", "pw", "pwd", "secrets", "tokens",
        "accesskey", "privatekey", "secretkey", "signingkey", "sshkey",
    }
)  # fmt: skip
"""Words by themselves; the first line is docker's."""
_ENDINGS = (
    "apikey", "credential", "credentials", "creds", "passphrase", "password", "passwords", "passwd", "secret",
    "secrets", "token", "tokens", "accesskey", "privatekey", "secretkey", "signingkey", "sshkey",
)  # fmt: skip
"""What a word that was written without a gap ends with: DBPASSWORD, githubtoken. No other word does."""
_SHORT_ENDINGS = {
    "pass": frozenset(
        {
            "com", "encom", "by", "sur", "tres", "over", "under", "im", "low", "high", "band", "all", "multi", "single",
            "one", "two", "first", "second", "last", "pre", "post", "render",
        }
    ),
    "pwd": frozenset({"old", "orig", "original", "init", "initial", "start", "saved", "cur", "current"}),
}  # fmt: skip
"""The same of DBPASS and DBPWD, unless the word begins with one of these: COMPASS, BYPASS, what counts passes, and
directories that a script went out from. `pat` is no ending: COMPAT."""
_HARMLESS = frozenset({"public", "file", "version"})
"""Words that make a name harmless again, docker's own: PUBLIC_KEY, TOKEN_FILE."""
_WORKING_DIRECTORY = frozenset({"pwd", "oldpwd"})
"""Names by which every shell knows its directory."""


@lru_cache(4096)
def is_secret_name(name: str) -> bool:
    """The rule of docker's check SecretsUsedInArgOrEnv, with more words, and with names such as apiKey and DBPASSWORD.

    Words count, not parts of them: KEYBOARD, PASSIVE, COMPAT and PATH are no secrets.
    """
    words = [word.rstrip("0123456789") for word in _words(name)]
    secret = any(word in _SECRET or word.endswith(_ENDINGS) or _ends_short(word) for word in words)
    return secret and _HARMLESS.isdisjoint(words) and name.lower() not in _WORKING_DIRECTORY


def _ends_short(word: str) -> bool:
    endings = _SHORT_ENDINGS.items()
    return any(word.endswith(end) and word.removesuffix(end) not in harmless for end, harmless in endings)


def _words(name: str) -> list[str]:
    if not (name.isupper() or name.islower()):
        # githubToken, APIKey: a word begins where a capital follows a small letter, or comes before one.
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return name.lower().replace("-", "_").replace(".", "_").split("_")
