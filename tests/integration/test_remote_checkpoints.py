"""Checkpoints in a store that speaks S3, over its protocol, in a process of its own."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import xxhash
from remote_checkpoints import FILES, checkpoints, save, staged, steps

from s3_server import BUCKET, CANARY, Server, forgetful
from tollgate_trainer.lifecycle.checkpoints import CheckpointError
from tollgate_trainer.lifecycle.lease import Fenced
from tollgate_trainer.lifecycle.remote import store as stores
from tollgate_trainer.lifecycle.remote.store import Cancelled, Place, Store, StoreError


def test_an_upload_counts_only_with_its_commit_and_comes_back_as_it_was(store: Store, tmp_path: Path) -> None:
    some = checkpoints(store)
    assert some.upload(5, 0, staged(tmp_path / "a"), FILES) == len(b"weights") + len(b"rng")
    assert steps(store) == []
    commit = some.commit(5, FILES, {"eval_loss": 1.5})
    assert steps(store) == [5]
    assert commit.ref(store).path == f"{store.place.uri()}/checkpoint-5"
    assert commit.digest.startswith("xxh3:")
    assert {one.path: one.xxh3 for one in commit.files} == {
        "model.bin": xxhash.xxh3_128_hexdigest(b"weights"),
        "inner/rng.pth": xxhash.xxh3_128_hexdigest(b"rng"),
    }
    assert some.fetch(commit, tmp_path / "b") is None
    assert (tmp_path / "b/inner/rng.pth").read_bytes() == b"rng"
    (found,) = some.committed()
    assert found == commit
    assert found.metrics == {"eval_loss": 1.5}


def test_a_large_file_goes_in_parallel_parts_and_its_hash_is_that_of_the_whole(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "PART_BYTES", 5 * 1024 * 1024)
    content = bytes(range(256)) * (52 * 1024)  # 13 MiB: three parts
    some = checkpoints(store)
    some.upload(5, 0, staged(tmp_path / "a", content), FILES)
    commit = some.commit(5, FILES, {})
    key = store.place.key(f"{commit.folder}/model.bin")
    assert store._client.head_object(Bucket=BUCKET, Key=key)["ETag"].endswith('-3"'), "three parts"
    assert some.fetch(commit, tmp_path / "b") is None
    assert (tmp_path / "b/model.bin").read_bytes() == content


@pytest.mark.parametrize("damage", ["content", "size", "missing", "commit"])
def test_a_damaged_checkpoint_is_passed_over_and_named(store: Store, tmp_path: Path, damage: str) -> None:
    save(store, tmp_path, 5)
    save(store, tmp_path, 10)
    name = "checkpoint-10/1/model.bin"
    if damage == "missing":
        store.delete([name])
    elif damage == "commit":
        document = json.loads(store.get("checkpoint-10/COMMIT.json") or b"")
        document["files"][0]["size"] += 1
        store.put("checkpoint-10/COMMIT.json", json.dumps(document).encode())
    else:
        store.put(name, b"weightz" if damage == "content" else b"weights and more")
    told: list[tuple[int, str]] = []
    found = checkpoints(store).newest_valid(
        lambda step: tmp_path / f"back-{step}", lambda one, why: told.append((one.step, why))
    )
    assert found is not None
    assert found[0].step == 5
    assert [step for step, _ in told] == [10]
    assert ("model.bin" in told[0][1]) == (damage != "commit")
    assert not (tmp_path / "back-10").exists()


def test_what_is_on_the_disk_already_is_not_fetched_again_unless_it_differs(store: Store, tmp_path: Path) -> None:
    save(store, tmp_path, 5)
    some = checkpoints(store)
    (commit,) = some.committed()
    assert some.fetch(commit, tmp_path / "b") is None
    before = (tmp_path / "b/model.bin").stat().st_ino
    assert some.fetch(commit, tmp_path / "b") is None
    assert (tmp_path / "b/model.bin").stat().st_ino == before
    (tmp_path / "b/model.bin").write_bytes(b"weightz")
    assert some.fetch(commit, tmp_path / "b") is None
    assert (tmp_path / "b/model.bin").read_bytes() == b"weights"


def test_a_commit_needs_every_process_s_list_and_every_expected_file(store: Store, tmp_path: Path) -> None:
    some = checkpoints(store, world=2)
    some.upload(5, 0, staged(tmp_path / "a"), ["model.bin"])
    with pytest.raises(CheckpointError, match="process 1 left no list"):
        some.commit(5, FILES, {})
    some.upload(5, 1, tmp_path / "a", [])
    with pytest.raises(CheckpointError, match=r"nobody uploaded inner/rng.pth"):
        some.commit(5, FILES, {})
    some.upload(5, 1, tmp_path / "a", ["model.bin", "inner/rng.pth"])
    with pytest.raises(CheckpointError, match=r"two processes uploaded model.bin"):
        some.commit(5, FILES, {})
    some.upload(5, 1, tmp_path / "a", ["inner/rng.pth"])
    some.commit(5, FILES, {})
    assert steps(store) == [5]


def test_of_two_attempts_that_commit_one_step_one_wins_and_the_other_is_fenced(store: Store, tmp_path: Path) -> None:
    both = [checkpoints(store, attempt) for attempt in (1, 2)]
    for number, one in enumerate(both):
        one.upload(5, 0, staged(tmp_path / str(number), f"attempt {number}".encode()), FILES)
    both[1].commit(5, FILES, {})
    with pytest.raises(Fenced, match="attempt 2 committed step 5 already"):
        both[0].commit(5, FILES, {})
    (commit,) = both[0].committed()
    assert commit.attempt == 2
    assert both[0].fetch(commit, tmp_path / "back") is None


def test_between_looking_and_committing_the_store_itself_refuses_the_second(store: Store, tmp_path: Path) -> None:
    slow, quick = checkpoints(store, 1), checkpoints(store, 2)
    for number, one in enumerate((slow, quick)):
        one.upload(5, 0, staged(tmp_path / str(number)), FILES)
    # The newer attempt commits just after the older one has looked at its fence for the last time.
    slow._check_fence = lambda: None
    get = slow.store.get

    def get_then_lose(name: str) -> bytes | None:
        found = get(name)
        if name.endswith("COMMIT.json") and found is None and not steps(store):
            quick.commit(5, FILES, {})
        return found

    lagging = Store(store.place)
    lagging.get = get_then_lose  # type: ignore[method-assign]
    slow.store = lagging
    with pytest.raises(Fenced, match="another attempt committed step 5"):
        slow.commit(5, FILES, {})
    assert [one.attempt for one in quick.committed()] == [2]


def test_a_fenced_attempt_commits_nothing(store: Store, tmp_path: Path) -> None:
    def fenced() -> None:
        raise Fenced("attempt 2 holds it")

    some = checkpoints(store, check_fence=fenced)
    some.upload(5, 0, staged(tmp_path / "a"), FILES)
    with pytest.raises(Fenced):
        some.commit(5, FILES, {})
    assert steps(store) == []


def test_removing_takes_the_commit_first(store: Store, tmp_path: Path) -> None:
    save(store, tmp_path, 5)
    removed: list[str] = []
    delete = store.delete

    def remember(names: Any) -> None:
        names = list(names)
        removed.extend(names)
        delete(names)

    store.delete = remember  # type: ignore[method-assign]
    checkpoints(store).remove(5)
    assert removed[0] == "checkpoint-5/COMMIT.json"
    assert list(store.list()) == []


def test_what_earlier_attempts_left_is_removed_once_it_is_old(store: Store, tmp_path: Path) -> None:
    save(store, tmp_path, 5)
    checkpoints(store, 1).upload(10, 0, staged(tmp_path / "a"), FILES)
    later = checkpoints(store, 2)
    assert later.clear_abandoned(datetime.now(UTC)) == 0
    assert later.clear_abandoned(datetime.now(UTC) + timedelta(hours=2)) == 3
    assert steps(store) == [5]
    assert {stored.name.split("/")[0] for stored in store.list()} == {"checkpoint-5"}


# --- the store --------------------------------------------------------------------------------------------------------


def test_the_probe_accepts_a_store_that_honours_conditional_writes_and_leaves_nothing(store: Store) -> None:
    store.probe()
    assert list(store.list()) == []


def test_the_probe_refuses_a_store_that_ignores_them(s3: Server, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with forgetful(s3) as other:
        monkeypatch.setenv("AWS_ENDPOINT_URL", other.endpoint)
        careless = Store(store.place)
        careless.put("x", b"works otherwise")
        assert careless.get("x") == b"works otherwise"
        with pytest.raises(StoreError, match="ignores If-None-Match"):
            careless.probe()
        assert [stored.name for stored in careless.list()] == ["x"]


def test_errors_name_the_object_and_the_fix_and_no_secret(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.get("nothing") is None
    absent = Store(Place("no-such-bucket", "p"))
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/p/x can't be written.*create the bucket") as caught:
        absent.put("x", b"")
    assert CANARY not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreError, match="check AWS_ENDPOINT_URL") as caught:
        Store(Place(BUCKET, "p")).put("x", b"")
    assert CANARY not in str(caught.value)
    for uri in ("s3:/x", "http://x/y", "s3://", "s3://UPPER/x"):
        with pytest.raises(StoreError, match="is not an s3:// URI"):
            Place.parse(uri)


def test_an_upload_can_be_given_up(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        checkpoints(store).upload(5, 0, staged(tmp_path / "a"), FILES, lambda: True)
    with pytest.raises(Cancelled):
        store.upload(tmp_path / "a" / "model.bin", "x", lambda: True)
    assert list(store.list()) == []
