"""What is masked while a keychain is locked, and once it is open again."""

import asyncio

from tests.node.memory_keyring import Keyring
from tests.promise import proves

from muster.node.host import keychain, secret_mask
from muster.node.host.secret_mask import SecretMask
from muster.node.host.secret_store import SecretStore

ONE, TWO = "canary-4f1c88-one", "canary-4f1c88-two"


@proves("chat.process")
def test_a_keychain_that_was_locked_is_asked_again_after_a_while_and_what_it_gave_stays_masked(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(keychain, "BACKENDS", (("tests.node.memory_keyring", "Keyring"),))
    monkeypatch.setattr(Keyring, "values", {})
    store = SecretStore(tmp_path, {})
    assert {store.put("ONE", ONE, 1), store.put("TWO", TWO, 1)} == {"keychain"}
    mask = SecretMask(store)

    def masked(*, locked: bool, again_s: float) -> list[bool]:
        async def now() -> str:
            return (await mask.now()).text(f"{ONE} {TWO}")

        monkeypatch.setattr(Keyring, "locked", locked)
        monkeypatch.setattr(secret_mask, "AGAIN_S", again_s)
        text = asyncio.run(now())
        return [ONE not in text, TWO not in text]

    assert masked(locked=True, again_s=60) == [False, False]
    assert masked(locked=False, again_s=10**9) == [False, False], "it is not asked each time"
    assert masked(locked=False, again_s=0) == [True, True]
    # Made anew while it is locked.
    store.put("THREE", "canary-4f1c88-three", 1)
    assert masked(locked=True, again_s=60) == [True, True]
    monkeypatch.setattr(Keyring, "locked", False)
    store.remove("ONE")
    assert masked(locked=False, again_s=60) == [False, True]
