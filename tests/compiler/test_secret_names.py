"""Which names of variables say that their value is a secret."""

from __future__ import annotations

import pytest

from compiler.secret_names import is_secret_name


@pytest.mark.parametrize(
    "name",
    [
        "API_TOKEN", "api-key", "apiKey", "APIKey", "APIKEY", "GH_PAT", "DB_PWD", "DB_PASS", "PASSPHRASE", "TOKENS", "secrets",
        "DBPASSWORD", "dbpassword", "DBPassword", "githubToken", "GitHubToken", "GITHUBTOKEN", "TOKEN2", "npm_auth", "AWS_CREDS",
        "SECRETKEY", "ssh-key", "client.secret", "oAuth", "DB_PW", "DBPASS", "dbpass2", "MYSQLPASS", "DBPWD", "AWSCREDS",
        "APITOKENS", "APPSECRETS", "AWSSECRETKEY", "DEPLOYSSHKEY", "SMTPCREDENTIAL", "USERPASSWORDS",
    ],
)  # fmt: skip
def test_a_secret_name(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "PASSIVE", "COMPAT", "KEYBOARD", "MONKEY", "PWD", "OLDPWD", "PATTERN", "PATCH", "BYPASS", "COMPASS", "AUTHOR",
        "ENCOMPASS", "SURPASS", "TRESPASS", "LOWPASS", "MULTIPASS", "FIRSTPASS", "GYP_COMPASS", "INITPWD", "STARTPWD", "SACRED",
        "SPAT", "MYPAT", "TOKENS_FILE", "COMPASSION", "DBPASSIVE", "PUBLIC_KEY", "publicKey",
        "TOKEN_FILE", "KEY_VERSION", "passwordFile", "TOKENIZER", "SECRETARY", "ENCRYPTED", "", "_", "A",
    ],
)  # fmt: skip
def test_a_harmless_name(name: str) -> None:
    assert not is_secret_name(name)
