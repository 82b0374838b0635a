from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from abstractgateway.errors import Conflict, NotFound, Unavailable
from abstractgateway.service.tokens import NamedTokens
from abstractgateway.testing import ManualClock


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "gateway_tokens.json"


@pytest.fixture
def tokens(path) -> NamedTokens:
    return NamedTokens(path, ManualClock())


def test_the_file_can_be_opened_by_its_owner_only_and_has_no_token_in_it(tokens, path):
    _, text = tokens.create("ci", ["read"])

    assert path.stat().st_mode & 0o777 == 0o600
    assert text not in path.read_text()
    assert text.rpartition("_")[2] not in path.read_text()


def test_another_process_sees_what_was_made_and_what_was_revoked(tokens, path):
    mine = NamedTokens(path)
    code = "import sys; from pathlib import Path; from abstractgateway.service.tokens import NamedTokens as T; "
    names = [[]]

    for statement in ("create('ci', ['read'])", "create('ui', ['run'])", "revoke('ci')"):
        subprocess.run([sys.executable, "-c", f"{code}T(Path(sys.argv[1])).{statement}", str(path)], check=True)
        names.append([token.name for token in mine.current()])

    assert names == [[], ["ci"], ["ci", "ui"], ["ui"]]


def test_nothing_is_read_again_while_nothing_changes(tokens):
    tokens.create("ci", ["read"])

    assert tokens.current() is tokens.current()


def test_a_name_is_given_once_and_can_be_given_again_after_it_was_revoked(tokens):
    tokens.create("ci", ["read"])

    with pytest.raises(Conflict, match="'ci'"):
        tokens.create("ci", ["run"])
    tokens.revoke("ci")

    assert tokens.create("ci", ["run"])[0]["scopes"] == ["run"]


def test_a_token_is_revoked_by_its_id_too(tokens):
    about, _ = tokens.create("ci", ["read"])

    tokens.revoke(about["id"])

    assert tokens.listed() == []
    with pytest.raises(NotFound, match="'ci'"):
        tokens.revoke("ci")


def test_a_list_shows_no_digest(tokens):
    tokens.create("ci", ["read"], session_id="s-1")

    (shown,) = tokens.listed()

    assert "sha256" not in shown
    assert (shown["name"], shown["scopes"], shown["session_id"], shown["expired"]) == ("ci", ["read"], "s-1", False)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tokens": [{}]}', '{"tokens": 5}'])
def test_a_damaged_file_admits_nobody_and_is_not_written_over(tokens, path, content):
    tokens.create("ci", ["read"])
    tokens.current()
    path.write_text(content)

    assert tokens.current() == ()
    with pytest.raises(Unavailable, match=r"gateway_tokens\.json cannot be read"):
        tokens.create("ui", ["read"])
    assert path.read_text() == content


def test_changes_of_several_threads_are_all_kept(path):
    made = [threading.Thread(target=lambda name=f"t-{n}": NamedTokens(path).create(name, ["read"])) for n in range(12)]
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()

    assert len(NamedTokens(path).listed()) == 12


def test_without_a_file_there_are_none_and_none_can_be_made():
    tokens = NamedTokens(None)

    assert tokens.current() == ()
    with pytest.raises(Unavailable, match="stores in memory"):
        tokens.create("ci", ["read"])
