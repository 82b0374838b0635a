"""What holds of named tokens wherever they are kept: in a file, or on the shelf of a database."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from abstractgateway.errors import Conflict, NotFound, Unavailable
from abstractgateway.security.tokens import MOST_NAMED
from abstractgateway.service import tokens as tokens_module
from abstractgateway.service.shared_tokens import DRAWER, SharedTokens
from abstractgateway.service.tokens import NamedTokens, TokenFile
from abstractgateway.stores.shelf import SharedShelf
from abstractgateway.testing import ManualClock
from tests.postgres.server import open_test_database, shared, url_of

Open = Callable[[], NamedTokens]
PATIENCE_S = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "gateway_tokens.json"


@pytest.fixture
def tokens(path: Path) -> NamedTokens:
    return NamedTokens(TokenFile(path), ManualClock())


@pytest.fixture
def open_shelf(tmp_path: Path) -> Iterator[Callable[[], SharedShelf]]:
    """Opens the shelf of a database; again for another process."""
    with ExitStack() as closing:

        def start() -> SharedShelf:
            stores = open_test_database(tmp_path)
            closing.callback(stores.close)
            return stores.shelf

        yield start


@pytest.fixture
def shelf(open_shelf: Callable[[], SharedShelf]) -> SharedShelf:
    return open_shelf()


@pytest.fixture(params=["file", "shared"])
def opened(request: pytest.FixtureRequest, path: Path) -> Open:
    """Opens the tokens; again for another process."""
    if request.param == "file":
        return lambda: NamedTokens(TokenFile(path), ManualClock())
    open_shelf = request.getfixturevalue("open_shelf")
    return lambda: NamedTokens(SharedTokens(open_shelf()), ManualClock())


def names(tokens: NamedTokens) -> list[str]:
    return [item["name"] for item in tokens.listed()]


def test_the_one_who_makes_and_revokes_a_token_knows_at_once(opened: Open) -> None:
    tokens = opened()
    about, _ = tokens.create("ci", ["read"])
    made = [token.id for token in tokens.current()]
    tokens.revoke("ci")

    assert made == [about["id"]]
    assert tokens.current() == ()


def test_another_process_lists_and_revokes_what_was_made(opened: Open) -> None:
    one, two = opened(), opened()
    one.create("ci", ["read"])
    one.create("ui", ["run"])
    found = names(two)

    two.revoke("ci")

    assert found == ["ci", "ui"]
    assert names(one) == names(opened()) == ["ui"]


def test_what_is_kept_is_what_was_made(opened: Open) -> None:
    clock = ManualClock()
    about, _ = opened().create("ci é", ["run", "read"], session_id="s-1", expires_at=clock.now().replace(year=2199))

    assert opened().listed() == [about]
    assert (about["scopes"], about["session_id"], about["expired"]) == (["read", "run"], "s-1", False)


def test_nothing_is_read_again_while_nothing_changes(opened: Open) -> None:
    tokens = opened()
    tokens.create("ci", ["read"])

    assert tokens.current() is tokens.current()


def test_a_name_is_given_once_and_can_be_given_again_after_it_was_revoked(opened: Open) -> None:
    tokens, other = opened(), opened()
    tokens.create("ci", ["read"])

    for each in (tokens, other):
        with pytest.raises(Conflict, match="'ci'"):
            each.create("ci", ["run"])
    tokens.revoke("ci")

    assert other.create("ci", ["run"])[0]["scopes"] == ["run"]


def test_a_token_is_revoked_by_its_id_too(opened: Open) -> None:
    tokens = opened()
    about, _ = tokens.create("ci", ["read"])

    tokens.revoke(about["id"])

    assert tokens.listed() == []
    with pytest.raises(NotFound, match="'ci'"):
        tokens.revoke("ci")


def test_a_list_shows_no_digest(opened: Open) -> None:
    tokens = opened()
    tokens.create("ci", ["read"], session_id="s-1")

    (shown,) = tokens.listed()

    assert "sha256" not in shown
    assert (shown["name"], shown["scopes"], shown["session_id"], shown["expired"]) == ("ci", ["read"], "s-1", False)


def test_changes_of_several_threads_are_all_kept(opened: Open) -> None:
    tokens = [opened() for _ in range(3)]
    made = [
        threading.Thread(target=lambda name=f"t-{n:02}", by=tokens[n % 3]: by.create(name, ["read"])) for n in range(12)
    ]
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()

    assert sorted(names(opened())) == [f"t-{n:02}" for n in range(12)]


def test_of_several_that_give_the_same_name_at_once_one_succeeds(opened: Open) -> None:
    refused: list[Conflict] = []
    together = threading.Barrier(4)

    def create(tokens: NamedTokens) -> None:
        together.wait(PATIENCE_S)
        try:
            tokens.create("ci", ["read"])
        except Conflict as error:
            refused.append(error)

    processes = [opened() for _ in range(4)]
    made = [threading.Thread(target=create, args=(each,)) for each in processes]
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()

    assert (len(refused), names(opened())) == (3, ["ci"])


def test_there_are_not_more_tokens_than_every_request_can_be_compared_with(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "MOST_NAMED", 2)
    tokens = opened()
    tokens.create("a", ["read"])
    tokens.create("b", ["read"])

    with pytest.raises(Conflict, match="there are 2 tokens"):
        tokens.create("c", ["read"])

    assert (names(tokens), MOST_NAMED) == (["a", "b"], 1_000)


def test_the_file_can_be_opened_by_its_owner_only_and_has_no_token_in_it(tokens, path):
    _, text = tokens.create("ci", ["read"])

    assert path.stat().st_mode & 0o777 == 0o600
    assert text not in path.read_text()
    assert text.split("_", 2)[2] not in path.read_text()


def test_the_database_has_no_token_in_it(shelf: SharedShelf) -> None:
    _, text = NamedTokens(SharedTokens(shelf)).create("ci", ["read"])

    (content,) = shelf.read(DRAWER, ["ci"]).values()

    assert text.split("_", 2)[2].encode() not in content


def test_another_process_sees_what_was_made_and_what_was_revoked(path):
    mine = NamedTokens(TokenFile(path))
    code = (
        "import sys; from pathlib import Path; from abstractgateway.service.tokens import NamedTokens as T, TokenFile; "
    )
    seen = [[]]

    for statement in ("create('ci', ['read'])", "create('ui', ['run'])", "revoke('ci')"):
        program = f"{code}T(TokenFile(Path(sys.argv[1]))).{statement}"
        subprocess.run([sys.executable, "-c", program, str(path)], check=True)
        seen.append([token.name for token in mine.current()])

    assert seen == [[], ["ci"], ["ci", "ui"], ["ui"]]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tokens": [{}]}', '{"tokens": 5}'])
def test_a_damaged_file_admits_nobody_and_is_not_written_over(tokens, path, content):
    tokens.create("ci", ["read"])
    tokens.current()
    path.write_text(content)

    assert tokens.current() == ()
    with pytest.raises(Unavailable, match=r"gateway_tokens\.json cannot be read"):
        tokens.create("ui", ["read"])
    assert path.read_text() == content


@pytest.mark.parametrize(
    "damage", ["content = 'x'", "content = '{}', sha256 = encode(sha256('{}'), 'hex')", "name = 'other'"]
)
def test_a_damaged_token_of_the_database_admits_nobody_and_can_be_taken_away(
    opened: Open, tmp_path: Path, damage: str, open_shelf: Callable[[], SharedShelf]
) -> None:
    before = NamedTokens(SharedTokens(open_shelf()))
    for name in ("ci", "ui"):
        before.create(name, ["read"])
    database = url_of(tmp_path).rpartition("/")[2]
    shared().execute(f"UPDATE abstractgateway.shelf SET {damage} WHERE name = 'ci'", database)
    tokens = NamedTokens(SharedTokens(open_shelf()))
    accepted = [token.name for token in tokens.current()]
    with pytest.raises(Unavailable, match="is damaged; remove it: abstractgateway token revoke '(ci|other)'"):
        tokens.listed()

    revoked = tokens.revoke("other" if "other" in damage else "ci")

    assert accepted == names(tokens) == ["ui"]
    assert revoked["scopes"] == []


def test_without_a_file_there_are_none_and_none_can_be_made():
    tokens = NamedTokens()

    assert tokens.current() == ()
    with pytest.raises(Unavailable, match="stores in memory"):
        tokens.create("ci", ["read"])


def test_a_file_that_cannot_be_written_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no directory")

    with pytest.raises(Unavailable, match=r"gateway_tokens\.json cannot be"):
        NamedTokens(TokenFile(tmp_path / "data" / "gateway_tokens.json")).create("ci", ["read"])


def test_tokens_of_a_data_directory_are_taken_over_once(open_shelf: Callable[[], SharedShelf], path: Path) -> None:
    in_file = NamedTokens(TokenFile(path))
    about, _ = in_file.create("ci", ["read"], session_id="s-1")
    in_file.create("ui", ["run"])
    taken_over = NamedTokens(SharedTokens(open_shelf(), before=TokenFile(path)))
    first = taken_over.listed()
    taken_over.revoke("ci")

    again = NamedTokens(SharedTokens(open_shelf(), before=TokenFile(path)))

    assert {item["name"]: item["id"] for item in first}["ci"] == about["id"]
    assert len(first) == 2
    assert names(again) == ["ui"]
    assert names(in_file) == ["ci", "ui"]


def test_of_two_files_with_the_same_name_the_first_counts_and_the_other_is_told_of(
    open_shelf: Callable[[], SharedShelf], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [TokenFile(tmp_path / machine / "gateway_tokens.json") for machine in ("one", "two")]
    made = [NamedTokens(file).create("ci", ["read"])[0]["id"] for file in files]

    with caplog.at_level(logging.WARNING):
        found = [NamedTokens(SharedTokens(open_shelf(), before=file)).listed()[0]["id"] for file in files]

    assert found == [made[0], made[0]]
    assert caplog.text.count("the token 'ci' of this data directory is not accepted") == 1


def test_a_damaged_file_is_not_taken_over_and_told(shelf: SharedShelf, path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{")

    with pytest.raises(Unavailable, match=r"gateway_tokens\.json cannot be read"):
        SharedTokens(shelf, before=TokenFile(path))
