from __future__ import annotations

import errno

import pytest
import typer

from evacap_cli.cli.common import guarded, say, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.mp4", "a.mp4"),
        ("fête 🎈 犬.mp4", "fête 🎈 犬.mp4"),
        ("\x1b[31mred\x1b]0;title\x07", r"\x1b[31mred\x1b]0;title\x07"),
        ("\x9b31m\x7f\b\r\t\0", r"\x9b31m\x7f\x08\r\t\x00"),
        ("one\ntwo\u2028three\x85four", r"one\ntwo\u2028three\x85four"),
        *((f"photo{chr(code)}gpj.mp4", rf"photo\u{code:04x}gpj.mp4") for code in range(0x202A, 0x202F)),
        *((f"photo{chr(code)}gpj.mp4", rf"photo\u{code:04x}gpj.mp4") for code in range(0x2066, 0x206A)),
        ("left\u200eright\u200f\u061c\u200b\ufeff", r"left\u200eright\u200f\u061c\u200b\ufeff"),
        ("tag\U000e0041", r"tag\U000e0041"),
        (b"\xff\xfe.mp4".decode("utf-8", "surrogateescape"), r"\udcff\udcfe.mp4"),
    ],
)
def test_control_characters_are_escaped(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert expected.isprintable()


def test_messages_keep_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say("error: \x1b[2J\u202e\rb.mp4\n  cure: none")
    assert capsys.readouterr() == ("", "error: \\x1b[2J\\u202e\\rb.mp4\n  cure: none\n")


OUT_OF_MEMORY = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 12 bytes"),
    RuntimeError("can't start new thread"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("limit", [3 * 2**30, 0])
def test_out_of_memory_has_a_cure(
    error: Exception, limit: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    monkeypatch.setattr("evacap_cli.cli.common._address_space", lambda: limit)
    with pytest.raises(typer.Exit) as ended:
        guarded(command)()
    assert ended.value.exit_code == 1
    stderr_text = capsys.readouterr().err
    assert "error: out of memory" in stderr_text
    assert ("limited to 3.0 GiB (ulimit -v)" in stderr_text) == bool(limit)
    assert ("cure: ulimit -v unlimited" in stderr_text) == bool(limit)
    assert "should not happen" not in stderr_text
