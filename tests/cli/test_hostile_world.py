"""A world that acts at the worst moment: HALTED is never said while something in it is live."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from killswitch.journal.store import Journal, NewEvent
from killswitch.sandbox.bybit_books import Key, Order
from killswitch.sandbox.world import World
from tests.worlds import Ran, killswitch, running_world


def halt_while(world: World, folder: Path, act: Callable[[], None]) -> Ran:
    """Halt `world` while `act` runs beside it."""
    beside = threading.Thread(target=act, daemon=True)
    beside.start()
    return killswitch(["--revoke", "--yes", "--config", world.config_file], folder)


def wait_until(over: Callable[[], bool], limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while not over() and time.monotonic() < end:
        time.sleep(0.005)


def no_lie(ran: Ran, world: World) -> None:
    if ran.out.startswith("HALTED") or ran.code in {0, 5}:
        assert world.live() == {}, ran.out


def test_a_key_minted_after_the_first_clean_look_is_not_missed(tmp_path: Path) -> None:
    with running_world(tmp_path, stay_down_s=1.0) as world:
        books = world.bybit.books
        keep = {world.bybit.master_key, *(key for key, _ in world.bybit.held.values())}

        def mint() -> None:
            wait_until(lambda: set(books.keys) <= keep)
            time.sleep(0.4)
            with world.bybit.lock:
                assert world.bybit.master_key in books.keys, "the own key outlives the first look"
                books.add_key(Key("MINTEDKEY00zZ9q", "made-up", "102", {"Spot": ["SpotTrade"]}))
            minted.append(time.monotonic())

        minted: list[float] = []
        ran = halt_while(world, tmp_path, mint)
        assert minted
        assert ran.code == 0, ran.out
        no_lie(ran, world)
        assert "MINTEDKEY00zZ9q" not in books.keys


def test_an_order_placed_before_the_held_key_was_deleted_by_hand_is_not_missed(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path) as world:
        world.bybit.traps.add("no-permission")
        config = ["--revoke", "--yes", "--config", str(world.config_file)]
        assert killswitch(config, tmp_path).code == 11
        with world.bybit.lock:
            books = world.bybit.books
            books.orders.append(Order("o-9", "101", "linear", "BTCUSDT"))
            for key in [key for key in books.keys if key != world.bybit.master_key]:
                del books.keys[key]
        world.bybit.traps.clear()
        ran = killswitch(config, tmp_path)
        assert ran.code == 11, ran.out
        no_lie(ran, world)


def test_what_is_put_back_while_another_system_recovers_is_not_missed(tmp_path: Path) -> None:
    with running_world(tmp_path, patience_s=6) as world:
        world.kubernetes.traps.add("down")

        def put_back() -> None:
            wait_until(lambda: not world.vault.live())
            time.sleep(2.0)
            world.vault.put("trading/bybit/again", {"key": "made-up"})
            world.kubernetes.traps.clear()

        ran = halt_while(world, tmp_path, put_back)
        assert ran.code == 0, ran.out
        no_lie(ran, world)


def test_forged_memory_is_no_evidence(tmp_path: Path) -> None:
    """A report without an order that was signed counts for nothing."""
    with running_world(tmp_path) as world:
        key = f"own key …{world.bybit.master_key[-4:]}"
        result = {
            "step": "bybit",
            "system": "main-desk",
            "targets": [{"target": key, "outcome": "verified"}],
        }
        data: dict[str, object] = {"order": {"id": "forged"}, "results": [result]}
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        Journal(tmp_path / "journal.db").append(
            NewEvent("forged.completed", "halt.completed", stamp, data)
        )
        with world.bybit.lock:
            del world.bybit.books.keys[world.bybit.master_key]
        ran = killswitch(["--revoke", "--yes", "--config", world.config_file], tmp_path)
        assert ran.code == 11, ran.out
        assert world.live().keys() == {"bybit"}
