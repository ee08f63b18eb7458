"""Every number of params.yaml, overridden as `dvc exp run -S` does it, acts where it stands and nowhere else."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.exceptions import InvalidArgumentError
from dvc.utils.hydra import apply_overrides

from dgm.config.budget import BUDGET_KEYS, SECONDS, SHARE
from dgm.config.document import read_document
from dgm.config.params import ALL, PROFILES, Params
from dgm.config.parse import ConfigError, parse
from dgm.registry import MODELS
from dgm.settings import ACTS_WITH, acting_values
from tests.tiny import TRAINED

FILE = Path(__file__).parents[2] / "params.yaml"
DOCUMENT = read_document(FILE)
PARAMS = parse(Params, DOCUMENT, "")
WORDS = (  # the values of one key that is a choice
    PROFILES,
    ("cpu", "cuda"),
    ("adamw", "muon"),
    ("float32", "bfloat16"),
    ("closed_form", "em"),
    ("natural", "random", "order_agnostic"),
    ("act_norm", "batch_norm"),
    ("pca", "zca", "opponent"),
    ("reciprocal", "log_snr"),
)
NEEDS = {  # a switch, and the keys that go with it
    "optimizer": {"muon_learning_rate"},
    "method": {"num_iterations"},
    "kl_warmup_fraction": {"cuda_graph"},
    "has_linear_start": {key for (_, key), switch in ACTS_WITH.items() if switch == "has_linear_start"},
}
ACTS_AS: dict[str, str] = dict.fromkeys(BUDGET_KEYS, SECONDS)  # what an override of these changes
Key = tuple[str, ...]
Place = tuple[str, str]  # a model or "common" and its profile; ("", "") for the top


def leaves(node: Any, path: Key = ()) -> Iterator[tuple[Key, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    else:
        yield path, node


LEAVES = dict(leaves(DOCUMENT))


def settings_of(document: dict[str, Any], places: set[Place] | None = None) -> dict[Place, Any]:
    """Everything that acts, by the place where it acts; the text of the error where it is refused."""
    params = parse(Params, document, "")
    found: dict[Place, Any] = {("", ""): (params.profile, params.suite, params.data)}
    for profile in PROFILES:
        found["common", profile] = params.common_config(profile).model_dump()
        for name in MODELS:
            if places is not None and (name, profile) not in places:
                continue
            try:
                found[name, profile] = acting_values(params, name, profile)
            except ConfigError as error:
                found[name, profile] = str(error)
    return found


@cache
def before() -> dict[Place, Any]:
    return settings_of(DOCUMENT)


def own_keys(name: str, profile: str, section: str) -> set[str]:
    blocks = DOCUMENT["models"][name]
    return {*blocks[ALL][section], *blocks[profile][section]}


def places_of(path: Key) -> set[Place]:
    """Where an override of this leaf is to act, read off the file alone."""
    if path[0] == "common":
        return {("common", path[1])}
    if path[0] == "training_defaults":
        _, profile, key = path
        inherit = {name for name in TRAINED if ACTS_AS.get(key, key) not in own_keys(name, profile, "training")}
        if key == "muon_learning_rate":
            inherit = {name for name in inherit if before()[name, profile]["training"]["optimizer"] == "muon"}
        return {(name, profile) for name in inherit}
    if path[0] == "models":
        _, name, block, section, key = path
        if key == SHARE and SECONDS in own_keys(name, block, section):
            return set()  # acts in a suite only (stages/suite.py)
        if block != ALL:
            return {(name, block)}
        inherit = {profile for profile in PROFILES if key not in DOCUMENT["models"][name][profile][section]}
        if (name, key) in ACTS_WITH:
            inherit = {profile for profile in inherit if before()[name, profile]["model"][ACTS_WITH[name, key]]}
        return {(name, profile) for profile in inherit}
    return {("", "")}


def with_value(node: Any, path: Key, value: Any) -> Any:
    return {**node, path[0]: with_value(node[path[0]], path[1:], value)} if path else value


def other_value(path: Key, value: Any) -> Any:
    """The first of some values of the same kind that the schema takes where the leaf acts."""
    words = [word for words in WORDS if value in words for word in words if word != value]
    candidates: dict[type, list[Any]] = {
        bool: [value is False],
        int: [value + 1, value - 1, 50000, 9] if isinstance(value, int) else [],
        float: [value / 2 or 0.25] if isinstance(value, float) else [],
        list: [value[:-1], [*value, value[-1]]] if isinstance(value, list) else [],
        type(None): ["elsewhere" if path[0] == "data" else 7, 7.5],
        str: words,
    }
    for candidate in candidates[type(value)]:
        try:
            after = settings_of(with_value(DOCUMENT, path, candidate), places_of(path))
        except ConfigError:
            continue
        refused = [text for text in after.values() if isinstance(text, str)]
        if all(is_of_the_switch(text, path) for text in refused):
            return candidate
    raise AssertionError(f"{'.'.join(path)}: no other value of {value!r} is known to this test")


def written(value: Any) -> str:
    """A value as it stands after the = of `-S`."""
    return yaml.safe_dump(value, default_flow_style=True, width=9999).removesuffix("\n...\n").strip()


@cache
def other_values() -> dict[Key, Any]:
    return {path: other_value(path, value) for path, value in LEAVES.items()}


def batches() -> Iterator[list[Key]]:
    """The leaves, so grouped that no two of a group act in the same place."""
    groups: list[tuple[set[Place], list[Key]]] = []
    for path in LEAVES:
        places = places_of(path)
        for taken, group in groups:
            if not taken & places:
                taken |= places
                group.append(path)
                break
        else:
            groups.append((set(places), [path]))
    yield from (group for _, group in groups)


def test_every_leaf_acts_where_it_stands_and_nowhere_else() -> None:
    for group in batches():
        document = DOCUMENT
        for path in group:
            document = with_value(document, path, other_values()[path])
        after = settings_of(document)
        expected = {place: path for path in group for place in places_of(path)}
        assert {place for place in after if before()[place] != after[place]} == set(expected), group
        for place, path in expected.items():
            assert differences(before()[place], after[place], path) <= {ACTS_AS.get(path[-1], path[-1])}, path
    assert {path[-1] for path in LEAVES if not places_of(path)} <= {SHARE}


def is_of_the_switch(refusal: str, path: Key) -> bool:
    """Whether a value was refused only for want, or for the presence, of a key that goes with the flipped switch."""
    return any(key in refusal for key in NEEDS.get(path[-1], ()))


def differences(was: Any, after: Any, path: Key) -> set[str]:
    """The keys whose values differ, without those that go with a flipped switch."""
    if path[0] not in ("models", "training_defaults") or (isinstance(after, str) and is_of_the_switch(after, path)):
        return set()
    assert not isinstance(after, str), after
    changed = {
        key
        for section in was
        for key in {**was[section], **after[section]}
        if was[section].get(key) != after[section].get(key)
    }
    return changed - NEEDS.get(path[-1], set())


MAX_CHANGED_LINES = 8  # of the mapping that holds the key, if its lines break anew
MAX_LINES_PER_MODEL = 29


def test_an_override_changes_few_lines_of_the_file(tmp_path: Path) -> None:
    """The file is laid out as DVC writes it; if not, `dvc exp apply` would leave a diff of a hundred lines.

    CONTRIBUTING.md has the command that lays it out after an edit by hand.
    """
    file = tmp_path / "params.yaml"
    for override in ("profile=gpu", "models.made.cpu.training.learning_rate=1e-5", "data.local_path=elsewhere"):
        file.write_bytes(FILE.read_bytes())
        apply_overrides(file, [override])
        was, after = (path.read_text(encoding="utf-8").splitlines() for path in (FILE, file))
        changed = [line for line in difflib.ndiff(was, after) if line[0] in "-+"]
        assert 2 <= len(changed) <= MAX_CHANGED_LINES, "\n".join(changed)
    text = FILE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES_PER_MODEL * len(yaml.safe_load(text)["models"])


def test_dvc_writes_every_leaf_and_we_read_it_back(tmp_path: Path) -> None:
    """All leaves in one call: each has its new value afterwards, and the comments are still there."""
    file = tmp_path / "params.yaml"
    file.write_bytes(FILE.read_bytes())
    apply_overrides(file, [f"{'.'.join(path)}={written(value)}" for path, value in other_values().items()])
    assert dict(leaves(read_document(file))) == other_values()
    comments = re.findall(r"#.*", FILE.read_text(encoding="utf-8"))
    assert len(comments) > 5 and comments == re.findall(r"#.*", file.read_text(encoding="utf-8"))


OF_INHERITED = {  # override of a key that the block does not have, or is to have no longer -> where, and what acts then
    "++models.made.smoke.training.ema_decay=0.5": ("made", "smoke", "training", "ema_decay", 0.5),
    "++models.ride.smoke.training.learning_rate=1e-5": ("ride", "smoke", "training", "learning_rate", 1e-5),
    "++models.vae.cpu.model.correction_scale=3.0": ("vae", "cpu", "model", "correction_scale", 3.0),
    "models.made.cpu.training.learning_rate=0.00001": ("made", "cpu", "training", "learning_rate", 1e-5),
    "~models.char_rnn.gpu.model.segment_rows": ("char_rnn", "gpu", "model", "segment_rows", 2),
}


def test_an_inherited_key_is_set_and_unset_for_one_profile(tmp_path: Path) -> None:
    """`++` writes a key that the block does not have yet; `~` removes one, and the block inherits again."""
    file = tmp_path / "params.yaml"
    file.write_bytes(FILE.read_bytes())
    apply_overrides(file, [*OF_INHERITED])
    after = settings_of(read_document(file))
    expected = {(name, profile) for name, profile, *_ in OF_INHERITED.values()}
    assert {place for place in after if before()[place] != after[place]} == expected
    for name, profile, section, key, value in OF_INHERITED.values():
        assert after[name, profile][section][key] == value


def test_an_inherited_key_without_a_sign_is_refused_by_dvc_with_the_form_that_works(tmp_path: Path) -> None:
    """An error, never silence; what it tells to write is taken, and acts."""
    file = tmp_path / "params.yaml"
    file.write_bytes(FILE.read_bytes())
    with pytest.raises(InvalidArgumentError) as caught:
        apply_overrides(file, ["models.made.smoke.training.ema_decay=0.5"])
    assert file.read_bytes() == FILE.read_bytes()
    advice = re.search(r"use (\+\S+)", str(caught.value.__cause__))
    assert advice and advice[1] == "+models.made.smoke.training.ema_decay=0.5"
    apply_overrides(file, [advice[1]])
    assert settings_of(read_document(file))["made", "smoke"]["training"]["ema_decay"] == 0.5


@pytest.mark.parametrize(
    ("override", "value"),
    [
        *((f"training_defaults.smoke.learning_rate={text}", 1e-5) for text in ("1e-5", "1e-05", "0.00001", "1.0e-5")),
        ("training_defaults.smoke.max_seconds=null", None),
        ("training_defaults.smoke.max_seconds=3.5", 3.5),
        ("training_defaults.smoke.horizontal_flip=true", True),
        ("++models.nice.smoke.training.horizontal_flip=true", True),
        ("models.made.smoke.model.hidden_sizes=[6,5]", [6, 5]),
        ("++models.made.smoke.model.dropout=0.25", 0.25),
        ("models.nice.smoke.model.num_whitening_images=null", None),
        ("models.nice.all.model.has_mirrored_whitening=false", False),
        ("models.deep_diffusion.cpu.model.schedule=reciprocal", "reciprocal"),
    ],
)
def test_values_of_every_kind_as_a_user_writes_them(tmp_path: Path, override: str, value: object) -> None:
    path = override.lstrip("+").partition("=")[0].split(".")
    file = tmp_path / "params.yaml"
    file.write_bytes(FILE.read_bytes())
    apply_overrides(file, [override])
    after = settings_of(read_document(file))
    name, section = (path[1], path[-2]) if path[0] == "models" else ("char_rnn", "training")
    profile = "cpu" if "all" in path else path[2] if path[0] == "models" else path[1]
    found = after[name, profile][section][path[-1]]
    assert found == value and type(found) is type(value)
