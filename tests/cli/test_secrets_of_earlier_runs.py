"""A Secret that only a drill saw named is still ended by the halt that follows."""

from pathlib import Path

from killswitch.sandbox.external_secrets import Thing
from tests.cli.test_odd_configurations import only
from tests.worlds import killswitch, running_world


def test_a_secret_whose_externalsecret_went_since_the_drill_is_deleted(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        world.config_file.write_text(only(world.config_file.read_text(), "synced_secrets"))
        config = ["--yes", "--config", str(world.config_file)]
        books = world.kubernetes.synced
        spec = {"target": {"name": "bot2-keys", "creationPolicy": "Orphan"}}
        books.add("externalsecrets", Thing(name="bot2", namespace="trading", spec=spec))
        books.add("secrets", Thing(name="bot2-keys", namespace="trading", data={"key": "made-up"}))
        assert killswitch(["drill", *config], tmp_path).code == 0
        del books.things["externalsecrets", "trading", "bot2"]
        halt = killswitch(["--revoke", *config], tmp_path)
        assert halt.code == 0, halt.err + halt.out
        assert world.kubernetes.live_secrets() == []
