"""``shared.url`` taken apart, and its mistakes."""

from __future__ import annotations

import pytest

from gateway.shared.address import EngineAddress, Host, mistakes_of, parse_address

HOST = (Host("h", 6379),)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("unix:///run/v.sock", EngineAddress(path="/run/v.sock")),
        ("unix:///a%20b?db=3", EngineAddress(path="/a b", db=3)),
        ("unix:///s?password=p%40", EngineAddress(path="/s", password="p@")),
        ("unix://u:p@/s", EngineAddress(path="/s", user="u", password="p")),
        ("redis://h", EngineAddress(hosts=HOST)),
        ("redis://h:7000/2", EngineAddress(hosts=(Host("h", 7000),), db=2)),
        ("redis://:p@h", EngineAddress(hosts=HOST, password="p")),
        (
            "redis://u:p%2Fq@[::1]:1",
            EngineAddress(hosts=(Host("::1", 1),), user="u", password="p/q"),
        ),
        ("rediss://h?ca=/c.pem", EngineAddress(hosts=HOST, tls=True, ca="/c.pem")),
        (
            "sentinel://a,b:1,c/main/4",
            EngineAddress(
                hosts=(Host("a", 26379), Host("b", 1), Host("c", 26379)),
                master="main",
                db=4,
            ),
        ),
        (
            "sentinel://:p@a/m?tls=1&sentinel_password=s",
            EngineAddress(
                hosts=(Host("a", 26379),),
                master="m",
                password="p",
                tls=True,
                sentinel_password="s",
            ),
        ),
    ],
)
def test_a_url_is_taken_apart(url: str, found: EngineAddress) -> None:
    assert parse_address(url) == found


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:6379",
        "http://h",
        "redis://",
        "redis://h:0",
        "redis://h:x",
        "redis://h/one",
        "redis://h/1/2",
        "redis://h/-1",
        "redis://u@h",
        "redis://h?tls=1",
        "redis://h#f",
        "redis://[::1",
        "unix://host/path",
        "unix://",
        "unix:///",
        "sentinel://a,b",
        "sentinel://a,,b/m",
        "sentinel://" + ",".join("abcdefghijklmnopq") + "/m",
    ],
)
def test_a_mistake_is_said_without_the_password(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_address(url.replace("://", "://:hush@", 1) if "://h" in url else url)

    assert "hush" not in str(caught.value)


def test_what_is_shown_has_no_password() -> None:
    urls = ["unix:///s?password=hush", "rediss://:hush@h", "sentinel://:hush@a/m"]

    shown = [parse_address(url).shown for url in urls]

    assert shown == ["unix:///s", "rediss://h:6379", "sentinel://a:26379/m"]


@pytest.mark.parametrize(
    ("prefix", "fine"), [("gw1", True), ("", False), ("{x}", False), ("a" * 33, False)]
)
def test_a_prefix_is_part_of_a_key(prefix: str, fine: bool) -> None:
    found = mistakes_of("redis://h", prefix)

    assert fine == (found == [])
    assert len(mistakes_of("x", "{")) == 2
