"""Credentials: what is taken, what is refused, and that neither is ever shown."""

import copy
import hashlib
import pickle
import traceback
from typing import Any

import attrs
import pytest

from capillary_async import BasicAuth, InvalidRequestError, OAuthClient
from capillary_async.auth import _Secret, from_env

PASSWORD = "hunted-p4ssword"
DIGEST = hashlib.md5(PASSWORD.encode()).hexdigest()


def test_the_wire_password_is_the_md5_of_the_till_password():
    assert BasicAuth("till.id", password=PASSWORD)._wire_password() == DIGEST
    assert BasicAuth("till.id", password_md5=DIGEST.upper())._wire_password() == DIGEST


def test_a_password_that_looks_like_a_digest_is_a_password():
    """The two cannot be told apart, so they are two arguments."""
    assert BasicAuth("u", password=DIGEST)._wire_password() == hashlib.md5(DIGEST.encode()).hexdigest()


@pytest.mark.parametrize("password", ["pässwörd", "密码", "\ud800 half", " "])
def test_any_text_is_a_password(password: str):
    auth = BasicAuth("u", password=password)
    assert auth._wire_password() == hashlib.md5(password.encode("utf-8", "surrogatepass")).hexdigest()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "exactly one of password and password_md5"),
    ({"password": PASSWORD, "password_md5": DIGEST}, "exactly one"),
    ({"password": ""}, "not empty"),
    ({"password": b"hunted-p4ssword"}, "takes a text"),
    ({"password": 7}, "takes a text"),
    ({"password_md5": PASSWORD}, "32 hex digits"),
    ({"password_md5": DIGEST[:-1]}, "32 hex digits"),
    ({"password_md5": DIGEST + "\n"}, "32 hex digits"),
    ({"password_md5": DIGEST[:-1] + "g"}, "32 hex digits"),
    ({"password_md5": DIGEST.encode()}, "32 hex digits"),
    ({"username": "", "password": PASSWORD}, "printable text without a colon"),
    ({"username": "till:id", "password": PASSWORD}, "without a colon"),
    ({"username": "till\r\nid", "password": PASSWORD}, "printable"),
    ({"username": None, "password": PASSWORD}, "takes the till id"),
    ({"username": 7, "password_md5": DIGEST}, "takes the till id"),
]


@pytest.mark.parametrize(("given", "words"), WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_wrong_basic_credentials_are_refused_without_showing_them(given: dict[str, Any], words: str):
    """Neither in the text nor in the locals of our frames."""
    with pytest.raises(ValueError, match=words) as caught:
        BasicAuth(**{"username": "till.id", **given})
    seen = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    ours = seen[seen.rindex("auth.py") :]
    assert PASSWORD not in ours
    assert DIGEST not in ours


@pytest.mark.parametrize(
    ("key", "secret", "words"),
    [
        ("", "s", "key takes a text"), (None, "s", "key takes a text"), (7, "s", "key takes a text"),
        ("k", "", "secret takes a text"), ("k", None, "secret takes a text"), ("k", b"s", "secret takes a text"),
        ("k", "\ud800", "secret takes a text"), ("\udfff", "s", "key takes a text"),
    ],
)  # fmt: skip
def test_wrong_oauth_clients_are_refused(key: Any, secret: Any, words: str):
    """Empty, of another type, or no text that JSON can carry."""
    with pytest.raises(ValueError, match=words) as caught:
        OAuthClient(key, secret)
    assert "OAuthClient(key=" in "".join(
        traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    )


def test_a_secret_is_required():
    with pytest.raises(TypeError):
        OAuthClient("key")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        BasicAuth("till.id", PASSWORD)  # type: ignore[misc]


ALL = [
    BasicAuth("till.id", password=PASSWORD),
    BasicAuth("till.id", password_md5=DIGEST),
    OAuthClient("client-key", PASSWORD),
]


@pytest.mark.parametrize("one", ALL, ids=repr)
def test_credentials_show_no_secret(one: Any):
    """Neither they nor any attribute of theirs, by repr, str or format."""
    shown = [repr(one), str(one), f"{one}", repr([one]), *(repr(getattr(one, name)) for name in type(one).__slots__)]
    assert all(PASSWORD not in text and DIGEST not in text for text in shown)
    assert "'***'" in repr(one)
    assert not hasattr(one, "__dict__")


@pytest.mark.parametrize("one", ALL, ids=repr)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_credentials_are_not_pickled(one: Any, protocol: int):
    """A pickle is a file one day; the error says what to do instead."""
    with pytest.raises(TypeError, match=r"AsyncSession.from_env\(\)"):
        pickle.dumps(one, protocol)


@pytest.mark.parametrize("one", ALL, ids=repr)
def test_credentials_are_copied_as_themselves_and_are_no_attrs_class(one: Any):
    """So that deep copies of settings work and no dump finds fields."""
    assert copy.copy(one) is one
    assert copy.deepcopy({"auth": one})["auth"] is one
    with pytest.raises(attrs.exceptions.NotAnAttrsClassError):
        attrs.asdict(one)


def test_the_holder_of_a_secret_shows_and_pickles_nothing():
    secret = _Secret(PASSWORD)
    assert secret.reveal() == PASSWORD
    assert PASSWORD not in repr(secret) + str(secret) + repr(secret._open)
    with pytest.raises(TypeError, match="secrets are not pickled"):
        pickle.dumps(secret)


def test_secrets_are_named_for_the_scrubber():
    """All that a server could echo."""
    assert BasicAuth("u", password=PASSWORD)._secrets() == (PASSWORD, DIGEST)
    assert BasicAuth("u", password_md5=DIGEST)._secrets() == (DIGEST,)
    assert OAuthClient("k", PASSWORD)._secrets() == (PASSWORD,)


@pytest.mark.parametrize(
    ("overrides", "made"),
    [
        ({}, "BasicAuth(username='till'"),
        ({"CAPILLARY_USERNAME": "other"}, "BasicAuth(username='other'"),
        ({"CAPILLARY_USERNAME": None, "CAPILLARY_PASSWORD": "file"}, "BasicAuth(username='till'"),
        ({"CAPILLARY_CLIENT_KEY": "mine"}, "OAuthClient(key='mine'"),
        ({"CAPILLARY_CLIENT_SECRET": "file"}, "OAuthClient(key='key'"),
    ],
)
def test_overrides_select_the_kind(
    overrides: dict[str, str | None], made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the environment has both kinds, it is the till; an override of one kind selects that kind."""
    for name, value in (
        ("USERNAME", "till"),
        ("PASSWORD_MD5", "0" * 32),
        ("CLIENT_KEY", "key"),
        ("CLIENT_SECRET", "s"),
    ):
        monkeypatch.setenv(f"CAPILLARY_{name}", value)
    monkeypatch.delenv("CAPILLARY_PASSWORD", raising=False)
    auth = from_env(overrides)
    assert repr(auth).startswith(made)
    if overrides.get("CAPILLARY_PASSWORD"):
        assert isinstance(auth, BasicAuth)
        assert auth._wire_password() == BasicAuth("till", password="file")._wire_password()


def test_overrides_of_both_kinds_are_refused() -> None:
    """No guess is made."""
    with pytest.raises(InvalidRequestError, match="not both"):
        from_env({"CAPILLARY_USERNAME": "till", "CAPILLARY_CLIENT_KEY": "key"})
