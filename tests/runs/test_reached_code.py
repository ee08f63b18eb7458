"""A digest changes with code that can change a result, wherever it stands, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgm.errors import StageError
from dgm.runs.reached_code import CodeGraph

FILES = {
    "dgm/config/parse.py": "class Config:\n    pass\n",
    "dgm/engine/loop.py": (
        "from dgm.nets.scale import scaled\n"
        "from dgm.runs.progress import show\n"
        "STEPS = 3\n"
        "class Trainer:\n"
        "    def run(self, x):\n"
        "        show(x)\n"
        "        return scaled(x) * STEPS\n"
    ),
    "dgm/nets/scale.py": (
        "import torch.nn.functional as F\n"
        "FACTOR = 2\n"
        "def scaled(x: int) -> int:\n"
        "    return F.relu(x) * FACTOR + offset(x)\n"
        "def offset(x):\n"
        "    if x < 0:\n"
        "        raise ValueError('negative')\n"
        "    return 1\n"
        "def unused(x):\n"
        "    return 5\n"
    ),
    "dgm/runs/progress.py": "def show(x):\n    pass\n",
    "dgm/models/one.py": (
        "from dgm.config.parse import Config\n"
        "from dgm.nets.scale import scaled\n"
        "class OneConfig(Config):\n"
        "    width: int\n"
        "    def area(self):\n"
        "        return self.width**2\n"
        "class One:\n"
        "    config_type = OneConfig\n"
        "    def score(self, x):\n"
        "        return scaled(x) - helper(x)\n"
        "def helper(x):\n"
        "    from dgm.nets.late import late\n"
        "    return late(x)\n"
    ),
    "dgm/nets/late.py": "def late(x):\n    return 7\n",
    "dgm/models/two.py": "class Two:\n    def score(self, x):\n        return 1\n",
    "dgm/models/tree.py": (
        "def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != 0 and even(n - 1)\n"
        "def zero(n):\n    return n * 0\n"
    ),
}
ENTRY = "dgm.models.one:One"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        write(tmp_path, name, text)
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert old in text
    write(root, name, text.replace(old, new))


def digest(root: Path, entry: str = ENTRY) -> str:
    return CodeGraph(root, ["dgm"], ["dgm.config", "dgm.runs"]).digest([entry])


def test_it_covers_what_is_reached_and_no_more(tree: Path) -> None:
    graph = CodeGraph(tree, ["dgm"], ["dgm.config", "dgm.runs"])
    assert graph.reached([ENTRY]) == {
        "dgm.models.one:One",
        "dgm.models.one:OneConfig",
        "dgm.models.one:helper",
        "dgm.nets.late:late",
        "dgm.nets.scale:scaled",
        "dgm.nets.scale:offset",
        "dgm.nets.scale:FACTOR",
    }


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("dgm/nets/scale.py", "FACTOR = 2", "FACTOR = 3"),
        ("dgm/nets/scale.py", "* FACTOR +", "* FACTOR -"),
        ("dgm/nets/scale.py", "+ offset(x)", "+ unused(x)"),
        ("dgm/nets/scale.py", "F.relu", "F.gelu"),
        ("dgm/nets/scale.py", "if x < 0", "if x <= 0"),
        ("dgm/nets/scale.py", "import torch.nn.functional as F", "import math as F"),
        ("dgm/nets/late.py", "return 7", "return 8"),
        ("dgm/models/one.py", "self.width**2", "self.width**3"),
        ("dgm/models/one.py", "config_type = OneConfig", "config_type = helper"),
    ],
)
def test_changed_code_changes_the_digest(tree: Path, file: str, old: str, new: str) -> None:
    before, other = digest(tree), digest(tree, "dgm.models.two:Two")
    edit(tree, file, old, new)
    assert digest(tree) != before
    assert digest(tree, "dgm.models.two:Two") == other


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("dgm/nets/scale.py", "return 5", "return 6"),
        ("dgm/nets/scale.py", "'negative'", "'must not be negative'"),
        ("dgm/nets/scale.py", "x: int) -> int", "x: float) -> float"),
        ("dgm/nets/scale.py", "    return 1", "    # one\n    print('here', x)\n    return (1)"),
        ("dgm/nets/scale.py", "def offset(x):\n", 'def offset(x):\n    """One."""\n'),
        ("dgm/nets/scale.py", "import torch.nn.functional as F", "from torch.nn import functional as F"),
        ("dgm/models/one.py", "    width: int\n", "    width: int\n    depth: int = 3\n"),
        ("dgm/engine/loop.py", "STEPS = 3", "STEPS = 4"),
    ],
)
def test_what_no_number_depends_on_changes_nothing(tree: Path, file: str, old: str, new: str) -> None:
    before = digest(tree)
    edit(tree, file, old, new)
    assert digest(tree) == before


def test_modules_that_pass_values_on_change_nothing(tree: Path) -> None:
    before = digest(tree, "dgm.engine.loop:Trainer")
    write(tree, "dgm/runs/progress.py", "def show(x):\n    return x + 1\n")
    assert digest(tree, "dgm.engine.loop:Trainer") == before


def test_a_moved_function_a_renamed_module_and_a_renamed_function_change_nothing(tree: Path) -> None:
    before = digest(tree)
    offset = "def offset(x):\n    if x < 0:\n        raise ValueError('negative')\n    return 1\n"
    edit(tree, "dgm/nets/scale.py", offset, "")
    edit(tree, "dgm/nets/scale.py", "import torch", "from dgm.nets.shift import shift\nimport torch")
    edit(tree, "dgm/nets/scale.py", "offset(x)", "shift(x)")
    write(tree, "dgm/nets/shift.py", "def shift(x):\n    if x < 0:\n        raise ValueError('no')\n    return 1\n")
    (tree / "dgm/nets/late.py").rename(tree / "dgm/nets/later.py")
    edit(tree, "dgm/models/one.py", "dgm.nets.late ", "dgm.nets.later ")
    assert digest(tree) == before


def test_a_local_variable_is_not_the_function_of_its_name(tree: Path) -> None:
    before = digest(tree)
    edit(tree, "dgm/nets/late.py", "def late", "def x():\n    return 3\ndef late")
    assert digest(tree) == before


def test_two_functions_of_one_name_are_told_apart(tree: Path) -> None:
    write(tree, "dgm/nets/other.py", "def late(x):\n    return 9\n")
    both = "from dgm.nets.other import late as also\nclass One:\n    b = also\n"
    edit(tree, "dgm/models/one.py", "class One:\n", both)
    before = digest(tree)
    edit(tree, "dgm/models/one.py", "from dgm.nets.other", "from dgm.nets.OTHER")
    edit(tree, "dgm/models/one.py", "from dgm.nets.late", "from dgm.nets.other")
    edit(tree, "dgm/models/one.py", "from dgm.nets.OTHER", "from dgm.nets.late")
    assert digest(tree) != before


def test_functions_that_call_each_other_have_digests(tree: Path) -> None:
    before = digest(tree, "dgm.models.tree:even")
    assert before != digest(tree, "dgm.models.tree:odd")
    edit(tree, "dgm/models/tree.py", "n * 0", "n * 1")
    assert digest(tree, "dgm.models.tree:even") == before
    edit(tree, "dgm/models/tree.py", "n != 0", "n > 0")
    assert digest(tree, "dgm.models.tree:even") != before


def test_code_that_runs_at_import_is_refused(tree: Path) -> None:
    edit(tree, "dgm/nets/late.py", "def late", "import torch\ntorch.manual_seed(1)\ndef late")
    with pytest.raises(StageError, match=r"late\.py:2: does something when it is imported"):
        digest(tree)


def test_an_entry_that_is_not_there_is_named(tree: Path) -> None:
    with pytest.raises(StageError, match=r"dgm\.models\.one:Three: no such"):
        digest(tree, "dgm.models.one:Three")
