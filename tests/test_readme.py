"""Every fenced block of the README and of the documentation is tried, by its language, whatever it says.

Commands that train are parsed by the program that would run them and composed by Hydra. Commands that train
nothing are run. YAML is trained for a step, and Python is run in an empty folder. A block of text is output,
a formula or a tree of folders; the output of the first diagnosis is compared. A block that stands on two
pages is tried once.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import torch
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from support import build, needs_model_checkpoint, small, train_steps

from solo_dimreg.cli import cli
from solo_dimreg.config.composing import compose
from solo_dimreg.config.folders import config_root
from solo_dimreg.config.loading import load_settings, parse_config
from solo_dimreg.config.schema import Linear, Pretraining
from solo_dimreg.config.values import OWN_BLOCKS, base_name, plain
from solo_dimreg.errors import ConfigError
from solo_dimreg.solo_learn import Host, register
from solo_dimreg.studies.study import read_study

ROOT = Path(__file__).parents[1]
# solo-learn's own scripts that use Hydra.
STAGES = {"main_pretrain.py": "pretrain", "main_linear.py": "linear"}
# Commands of ours that train nothing and need nothing of the reader's own: they are run.
CHEAP = (["doctor"], ["methods"], ["claims", "--list"], ["data", "digits"])
OTHERS = ("cd", "git", "wandb", "sbatch")  # other people's programs, taken as they are
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a Markdown page."""
    found: list[Block] = []
    fence, start, language, lines = "", 0, "", []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        opened = re.match(r"\s*(`{3,}|~{3,})\s*(\S*)", line)
        if not fence and opened:
            fence, start, language, lines = opened[1], number, opened[2], []
        elif fence and line.strip() == fence:
            found.append(Block(page.stem, start, language, "\n".join(lines) + "\n"))
            fence = ""
        elif fence:
            lines.append(line)
    assert not fence, f"{page}: the block of line {start} does not end"
    return found


BLOCKS = list({(b.language, b.text): b for page in reversed(PAGES) for b in reversed(blocks(page))}.values())[
    ::-1
]


# Configs that a command of a block writes, `solo-dimreg init photos --out my.yaml`.
WRITTEN = {
    name
    for b in BLOCKS
    if b.language == "bash"
    for name in re.findall(r"^solo-dimreg init .*--out (\S+)\.yaml", b.text, re.M)
}


def in_language(*names: str) -> Any:
    return pytest.mark.parametrize(
        "block",
        [b for b in BLOCKS if b.language in names],
        ids=lambda block: f"{block.page}, line {block.line}",
    )


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a block, without comments, pipes and variables."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;"):
                if words:
                    yield words
                words = []
            elif words or not ASSIGNMENT.fullmatch(word):
                words.append(word)


def refusal(words: list[str]) -> str | None:
    """Return what is wrong with a command, or None."""
    program, *arguments = words
    if program == "srun":
        return refusal(arguments[next(i for i, word in enumerate(arguments) if not word.startswith("-")) :])
    if program == "solo-dimreg":
        return refusal_of_ours(arguments)
    if program == "python":
        return refusal_of_script(*arguments)
    if program.endswith("reproduce.sh"):
        return refusal_of_reproduce(arguments)
    if program == "pip":
        return refusal_of_pip(arguments)
    return None if program in OTHERS else f"{program}: no command that this test knows"


def refusal_of_ours(arguments: list[str]) -> str | None:
    try:
        context = parsed(arguments)
    except click.ClickException as error:
        return f"{' '.join(arguments)}: {error.format_message()}"
    if (stage := context.info_name) in ("pretrain", "linear"):
        options = context.params
        if options["config_name"] in WRITTEN:
            return None
        folder = options["config_path"] or "digits"
        return refusal_of_config(stage, folder, options["config_name"], options["overrides"])
    return None


def parsed(arguments: list[str]) -> click.Context:
    """The command line as click reads it, nothing run; unknown commands and options are its errors."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        if command.invoke_without_command and (not arguments or arguments[0].startswith("-")):
            break
        if not arguments:
            raise click.UsageError("names no command")
        name, command, arguments = command.resolve_command(context, arguments)
        context = click.Context(command, context, name)
    return command.make_context(context.info_name, list(arguments), parent=context.parent)


def refusal_of_script(script: str, *arguments: str) -> str | None:
    """solo-learn's scripts are Hydra's: its parser for their options, our configs by the folder's name."""
    if script not in STAGES:
        return f"python {script}: no script of solo-learn's that uses Hydra"
    options = get_args_parser().parse_args(arguments)
    try:
        overrides = one_of_each(options.overrides) if options.multirun else options.overrides
    except ConfigError as error:
        return str(error)
    return refusal_of_config(STAGES[script], options.config_path, options.config_name, overrides)


def refusal_of_config(stage: str, folder: str, name: str, overrides: Sequence[str]) -> str | None:
    """Return what Hydra or the schema says of our config in a folder of that name."""
    schema = {"pretrain": Pretraining, "linear": Linear}[stage]
    try:
        settings = compose(stage, str(config_root() / stage / Path(folder).name), name, overrides)
        if stage == "linear":  # our command takes it from its argument, and the script's user gives it
            settings.pretrained_feature_extractor = "trained_models/ldreg_simclr"
        parse_config(register(), settings, schema)
    except ConfigError as error:
        return str(error)
    return None


def one_of_each(overrides: list[str]) -> list[str]:
    """The first of the jobs that a sweep makes; a launcher's own settings are known where it is installed."""
    chosen = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.key_or_group == "hydra/launcher":
            launcher = f"hydra-{override.value().partition('_')[0]}-launcher"
            if not any(launcher in extra for extra in extras().values()):
                raise ConfigError(f"{override.input_line}: {launcher} is in no extra of ours")
        elif not override.key_or_group.startswith("hydra."):
            first = next(override.sweep_string_iterator()) if override.is_sweep_override() else None
            key = override.input_line.partition("=")[0]
            chosen.append(override.input_line if first is None else f"{key}={first}")
    return chosen


def extras() -> dict[str, list[str]]:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib is in Python from 3.11 on")
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def refusal_of_reproduce(arguments: list[str]) -> str | None:
    names = [word for word in arguments if not word.startswith("-")][:1] or ["quick"]
    script = (ROOT / "reproduce.sh").read_text()
    listed = re.search(r"<<'EOF'\n(.*?)\nEOF", script, re.DOTALL)
    known = re.findall(r"^  (\w+(?:, \w+)*)(?=\s|$)", listed[1], re.MULTILINE) if listed else []
    valid = {name for line in known for name in line.split(", ")}
    return None if names[0] in valid else f"reproduce.sh {names[0]}: its help has {', '.join(sorted(valid))}"


def refusal_of_pip(arguments: list[str]) -> str | None:
    if arguments[:1] != ["install"]:
        return f"pip {' '.join(arguments)}: does not install"
    for wanted in re.findall(r"^solo-dimreg\[([\w,-]+)\]", "\n".join(arguments), re.MULTILINE):
        for name in wanted.split(","):
            if name not in extras():
                return f"solo-dimreg[{name}]: the extras are {', '.join(extras())}"
    return None


def test_every_block_has_a_language_that_is_tried() -> None:
    assert BLOCKS
    assert {block.language for block in BLOCKS} <= {"bash", "yaml", "python", "toml", "text"}


@in_language("bash")
def test_every_command_is_one(block: Block, host: Host) -> None:
    assert not list(filter(None, map(refusal, commands(block.text))))


def test_every_command_within_the_text_is_one() -> None:
    """A command between backticks may be only the beginning of one."""
    texts = "\n".join(page.read_text() for page in PAGES)
    prose = re.sub(r"^(`{3,}).*?^\1$", "", texts, flags=re.DOTALL | re.MULTILINE)
    wrong = []
    for code in re.findall(r"`([^`\n]+)`", prose):
        if not re.match(r"(\w+=\S+ )*(solo-dimreg|\./reproduce\.sh|pip) ", code):
            continue
        for words in commands(code):
            if words[0] != "solo-dimreg":
                wrong.append(refusal(words))
            elif len(words) > 1 and not words[1].startswith("-"):
                command = cli.get_command(click.Context(cli), words[1])
                wrong.append(None if command else f"{code}: no command of ours")
    assert not list(filter(None, wrong))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("solo-dimreg diagnoze x", "No such command"),
        ("solo-dimreg diagnose x --imagse y", "No such option"),
        ("solo-dimreg pretrain -cp digits", "Missing option"),
        ("solo-dimreg pretrain -cp digits -cn simclr optimizer.lrr=1", "optimizer.lrr"),
        ("solo-dimreg linear trained_models/x +maxepochs=1", "maxepochs"),
        ("python main_pretrain.py --config-path scripts/pretrain/cifar --config-name ldreg_simclt", "simclt"),
        (
            "python main_pretrain.py -cp digits -cn simclr -m hydra/launcher=ray seed=1,2",
            "hydra-ray-launcher",
        ),
        ("SEEDS=3 ./reproduce.sh fast", "reproduce.sh fast"),
        ("pip install 'solo-dimreg[dta]'", "dta"),
        ("python main_knn.py --k 5", "main_knn.py"),
        ("cd x && solo-learn pretrain", "solo-learn"),
        ("srun --ntasks=2 solo-dimreg data digit", "No such command"),
    ],
)
def test_a_command_that_is_none_is_noticed(command: str, words: str) -> None:
    (said,) = filter(None, map(refusal, commands(command)))
    assert words in said


def cheap_commands() -> list[list[str]]:
    every = [words for block in BLOCKS if block.language == "bash" for words in commands(block.text)]
    ours = [words[1:] for words in every if words[0] == "solo-dimreg"]
    return [arguments for arguments in ours if any(arguments[: len(each)] == each for each in CHEAP)]


@pytest.mark.parametrize("arguments", cheap_commands(), ids=" ".join)
def test_commands_that_train_nothing_run(here: Any, arguments: list[str]) -> None:
    done = here(*arguments)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_the_first_diagnosis_says_what_the_readme_says(
    here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = blocks(ROOT / "README.md")
    (program,) = (block.text for block in own if block.language == "python" and "np.save" in block.text)
    exec(compile(program, "README.md", "exec"), {})
    done = here("diagnose", "features.npy")
    expected = next(block.text for block in own if block.language == "text")
    assert done.returncode == 0 and expected.strip() in done.stdout


def test_a_training_ends_as_the_readme_says() -> None:
    from solo_dimreg.solo_learn.run_summary import describe_end

    texts = [block.text for block in blocks(ROOT / "README.md") if block.language == "text"]
    numbers = [float(number) for number in re.findall(r"\d+(?:\.\d)?", texts[1])]
    epochs, steps, first, last, percent = numbers
    record = {
        "epochs": int(epochs),
        "steps": int(steps),
        "resumed_from": None,
        "effective_rank": [first, last],
        "online_accuracy": {"percent": percent, "images": "validation"},
    }
    assert texts[1] == f"solo-dimreg: {describe_end(record)}\n"


@in_language("yaml")
def test_every_config_trains(
    block: Block,
    host: Host,
    few_digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # where a monitor writes
    content = yaml.safe_load(block.text)
    if "rows" in content:
        Path(content["data"]).mkdir()
        Path("study.yaml").write_text(block.text)
        assert read_study("study.yaml").claims()
        return
    method = content.get("method", "simclr")
    if base_name(method) not in {base_name(name) for name in host.methods}:
        pytest.skip(f"the {host.generation} solo-learn has no {method}")
    settings = OmegaConf.merge(small(few_digits, method), OmegaConf.create(block.text))
    settings.optimizer.batch_size = 64  # k may be as large as in a real run
    load_settings(host, settings)
    if OmegaConf.select(settings, "monitor.alarm.action") == "rollback":
        settings.monitor.alarm = {}  # this step is trained without checkpoints, to which it would go back
    if set(content) & {"method", "backbone", *OWN_BLOCKS}:
        for term in plain(settings.get("regularizers") or {}):
            settings.regularizers[term].warmup_epochs = 0
        model = build(settings, host)
        logged = train_steps(host, model, steps=1)
        assert all(f"train_{term}_epoch" in logged for term in content.get("regularizers", ()))


@in_language("toml")
def test_every_toml_parses(block: Block) -> None:
    tomllib = pytest.importorskip("tomllib")  # in Python from 3.11 on
    assert tomllib.loads(block.text)


@in_language("python")
def test_every_program_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, since importing what they import takes longer than what they do."""
    text = block.text
    if importlib.util.find_spec("lightning") is None:  # the README says that either name will do
        text = text.replace("import lightning as L", "import pytorch_lightning as L")
        if text != block.text:
            needs_model_checkpoint(importlib.import_module("pytorch_lightning"))
    monkeypatch.chdir(tmp_path)
    random_state = torch.get_rng_state()
    exec(compile(text, f"{block.page}.md, line {block.line}", "exec"), {"__name__": "__main__"})
    torch.set_rng_state(random_state)
