"""A dialect is a row of settings, and an account's own settings come before it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main
from gateway.config.parse import ConfigError, parse
from gateway.config.schema import Account, Config
from gateway.protocols import dialects
from gateway.protocols.options import Options

SERVERS = Path(__file__).parents[1] / "docs/servers.md"
FIELDS = {field.name for field in dataclasses.fields(Options)}


@pytest.mark.parametrize("dialect", dialects.DIALECTS)
def test_every_dialect_is_a_row_of_known_settings(dialect: str) -> None:
    row = dialects.ROWS[dialect]

    assert row.keys() <= FIELDS
    assert row == {name: getattr(dialects.options(dialect, {}), name) for name in row}


def test_no_row_is_without_a_name() -> None:
    assert set(dialects.DIALECTS) == set(dialects.ROWS)


def test_every_dialect_stands_in_the_docs_with_the_settings_of_its_row() -> None:
    lines = SERVERS.read_text("utf-8").splitlines()

    for dialect in dialects.DIALECTS:
        [line] = [one for one in lines if re.match(rf"\| [^|]*`{dialect}`[^|]*\|", one)]
        named = set(re.findall(r"`([a-z_]+)`", line.split("|")[-2]))
        assert named <= dialects.ROWS[dialect].keys(), dialect


AZURE = "https://r.openai.azure.com/openai/v1"
ALIBABA = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/openai"
OWN = "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("protocol", "base_url", "model", "dialect"),
    [
        # The host comes first, whatever the model is called.
        ("chat", "https://api.openai.com/v1", "kimi", "openai"),
        ("responses", AZURE, "gpt-5.5", "azure"),
        ("messages", "https://api.anthropic.com/v1", "sonnet", "anthropic"),
        ("chat", GOOGLE, "gemini-3-pro", "gemini"),
        ("chat", "https://api.deepseek.com", "deepseek-chat", "deepseek"),
        ("messages", "https://api.deepseek.com/anthropic", "claude-x", "deepseek"),
        ("chat", ALIBABA, "qwen3-max", "qwen"),
        ("chat", "https://api.z.ai/api/paas/v4", "glm-5", "glm"),
        ("chat", "https://open.bigmodel.cn/api/paas/v4", "glm-5", "glm"),
        ("chat", "https://api.moonshot.ai/v1", "kimi-k2", "kimi"),
        ("messages", "https://api.kimi.com/coding", "k3", "kimi"),
        ("messages", "https://api.minimax.io/anthropic", "MiniMax-M2", "minimax"),
        ("chat", "https://api.mistral.ai/v1", "devstral-2512", "mistral"),
        ("chat", "https://openrouter.ai/api/v1", "anthropic/claude-x", "openrouter"),
        ("chat", "http://localhost:11434/v1", "gpt-oss:20b", "ollama"),
        # A host that says nothing: the model's family.
        ("chat", OWN, "Qwen/Qwen3.5-35B", "qwen"),
        ("chat", OWN, "deepseek-r1-distill-qwen-32b", "deepseek"),
        ("chat", OWN, "zai-org/GLM-4.7", "glm"),
        ("chat", OWN, "moonshotai/Kimi-K2-Thinking", "kimi"),
        ("messages", OWN, "mimo-v2-flash", "mimo"),
        ("chat", OWN, "mistralai/Mixtral-8x7B", "mistral"),
        ("messages", OWN, "eu.anthropic.claude-opus-4-6", "anthropic"),
        ("chat", OWN, "google/gemini-3", "gemini"),
        # Neither: the protocol's vendor; Chat is spoken by everybody.
        ("responses", OWN, "m", "openai"),
        ("messages", OWN, "m", "anthropic"),
        ("chat", OWN, "m", "other"),
        ("chat", OWN, "gpt-5.5", "other"),
        # Names that only look like a host or a family.
        ("chat", "https://notopenai.com/v1", "m", "other"),
        ("chat", "https://openai.com.example.org/v1", "m", "other"),
        ("chat", OWN, "aglm-4", "other"),
    ],
)
def test_auto_goes_by_host_and_model(
    protocol: str, base_url: str, model: str, dialect: str
) -> None:
    assert dialect == dialects.detected(protocol, base_url, model)


def test_an_accounts_own_settings_come_before_its_row() -> None:
    account = read('dialect = "mistral"', 'ids = "verbatim"\nstream_options = true')
    options = account.options("devstral")

    assert ("verbatim", True, "alternate") == (
        options.ids,
        options.stream_options,
        options.roles,
    )


def test_a_setting_that_equals_the_vendors_default_counts_too() -> None:
    account = read('dialect = "deepseek"', "images = true\nsystem_messages = 'auto'")
    options = account.options("deepseek-chat")

    assert (True, "auto") == (options.images, options.system_messages)


@pytest.mark.parametrize("said", [True, False])
def test_the_older_name_of_thinking_back_still_counts(said: bool) -> None:
    account = read('dialect = "qwen"', f"chat_reasoning = {str(said).lower()}")

    assert account.options("qwen3").thinking_back is said


def test_the_dialect_is_that_of_the_renamed_model() -> None:
    account = read('rename = { "fast" = "qwen3.5" }')

    assert "qwen" == account.dialect_for(account.upstream_model("fast"))


@pytest.mark.parametrize(
    ("lines", "convert", "mistake"),
    [
        ('dialect = "opanai"', "", "account[0].dialect: must be one of auto, openai"),
        ("", 'ids = "long"', "account[0].convert.ids: must be one of narrow, short"),
        ("", "imagse = true", "account[0].convert.imagse: unknown key, did you mean"),
        ("", "images = 1", "account[0].convert.images: must be"),
        ("", 'efforts = ["huge"]', "account[0].convert.efforts[0]: must be one of"),
        ("convert = 5", None, "account[0].convert: must be a table"),
    ],
)
def test_mistakes_are_named(lines: str, convert: str | None, mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(lines, convert)

    assert caught.value.mistakes[0].startswith(mistake)


def test_check_prints_what_auto_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        text("one", 'models = ["m", "qwen*", "x"]\nrename = { "x" = "glm-5" }')
        + text("two", 'models = ["kimi-*"]')
        + text("three", 'dialect = "vllm"')
        + '[[account]]\nname = "trial"\nbase_url = "embedded:"\n'
    )

    assert 0 == main(["check", "--config", str(path)])
    assert [
        f"{path}: fine, 0 users, 4 accounts",
        "  one: dialect other for m; qwen for qwen*; glm for x (auto)",
        "  two: dialect kimi (auto)",
        "  three: dialect vllm",
    ] == capsys.readouterr().out.splitlines()


def text(name: str, lines: str, convert: str | None = None) -> str:
    head = f'[[account]]\nname = "{name}"\nprotocol = "chat"\nbase_url = "{OWN}"\n'
    tail = "" if convert is None else f"\n[account.convert]\n{convert}"
    return f"{head}{lines}{tail}\n"


def read(lines: str, convert: str | None = None) -> Account:
    config: Config = parse(text("a", lines, convert), _no_secret)
    return config.account[0]


def _no_secret(reference: str) -> Any:
    raise LookupError(reference)
