"""Which headers cross, and which never do."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.config.schema import Account
from gateway.relay.headers import downwards, upstream_request_id, upwards

RESPONSES = Account("a", "http://h", protocol="responses", api_key="k")
MESSAGES = Account("a", "http://h", protocol="messages", api_key="k")


def up(
    account: Account = RESPONSES, same: bool = True, **client: str
) -> CIMultiDict[str]:
    headers = {name.replace("_", "-"): value for name, value in client.items()}
    return upwards(CIMultiDict(headers), account, "req-12345", same_protocol=same)


@pytest.mark.parametrize(
    "name",
    [
        "x-codex-turn-metadata",
        "session-id",
        "thread-id",
        "anthropic-beta",
        "anthropic-version",
        "openai-beta",
        "originator",
        "user-agent",
        "x-unknown-thing",
        "idempotency-key",
        "x-client-request-id",
        "x-codex-window-id",
        "x-openai-subagent",
        "x-stainless-retry-count",
        "anthropic-dangerous-direct-browser-access",
        "x-claude-code-session-id",
    ],
)
def test_the_clients_own_family_goes_up_untouched(name: str) -> None:
    client = CIMultiDict([(name, "a,b; c"), (name, "second")])
    sent = upwards(client, RESPONSES, "req-12345", same_protocol=True)

    assert ["a,b; c", "second"] == sent.getall(name)


@pytest.mark.parametrize(
    "name",
    [
        "cookie",
        "host",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "te",
        "upgrade",
        "accept-encoding",
        "proxy-authorization",
        "x-forwarded-for",
        "http2-settings",
        "expect",
        # where the client sits
        "via",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-client-cert",
        "x-original-forwarded-for",
        "x-real-ip",
        "client-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "true-client-ip",
        "fastly-client-ip",
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "x-azure-clientip",
        "x-envoy-external-address",
        "origin",
        "referer",
        "sec-fetch-site",
        # whose bill it is
        "openai-organization",
        "OpenAI-Project",
        "openai-organization-id",
        "x-openai-account",
        "chatgpt-account-id",
        "anthropic-organization-id",
        "anthropic-workspace-id",
        "anthropic-workspace",
        "x-organization-uuid",
        "x-goog-user-project",
        "x-project-id",
        "x-tenant-id",
        "x-ms-tenant-id",
        "ocp-apim-subscription-key",
        # what lets somebody in
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "x-goog-iam-authorization-token",
        "x-goog-authenticated-user-email",
        "x-amz-security-token",
        "x-amz-date",
        "x-amzn-trace-id",
        "x-auth-token",
        "x_access_token",
        "helicone-auth",
        "helicone-user-id",
        "x-portkey-virtual-key",
        "x-litellm-api-key",
        "cf-aig-authorization",
        "cf-access-client-secret",
        "x-ms-authorization-auxiliary",
        "cookie2",
        "x-gateway-dropped",
    ],
)
@pytest.mark.parametrize("same", [True, False], ids=["same", "converted"])
@pytest.mark.parametrize("account", [RESPONSES, MESSAGES], ids=lambda a: a.protocol)
def test_what_belongs_to_a_connection_or_a_person_stays(
    account: Account, same: bool, name: str
) -> None:
    sent = upwards(CIMultiDict({name: "v"}), account, "req-12345", same_protocol=same)

    assert "v" not in sent.values()


def test_the_operators_own_billing_headers_are_sent() -> None:
    headers = {"OpenAI-Organization": "ours", "x-goog-user-project": "ours"}
    account = Account("a", "http://h", protocol="chat", api_key="k", headers=headers)

    assert ["ours"] == up(account, openai_organization="x").getall(
        "openai-organization"
    )
    assert ["ours"] == up(account).getall("x-goog-user-project")


def test_what_connection_names_stays() -> None:
    assert "x-a" not in up(Connection="close, X-A", **{"x-a": "1"})


@pytest.mark.parametrize(
    ("account", "name", "value"),
    [
        pytest.param(RESPONSES, "Authorization", "Bearer k", id="bearer"),
        pytest.param(MESSAGES, "x-api-key", "k", id="messages-default"),
        pytest.param(
            Account("a", "http://h", protocol="chat", api_key="k", auth="api-key"),
            "api-key",
            "k",
            id="api-key",
        ),
        pytest.param(
            Account("a", "http://h", protocol="messages", api_key="k", auth="bearer"),
            "Authorization",
            "Bearer k",
            id="messages-bearer",
        ),
    ],
)
def test_the_accounts_credential_takes_the_place_of_the_clients(
    account: Account, name: str, value: str
) -> None:
    sent = up(account, Authorization="Bearer gw-1", x_api_key="gw-1", api_key="gw-1")

    assert [value] == sent.getall(name)
    assert "gw-1" not in " ".join(sent.values())


def test_without_a_key_none_is_sent() -> None:
    sent = up(Account("a", "http://h", protocol="chat"), Authorization="Bearer gw-1")

    assert "Authorization" not in sent


def test_messages_wants_a_version() -> None:
    assert "2023-06-01" == up(MESSAGES)["anthropic-version"]
    assert "x" == up(MESSAGES, anthropic_version="x")["anthropic-version"]


def test_another_protocol_learns_only_who_asks() -> None:
    sent = up(MESSAGES, same=False, session_id="s", user_agent="codex/1")

    assert "session-id" not in sent
    assert "codex/1" == sent["user-agent"]


def test_the_operators_headers_win() -> None:
    account = Account("a", "http://h", protocol="chat", headers={"X-A": "op"})

    assert ["op"] == up(account, x_a="client").getall("x-a")


def test_a_header_with_a_control_character_is_left_out() -> None:
    assert "x-a" not in up(x_a="a\x00b")


def down(renamed: bool = False, **upstream: str) -> dict[str, str]:
    headers = {name.replace("_", "-"): value for name, value in upstream.items()}
    return downwards(CIMultiDict(headers), same_protocol=True, renamed=renamed)


def test_the_protocols_families_come_down() -> None:
    headers = {
        "x-codex-turn-state": "s",
        "anthropic-ratelimit-requests-limit": "5",
        "x-ratelimit-limit-requests": "5",
        "openai-processing-ms": "9",
        "x-models-etag": "e",
    }

    assert headers == downwards(CIMultiDict(headers), same_protocol=True, renamed=False)


def test_the_upstreams_machines_stay_unknown() -> None:
    assert {} == down(server="x", via="y", set_cookie="z", cf_ray="r", date="d")
    assert {} == down(openai_organization="org", anthropic_organization_id="o")
    assert {} == down(openai_project="p", anthropic_workspace_id="w")
    assert {} == down(x_openai_account_id="a")


def test_a_limit_of_a_project_is_no_name_of_one() -> None:
    headers = {"x-ratelimit-remaining-project-tokens": "9"}

    assert headers == downwards(CIMultiDict(headers), same_protocol=True, renamed=False)


def test_a_renamed_model_hides_its_other_name() -> None:
    assert {"openai-model": "m"} == down(openai_model="m")
    assert {} == down(renamed=True, openai_model="m")


def test_another_protocols_headers_mean_nothing() -> None:
    upstream = CIMultiDict({"anthropic-version": "x"})

    assert {} == downwards(upstream, same_protocol=False, renamed=False)


@pytest.mark.parametrize("name", ["x-request-id", "request-id", "x-oai-request-id"])
def test_the_upstreams_own_id_is_found(name: str) -> None:
    assert "r-1" == upstream_request_id(CIMultiDict({name: "r-1"}))
