"""The synced-secrets step against a cluster that holds its state in memory."""

from dataclasses import dataclass, field

import pytest

from killswitch.errors import RefusedError, UnreachableError, VendorError
from killswitch.model import Action, Plan, Receipt
from killswitch.steps.synced_secrets import DeleteSyncedSecrets
from killswitch.steps.synced_secrets_port import (
    PARENTS,
    PUSHES,
    SYNCS,
    Found,
    Latch,
    Lock,
    Parent,
    Synced,
)

NS = "trading"
MADE = frozenset(["clusterexternalsecrets/everywhere"])


@dataclass
class FakeCluster:
    """One namespace, "trading"; it remembers only what a real client would."""

    latched: Latch = field(default_factory=lambda: Latch(Lock.MISSING))
    objects: dict[str, dict[str, Synced]] = field(default_factory=lambda: {PUSHES: {}, SYNCS: {}})
    owners: dict[str, dict[str, Parent]] = field(default_factory=lambda: {it: {} for it in PARENTS})
    there: dict[str, Found] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    broken: dict[str, VendorError] = field(default_factory=dict)
    installed: bool = True
    log: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)
    refused: bool = False
    asked_stores: bool = False
    reported: set[str] = field(default_factory=set)
    was_there: set[str] = field(default_factory=set)
    seen_makers: dict[str, set[str]] = field(default_factory=lambda: {it: set() for it in PARENTS})

    @property
    def writes(self) -> "FakeWrites":
        return FakeWrites(self, dry_run=False)

    @property
    def rehearsal(self) -> "FakeWrites":
        return FakeWrites(self, dry_run=True)

    def latch(self, namespace: str) -> Latch:
        self.fail("quota")
        self.named |= dict.fromkeys(self.latched.names, "an earlier look")
        for maker in self.latched.makers:
            resource, _, name = maker.partition("/")
            self.seen_makers[resource].add(name)
        return self.latched if namespace == NS else Latch(Lock.MISSING)

    def synced(self, namespace: str, resource: str) -> tuple[Synced, ...] | None:
        self.fail(resource)
        if not self.installed:
            return None
        found = tuple(self.objects[resource].values()) if namespace == NS else ()
        for one in found:
            self.named |= dict.fromkeys(one.secrets, f"{resource} {one.name}")
            maker = PARENTS[0] if resource == PUSHES else PARENTS[1]
            self.seen_makers[maker].update(filter(None, [one.parent]))
        return found

    def parents(self, resource: str) -> tuple[Parent, ...] | None:
        self.fail(resource)
        return tuple(self.owners[resource].values()) if self.installed else None

    def secret(self, namespace: str, name: str) -> Found | None:
        self.asked.append(name)
        self.fail(name)
        found = self.there.get(name) if namespace == NS else None
        if found:
            self.was_there.add(name)
        return found

    def logins(self, namespace: str) -> dict[str, str]:
        self.fail("stores")
        self.asked_stores = True
        return self.tokens if namespace == NS else {}

    def discovered(self, namespace: str) -> dict[str, str]:
        left = self.left(namespace)
        names = self.named.items() if namespace == NS else ()
        return {name: through for name, through in names if name not in left}

    def left(self, namespace: str) -> dict[str, str]:
        named = self.named if self.asked_stores and namespace == NS else {}
        read = {name for name, through in named.items() if through.startswith(PUSHES)}
        return {it: self.tokens[it] for it in (read & self.tokens.keys()) - self.was_there}

    def seen(self, namespace: str) -> frozenset[str]:
        return frozenset(self.was_there if namespace == NS else ())

    def lock_refused(self, namespace: str) -> bool:
        return self.refused and namespace == NS

    def earlier_makers(self, resource: str) -> frozenset[str]:
        return frozenset(self.reported if resource == PARENTS[1] else ())

    def makers(self, resource: str) -> frozenset[str]:
        return frozenset(self.seen_makers[resource])

    def fail(self, part: str) -> None:
        if part in self.broken:
            raise self.broken[part]


@dataclass
class FakeWrites:
    cluster: FakeCluster
    dry_run: bool

    def lock(self, namespace: str) -> Receipt:
        if namespace != NS:
            raise RefusedError(f"namespace {namespace!r} does not exist (404)")
        names = frozenset(self.cluster.was_there | self.cluster.discovered(namespace).keys())
        if self._note("lock"):
            seen = self.cluster.seen_makers.items()
            makers = frozenset(f"{kind}/{name}" for kind, found in seen for name in found)
            self.cluster.latched = Latch(Lock.IN_FORCE, names, makers)
        return Receipt("locked")

    def delete(self, resource: str, name: str, namespace: str = "") -> Receipt:
        if self._note(f"{resource} {name}"):
            group = self.cluster.objects if namespace else self.cluster.owners
            del group[resource][name]
        return Receipt("deleted")

    def delete_secret(self, namespace: str, name: str) -> Receipt:
        assert namespace == NS
        if self._note(f"secret {name}"):
            del self.cluster.there[name]
        return Receipt("deleted")

    def _note(self, what: str) -> bool:
        self.cluster.log.append(f"dry run: {what}" if self.dry_run else what)
        return not self.dry_run


@pytest.fixture
def fake() -> FakeCluster:
    fake = FakeCluster()
    for name, parent in (("owned", ""), ("spread", "everywhere")):
        fake.objects[SYNCS][name] = Synced(name, secrets=(name,), parent=parent)
    fake.objects[PUSHES]["back"] = Synced("back", secrets=("pushed",))
    fake.owners[PARENTS[1]] = {
        "everywhere": Parent("everywhere", frozenset([NS, "research"])),
        "elsewhere": Parent("elsewhere", frozenset(["research"])),
    }
    fake.there = {name: Found() for name in ("owned", "spread", "pushed", "listed", "other")}
    return fake


def step_on(
    fake: FakeCluster, *secrets: str, namespaces: tuple[str, ...] = (NS,)
) -> DeleteSyncedSecrets:
    return DeleteSyncedSecrets(fake, "main", namespaces, secrets)


def carry_out(step: DeleteSyncedSecrets, *, phases: int = 6) -> Plan:
    """Perform phase after phase, as the engine does, up to `phases`; return the last plan."""
    while True:
        plan = step.plan()
        actions = [each for each in plan.live if each.phase <= phases and not each.withheld]
        if not actions:
            return plan
        phase = min(action.phase for action in actions)
        for action in actions:
            if action.phase == phase:
                action.perform()


def live(plan: Plan) -> dict[str, Action]:
    return {action.target: action for action in plan.live}


def clear(plan: Plan) -> dict[str, bool]:
    return {clear.target: clear.only_if_known for clear in plan.clear}


def test_the_order_is_latch_parents_pushes_syncs_and_the_secrets_last(fake: FakeCluster) -> None:
    plan = carry_out(step_on(fake, f"{NS}/listed"))
    assert fake.log == [
        "lock",
        "clusterexternalsecrets everywhere",
        "pushsecrets back",
        "externalsecrets owned",
        "externalsecrets spread",
        "secret listed",
        "secret owned",
        "secret pushed",
        "secret spread",
    ]
    assert (plan.live, plan.blind) == ((), ())
    assert set(fake.there) == {"other"}
    assert set(fake.owners[PARENTS[1]]) == {"elsewhere"}


def test_a_look_changes_nothing_and_a_rehearsal_only_asks(fake: FakeCluster) -> None:
    before = dict(fake.there)
    for action in step_on(fake).plan().live:
        action.rehearse()
    assert fake.there == before
    assert len(fake.log) == 8
    assert all(what.startswith("dry run: ") for what in fake.log)


def test_a_listed_secret_that_was_never_seen_counts_only_if_an_earlier_run_saw_it(
    fake: FakeCluster,
) -> None:
    plan = carry_out(step_on(fake, f"{NS}/listde"))
    assert clear(plan)[f"{NS}/secrets/listde"] is True
    assert clear(plan)[f"{NS}/secrets/owned"] is False


def test_the_name_beside_the_quota_lets_a_second_run_know_what_nothing_else_names(
    fake: FakeCluster,
) -> None:
    carry_out(step_on(fake), phases=4)  # killed before the Secrets
    fake.named, fake.was_there = {}, set()
    assert fake.objects == {PUSHES: {}, SYNCS: {}}

    plan = carry_out(step_on(fake))

    assert plan.live == ()
    assert set(fake.there) == {"listed", "other"}


def test_a_name_is_written_down_before_what_made_it_known_is_deleted(fake: FakeCluster) -> None:
    fake.latched = Latch(Lock.IN_FORCE, frozenset(["owned", "spread"]), MADE)
    action = live(step_on(fake).plan())[f"{NS}/quota"]
    assert action.phase == 1
    fake.latched = Latch(Lock.IN_FORCE, frozenset(["owned", "spread", "pushed"]), MADE)
    assert f"{NS}/quota" in clear(step_on(fake).plan())


def test_what_names_a_secret_stays_until_the_name_is_noted(fake: FakeCluster) -> None:
    makers = {
        f"{NS}/pushsecrets/back",
        f"{NS}/externalsecrets/owned",
        f"{NS}/externalsecrets/spread",
        "all namespaces/clusterexternalsecrets/everywhere",
    }
    for noted, waiting in (
        ((), makers),
        (("owned", "spread"), {f"{NS}/pushsecrets/back"}),
        (("owned", "spread", "pushed"), set()),
    ):
        fake.latched = Latch(Lock.IN_FORCE, frozenset(noted), MADE)
        found = live(step_on(fake).plan())
        assert {target for target in found if found[target].withheld} == waiting
    fake.latched, fake.refused = Latch(Lock.MISSING), True
    found = live(step_on(fake).plan())
    assert not [target for target in found if found[target].withheld]


def test_a_parent_stays_while_what_it_made_cannot_be_seen_for_a_moment(fake: FakeCluster) -> None:
    fake.latched = Latch(Lock.IN_FORCE, frozenset(["pushed"]))
    fake.seen_makers[PARENTS[1]] = {"everywhere"}
    fake.broken = {SYNCS: UnreachableError("503")}
    parent = live(step_on(fake).plan())["all namespaces/clusterexternalsecrets/everywhere"]
    assert parent.withheld == "waits until the externalsecrets in trading are seen"


def test_a_quota_that_is_not_in_force_yet_holds_up_nothing(fake: FakeCluster) -> None:
    fake.latched = Latch(Lock.PENDING, frozenset(["owned", "spread", "pushed"]), MADE)
    assert live(step_on(fake).plan())[f"{NS}/quota"].phase == 6


def test_a_store_that_names_a_bots_secret_does_not_take_it_off_the_targets(
    fake: FakeCluster,
) -> None:
    fake.tokens = {"owned": "SecretStore evil", "other": "SecretStore vault"}
    plan = carry_out(step_on(fake))
    assert set(fake.there) == {"listed", "other", "owned"}
    withheld = {target: action.withheld for target, action in live(plan).items()}
    words = "SecretStore evil logs in with it: delete it, or that store, by hand"
    assert withheld == {f"{NS}/secrets/owned": words}
    assert f"{NS}/quota" in clear(plan)


def test_a_token_that_only_a_pushsecret_reads_is_left_alone_named_and_not_noted(
    fake: FakeCluster,
) -> None:
    fake.tokens = {"pushed": "SecretStore vault"}
    plan = carry_out(step_on(fake))
    assert (plan.live, "pushed" in fake.there) == ((), True)
    assert "pushed" not in fake.latched.names
    assert "Secret trading/pushed is what SecretStore vault logs in with: left alone" in {
        note.text for note in plan.notes
    }


def test_a_secret_that_was_seen_live_stays_a_target_when_a_store_names_it(
    fake: FakeCluster,
) -> None:
    assert f"{NS}/secrets/pushed" in live(step_on(fake).plan())
    fake.tokens = {"pushed": "SecretStore vault"}
    plan = carry_out(step_on(fake))
    assert [action.target for action in plan.live if action.withheld] == [f"{NS}/secrets/pushed"]


def test_a_look_without_the_list_of_stores_sees_no_secret_as_gone_or_live(
    fake: FakeCluster,
) -> None:
    fake.tokens = {"owned": "SecretStore vault"}
    fake.broken = {"stores": UnreachableError("503")}
    plan = step_on(fake, f"{NS}/listed").plan()
    assert [(blind.target, blind.lasting) for blind in plan.blind] == [(f"{NS}/secrets", False)]
    fake.broken = {}
    assert f"{NS}/secrets/owned" in live(step_on(fake).plan())


def test_a_listed_token_of_a_store_is_withheld_and_its_rehearsal_says_so(
    fake: FakeCluster,
) -> None:
    fake.tokens = {"listed": "SecretStore vault"}
    action = live(step_on(fake, f"{NS}/listed").plan())[f"{NS}/secrets/listed"]
    assert "take it off the list" in action.withheld
    with pytest.raises(RefusedError, match="SecretStore vault logs in with it"):
        action.rehearse()


def test_what_hangs_on_its_finalizer_is_a_line_and_not_live(fake: FakeCluster) -> None:
    fake.objects[PUSHES]["back"] = Synced("back", ending_s=7.0)
    plan = step_on(fake).plan()
    assert f"{NS}/pushsecrets/back" not in live(plan)
    assert clear(plan)[f"{NS}/pushsecrets/back"] is False
    words = "deletion asked, it hangs on its finalizer; it never pushes again"
    assert [note.text for note in plan.notes if note.kind == "finalizer"] == [
        f"{NS}/pushsecrets/back: {words}"
    ]


def test_what_was_just_deleted_does_not_hang_yet(fake: FakeCluster) -> None:
    fake.objects[PUSHES]["back"] = Synced("back", ending_s=0.5)
    assert not [note for note in step_on(fake).plan().notes if note.kind == "finalizer"]


def test_nothing_installed_is_said_and_the_listed_secrets_are_deleted(fake: FakeCluster) -> None:
    fake.installed = False
    plan = carry_out(step_on(fake, f"{NS}/listed"))
    assert fake.log == ["lock", "secret listed"]
    saws = {each.target: each.saw for each in plan.clear}
    assert saws[f"{NS}/externalsecrets"] == "External Secrets is not installed"


def test_nothing_installed_clears_no_secret_that_an_earlier_run_found(fake: FakeCluster) -> None:
    fake.installed = False
    fake.named = {"owned": "an earlier run"}
    plan = carry_out(step_on(fake))
    assert fake.log == ["lock", "secret owned"]
    assert clear(plan)[f"{NS}/secrets/owned"] is False


def test_a_namespace_that_does_not_exist_is_never_clear(fake: FakeCluster) -> None:
    plan = step_on(fake, "nowhere/listed", namespaces=("nowhere",)).plan()
    found = clear(plan)
    for part in ("pushsecrets", "externalsecrets", "secrets/listed"):
        assert found[f"nowhere/{part}"] is True
    assert "nowhere/quota" in live(plan)


def test_an_empty_list_is_proof_beside_an_object_of_the_other_kind(fake: FakeCluster) -> None:
    for empty, other in ((PUSHES, SYNCS), (SYNCS, PUSHES)):
        fake.objects[empty], fake.there = {}, {}
        fake.objects[other] = {"one": Synced("one", ending_s=1.0)}
        assert clear(step_on(fake).plan())[f"{NS}/{empty}"] is False


def test_an_empty_list_is_proof_beside_a_listed_secret_that_was_found(fake: FakeCluster) -> None:
    fake.objects = {PUSHES: {}, SYNCS: {}}
    found = clear(step_on(fake, f"{NS}/listed", f"{NS}/typo").plan())
    assert (found[f"{NS}/{PUSHES}"], found[f"{NS}/{SYNCS}"]) == (False, False)
    assert found[f"{NS}/secrets/typo"] is True


def test_an_empty_list_is_proof_beside_the_quota(fake: FakeCluster) -> None:
    fake.objects, fake.there = {PUSHES: {}, SYNCS: {}}, {}
    fake.latched = Latch(Lock.PENDING)
    found = clear(step_on(fake).plan())
    assert (found[f"{NS}/{PUSHES}"], found[f"{NS}/{SYNCS}"]) == (False, False)


def test_empty_lists_prove_nothing_where_nothing_else_is_found(fake: FakeCluster) -> None:
    fake.objects, fake.there = {PUSHES: {}, SYNCS: {}}, {}
    found = clear(step_on(fake, f"{NS}/typo").plan())
    for part in (PUSHES, SYNCS, "secrets/typo"):
        assert found[f"{NS}/{part}"] is True


def test_what_is_found_in_one_namespace_proves_no_other(fake: FakeCluster) -> None:
    step = step_on(fake, f"{NS}/listed", "nowhere/listed", namespaces=(NS, "nowhere"))
    found = clear(step.plan())
    for part in (PUSHES, SYNCS, "secrets/listed"):
        assert found[f"nowhere/{part}"] is True


def test_whoever_may_not_list_the_cluster_wide_objects_need_not_without_a_child_of_one(
    fake: FakeCluster,
) -> None:
    fake.broken = {resource: RefusedError("not allowed (403)") for resource in PARENTS}
    plan = step_on(fake).plan()
    # One ExternalSecret has a parent; no PushSecret has.
    unseen = [f"all namespaces/clusterexternalsecrets{name}" for name in ("", "/everywhere")]
    assert [blind.target for blind in plan.blind] == unseen
    saw = {each.target: each.saw for each in plan.clear}
    words = "not seen (403); no object of theirs in the namespaces"
    assert saw["all namespaces/clusterpushsecrets"] == words
    del fake.objects[SYNCS]["spread"]
    assert step_on(fake).plan().blind, "its parent would make it again"


@pytest.mark.parametrize("known", ["beside the quota", "to the journal"])
def test_a_parent_that_an_earlier_run_knew_is_not_taken_for_none_when_it_may_not_be_listed(
    fake: FakeCluster, known: str
) -> None:
    refused: dict[str, VendorError] = {it: RefusedError("not allowed (403)") for it in PARENTS}
    fake.broken = refused
    carry_out(step_on(fake))
    fake.seen_makers = {it: set() for it in PARENTS}  # a second run
    assert fake.latched.makers == {"clusterexternalsecrets/everywhere"}
    if known == "to the journal":
        fake.latched = Latch(Lock.IN_FORCE, fake.latched.names)
        fake.reported = {"everywhere"}
    blind = {blind.target for blind in step_on(fake).plan().blind}
    assert "all namespaces/clusterexternalsecrets/everywhere" in blind
    fake.broken = {}
    assert "all namespaces/clusterexternalsecrets/everywhere" in live(step_on(fake).plan())


def test_a_parent_that_an_earlier_run_knew_and_that_serves_others_by_now_is_left_alone(
    fake: FakeCluster,
) -> None:
    fake.reported = {"elsewhere"}
    carry_out(step_on(fake))
    assert set(fake.owners[PARENTS[1]]) == {"elsewhere"}


def test_a_part_that_cannot_be_seen_is_blind_and_the_rest_goes_on(fake: FakeCluster) -> None:
    fake.broken = {
        SYNCS: UnreachableError("503"),
        "pushed": RefusedError("not allowed (403)"),
    }
    plan = step_on(fake, f"{NS}/listed").plan()
    assert {(blind.target, blind.lasting) for blind in plan.blind} == {
        (f"{NS}/externalsecrets", False),
        (f"{NS}/secrets/pushed", True),
    }
    assert {f"{NS}/pushsecrets/back", f"{NS}/secrets/listed"} <= live(plan).keys()


def test_a_cluster_that_answers_nothing_is_not_asked_for_each_secret(fake: FakeCluster) -> None:
    parts = ("quota", PUSHES, SYNCS, *PARENTS)
    fake.broken = {part: UnreachableError("no connection") for part in parts}
    with pytest.raises(UnreachableError):
        step_on(fake, f"{NS}/listed").plan()
    assert fake.asked == []


def test_what_the_configuration_does_not_list_is_said(fake: FakeCluster) -> None:
    texts = {note.text for note in step_on(fake, f"{NS}/owned", f"{NS}/spread").plan().notes}
    assert (
        "Secret trading/pushed is not in the configuration, found through pushsecrets back" in texts
    )
    assert not [text for text in texts if "owned" in text]


def test_whom_else_the_end_of_a_cluster_wide_object_strikes_is_said(fake: FakeCluster) -> None:
    notes = {note.kind: note.text for note in step_on(fake).plan().notes}
    assert notes["others"].endswith("clusterexternalsecrets/everywhere also served research")


@pytest.mark.parametrize("secret", ["listed", "other/listed", "trading/", "trading/a/b", ""])
def test_a_secret_outside_the_namespaces_is_an_error_of_the_configuration(
    fake: FakeCluster, secret: str
) -> None:
    with pytest.raises(ValueError, match="looks like"):
        step_on(fake, secret)
