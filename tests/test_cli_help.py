"""Both command lines as they are documented: nothing here runs a command."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import tl_keras
from export.cli.app import app as export_app
from tl_keras.cli.app import app

README = Path(__file__).parent.parent / "README.md"
PROGRAMS = {"tl-keras": app, "tl-export": export_app}
GROUPS = {name: typer.main.get_command(one) for name, one in PROGRAMS.items()}
COMMANDS = [(name, command) for name, group in GROUPS.items() for command in group.commands]


def invoke(program, *words):
    return CliRunner().invoke(PROGRAMS[program], [str(word) for word in words])


def options(program, command):
    return {opt: one for one in GROUPS[program].commands[command].params
            for opt in (*one.opts, *one.secondary_opts) if opt.startswith("--")}  # fmt: skip


def parse(program, words):
    """Read a command line as the program does, without running what it asks for."""
    group = GROUPS[program]
    with typer.Context(group, info_name=program) as ctx:
        name, *rest = group.parse_args(ctx, list(words)) and [*ctx._protected_args, *ctx.args]
        return group.commands[name].make_context(name, rest, parent=ctx)


def test_the_table_of_the_readme_names_every_command_and_only_options_that_there_are():
    rows = re.findall(r"^\| (`tl-.*?`) \|", README.read_text(encoding="utf-8"), re.M)
    named = set()
    for row in rows:
        program = None
        for words in (part.split() for part in re.findall("`(.*?)`", row)):
            program = words.pop(0) if words[0] in PROGRAMS else program
            command = words[0] if words[0] in GROUPS[program].commands else "run"
            named.add((program, command))
            used = [word for word in words if word.startswith("--")]
            assert [word for word in used if word not in options(program, command)] == [], row
    assert named == set(COMMANDS)


def test_what_the_readme_and_the_notebooks_call_can_be_called():
    texts = {path: path.read_text(encoding="utf-8")
             for path in (README, *README.parent.glob("notebooks/*.ipynb"))}  # fmt: skip
    calls = re.findall(r"^    (tl-.*)$", texts[README], re.M)
    assert len(calls) == 8
    for program, *words in map(shlex.split, calls):
        parse(program, words)
    for path, text in texts.items():
        for program, *words in map(str.split, re.findall("`(tl-(?:keras|export) .*?)`", text)):
            command = words[0] if words[0] in GROUPS[program].commands else "run"
            used = {word for word in words if word.startswith("--")}
            assert used <= options(program, command).keys(), (path, program, words)


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_the_example_of_a_help_parses_and_fits_on_a_line(program, command):
    result = invoke(program, command, "--help")
    assert result.exit_code == 0
    (example,) = re.findall(r"^  Example:  (.*)$", result.stdout, re.M)
    name, *words = example.split()
    assert name == program
    assert parse(program, words).command is GROUPS[program].commands[command]
    assert f"{example}\n\n" in result.stdout


def test_help_lists_every_command_in_whole_sentences():
    for program, group in GROUPS.items():
        for words in ((), ("--help",)):
            result = invoke(program, *words)
            listed = result.stdout.partition("Commands:")[2]
            assert result.exit_code == 0
            assert re.findall(r"^  (\S+)  .*\.$", listed, re.M) == list(group.commands)
            assert "..." not in listed


def test_both_programs_say_their_version():
    for program in PROGRAMS:
        assert invoke(program, "--version").stdout == f"{tl_keras.__version__}\n"


def test_every_option_says_what_it_does_in_a_sentence():
    wrong = [(program, command, opt) for program, command in COMMANDS
             for opt, one in options(program, command).items()
             if opt != "--help" and not (one.help or "").endswith(".")]  # fmt: skip
    assert wrong == []


def test_a_number_out_of_its_range_is_refused_before_anything_heavy_is_imported():
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_cli_help as here
count = 0
for program, command in here.COMMANDS:
    needed = [w for one in here.GROUPS[program].commands[command].params if one.required
              for w in ([one.opts[0], "x"] if one.opts[0].startswith("--") else ["x"])]
    for opt, one in here.options(program, command).items():
        kind = one.type_descriptor.annotation if hasattr(one, "type_descriptor") else None
        if not any(word in str(kind) for word in ("int", "float")):
            continue
        for value in ("-1", "nan", "inf", "-inf", "1e99", "1" + 300 * "0", "x", ""):
            try:
                here.parse(program, [command, *needed, opt, value])
            except here.typer.BadParameter as error:
                count += opt in error.format_message()
            else:
                sys.exit(f"{{program}} {{command}} {{opt}} takes {{value}}")
assert count > 200, count
heavy = [name for name in ("tensorflow", "keras", "sklearn", "numpy") if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tl-keras", "fitt"), "No such command 'fitt'. Did you mean fit? See: "),
        (("tl-keras", "fit", "x", "--bse", "y"), "Did you mean --base"),
        (("tl-export", "check", "x", "--jso"), "Did you mean --json?"),
        (("tl-keras", "fit", "x"), "Missing option '--out'"),
        (("tl-keras", "fit", "x", "y", "--out", "z"), "unexpected extra argument"),
        (("tl-keras", "lr-find", "x", "--steps"), "--steps"),
        (("tl-keras", "lr-find", "x", "--out", "."), ". is a folder; expected a file"),
        (("tl-keras", "evaluate", "x", "--out", f"{__file__}/y"), "test_cli_help.py is no folder"),
        (("tl-keras", "fit", "", "--out", "y"), "a word is empty"),
        (("tl-keras", "fit", "x", "--out", ""), "--out is empty"),
        (("tl-keras", "fit", "x", "--out=y", "--base="), "--base is empty"),
        (("tl-keras", "fit", "/none", "--out=y", "--plan", "", "--epochs="), "does not exist"),
        (("tl-keras", "fit", "x", "--out", "y", "--epochs", "1,a"), "not whole numbers"),
        (("tl-keras", "fit", "x", "--out", "y", "--dense", "0"), "not in its range"),
        (("tl-keras", "fit", "x", "--out", "y", "--learning-rate", "nan"), "not in its range"),
        (("tl-keras", "fit", "x", "--out", "y", "--rank", "8"), "it is for --plan lora"),
        (
            ("tl-keras", "fit", "x", "--out", "y", "--minutes", "8", "--plan", "full"),
            "it is for --plan tuned",
        ),
        (("tl-keras", "fit", "digits", "--out", "y", "--adapt", "*"), "which adapts none"),
        (("tl-keras", "fit", "x", "--out", "y", "--augment", "none", "--views", "2"), "--views"),
        (("tl-keras", "fit", "digits", "--out", "y", "--views", "2"), "--augment"),
        (("tl-keras", "fit", "x", "--out", "y", "--lr-scale", "2", "--learning-rate", "1"), "both"),
        (("tl-keras", "fit", "x", "--out", "y", "--plan", "auto", "--learning-rate", "1"), "plan"),
        (("tl-keras", "update", "x", "y", "--out", "z", "--strength", "2"), "--keep ewc"),
        (("tl-keras", "update", "x", "y", "--out", "z", "--keep", "streaming", "--epochs", "2"),
         "without streaming"),
        (("tl-keras", "drift", "x", "y", "--to", "z"), "give --remedy"),
        (("tl-export", "x", "--max-drop", "0.1"), "it is for --quantize"),
        (("tl-export", "x", "--no-train"), "it is for --quantize"),
        (("tl-export", "compress", "x", "--method", "qat", "--out", "y", "--sparsity", "0.1"),
         "it is for --method prune"),
        (("tl-export", "distill", "x", "--student", "b", "--out", "y", "--beta", "0.1"),
         "it is for --loss features"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_with_exit_code_2(words, said):
    result = invoke(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "today"),
    [
        (("tl-keras", "shift", "x", "--seed", "3"), "drift"),
        (("tl-keras", "fit", "x", "--out", "y", "--rate", "3"), "fit"),
        (("tl-keras", "fit", "x", "--out", "y", "--rate=3"), "fit"),
        (("tl-keras", "advise", "x", "--bases", "y", "--pictures", "30"), "advise"),
        (("tl-export", "compress", "x", "--out=y", "--method=qat", "--rate", "3"), "compress"),
    ],
)
def test_what_had_another_name_still_works(words, today):
    assert parse(words[0], words[1:]).command.name == today


def test_help_is_there_however_it_is_asked_for():
    text = invoke("tl-keras", "predict", "--help").stdout
    for words in (("predict", "-h"), ("help", "predict"), ("predict", "x", "--top", "--help")):
        assert invoke("tl-keras", *words).stdout == text
    assert invoke("tl-export", "help").stdout == invoke("tl-export").stdout


def test_the_help_names_all_that_there_is():
    from export.compress.methods import METHODS
    from export.distill.config import LOSSES
    from tl_keras import tasks
    from tl_keras.continual.replay import WAYS
    from tl_keras.features.backends import ENGINES
    from tl_keras.modalities.image.augment import AUGMENTATIONS
    from tl_keras.models.heads import POOLINGS
    from tl_keras.probing.classifiers import CLASSIFIERS
    from tl_keras.training.plan import PLAN_NAMES
    from tl_keras.workflows.adapt import METHODS as REMEDIES
    from tl_keras.workflows.update.config import REMEDIES as KEPT

    expected = {
        ("fit", "--task"): tasks.names(), ("fit", "--pooling"): POOLINGS,
        ("fit", "--plan"): PLAN_NAMES, ("fit", "--precision"): ENGINES,
        ("fit", "--augment"): AUGMENTATIONS, ("probe", "--classifier"): CLASSIFIERS,
        ("update", "--keep"): KEPT, ("update", "--exemplars"): WAYS,
        ("drift", "--remedy"): REMEDIES, ("distill", "--loss"): LOSSES,
        ("compress", "--method"): METHODS,
    }  # fmt: skip
    for (command, opt), names in expected.items():
        program = "tl-export" if command in ("distill", "compress") else "tl-keras"
        words = re.split("[ ,.()]+", options(program, command)[opt].help)
        assert set(names) <= set(words), (command, opt)


def test_what_stands_behind_two_dashes_is_no_call_for_help():
    assert "run does not exist" in invoke("tl-keras", "predict", "run", "--", "--help").stderr
