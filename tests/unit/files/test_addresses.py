"""Addresses: no secret is shown, whatever the form, and no URL is taken for a path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capillary_async._files.addresses import secrets_in, why_no_path, without_secrets

SECRET = "S3cret"
FORMS = [
    "postgresql+psycopg2://u:S3cret@db/fin",
    "postgresql+asyncpg://u:S3cret@db/fin",
    "POSTGRES://u:S3cret@h:5432/d?sslmode=require",
    "mysql+pymysql://u:S3cret@db:3306/fin",
    "jdbc:postgresql://h:5432/d?user=u&password=S3cret",
    "jdbc:postgresql://h:5432/d?password=S3cret&ssl=true",
    "jdbc:mysql://u:S3cret@h/d",
    "jdbc:sqlserver://h:1433;databaseName=d;user=u;password=S3cret;encrypt=true",
    "jdbc:oracle:thin:scott/S3cret@h:1521:orcl",
    "jdbc:oracle:thin:scott/S3cret@//h:1521/orcl",
    "scott/S3cret@h:1521/orcl",
    "u:S3cret@db/fin",
    "host=db user=u password=S3cret dbname=fin",
    r"host=db password='it\'s S3cret x=1' dbname=fin",
    "password = S3cret",
    "Driver={ODBC Driver 18 for SQL Server};Server=h;Uid=u;Pwd=S3cret;",
    "Driver={x};PWD={a;S3cret}};=};UID=u",
    "Server=h;User Id=u;Password=my S3cret;Trusted_Connection=no",
    "Server=h;Password=semi;S3cret;Encrypt=yes",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC%7D%3BUID%3Du%3BPWD%3DS3cret%3BServer%3Dx",
    "snowflake://u:S3cret@acc/db/schema?warehouse=w",
    "snowflake://acc?user=u&private_key_passphrase=S3cret",
    "oracle+oracledb://scott:S3cret@h:1521/?service_name=x",
    " postgresql://u:S3cret@h/d",
    "'postgresql://u:S3cret@h/d'",
    '"postgresql+psycopg2://u:S3cret@h/d"',
    "https://S3cret@h/x",
    "https://u:S3cret@h/x?y=1",
    "https://h/x?token=S3cret",
    "https://h/x?a=1&sig=S3cret%3D&b=2",
    "s3://AKIA:S3cret@bucket/key",
    "redis://:S3cret@h/0",
    "s3:/AKIA:S3cret@bucket/key",
    "postgresql://u@h/d?sslpassword=S3cret",
    "postgresql://h/d?user=u&Password=S3cret;x&ssl=1",
    "postgresql://u:a/S3cret@b@h/d",
    "postgresql://u:a?S3cret@h/d",
    "postgresql://u:a?b=S3cret@h/d",
    "postgresql://u:#S3cret@h/d",
    "postgresql://u:p%40S3cret@h/d",
    "sqlite:///x?key=S3cret",
    "libsql://h/d?user=u&k=S3cret;x&mode=ro",
    "postgresql://h/d#S3cret",
    "https://h/x?format=csv#S3cret",
    '{"host": "h", "password": "S3cret", "user": "u"}',
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=S3cret==;EndpointSuffix=x",
    "could not connect with postgresql://u:S3cret@h/d: refused",
]


@pytest.mark.parametrize("address", FORMS)
def test_no_secret_is_shown(address: str) -> None:
    """In any form in which addresses are written; a driver's repetition of it can be cleaned as well."""
    assert SECRET not in without_secrets(address)
    assert "***" in without_secrets(address)
    assert any(SECRET in each for each in secrets_in(address))


@pytest.mark.parametrize(
    "text",
    [
        "books.csv",
        "data/books@2026.csv",
        "./by:night/at@home",
        "postgresql://u@h:5/d?application_name=a@b",
        "postgresql://h:5432/d?user=u@x",
        "jdbc:oracle:thin:@h:1521:x",
        'FATAL: password authentication failed for user "u"',
        "abfss://container@account.dfs.core.windows.net/x",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Paths, hosts and users are needed to understand a message."""
    assert without_secrets(text) == text


@pytest.mark.parametrize("between", "/?#:@&; ")
def test_a_part_of_a_password_that_a_driver_repeats_is_a_secret(between: str) -> None:
    """A driver takes `u:secret/more@h` for the host u with the port `secret`, and says so."""
    assert {SECRET, "more"} <= set(secrets_in(f"postgresql://u:{SECRET}{between}more@h/d"))


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="@"), min_size=6), st.sampled_from(["", "?a=1", "/d?x=a@b"])
)
def test_any_password_of_a_url(password: str, rest: str) -> None:
    """Encoded or not."""
    shown = without_secrets(f"postgresql://user:{password}@host{rest}")
    assert password not in shown.removeprefix("postgresql://user:").removesuffix(f"@host{rest}")


@pytest.mark.parametrize(
    "given_path",
    ["s3://b/x", "s3:/b/x", "S3://b", "gs://b/x", "abfss://c@a/x", "http://h/x", "hdfs:/x", "dbfs:/x", "file:///tmp/x",
     "File:/tmp/x", " s3://x", "'s3://x'", "jdbc:postgresql://h/d", "s3a://b", "az://c/x", "postgresql+x://u:S3cret@h/d"],
)  # fmt: skip
def test_a_url_is_no_path(given_path: str) -> None:
    """Whatever its scheme, and with the one slash that pathlib leaves."""
    why = why_no_path(given_path)
    assert why is not None
    assert "is a URL" in why
    assert SECRET not in why


@pytest.mark.parametrize(
    "given_path", ["x", "a/b:c/d", "file:x", "s3:__x", "C:/x", r"c:\x", "/s3:/x", "../s3:/x", "2026:/x", ""]
)
def test_a_path_is_a_path(given_path: str) -> None:
    """Also one with a colon in its name."""
    assert why_no_path(given_path) is None
