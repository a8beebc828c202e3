"""The command line: grammar, actions without torch, and exit statuses."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import REPOSITORY, SCRIPT

from talkingface import __version__
from talkingface.cli import main, parse_arguments
from talkingface.commands import COMMANDS, spelled_out
from talkingface.errors import ConfigError

PAIR = ["--model=HyperLipsBase", "--dataset=Synthetic"]


def parsed(*argv: str) -> dict:
    return parse_arguments(argv).config


@pytest.mark.parametrize(
    ("argv", "config"),
    [
        (["--epochs=3"], {"epochs": 3}),
        (["--epochs", "3"], {"epochs": 3}),
        (["--lr=1e-4"], {"lr": 1e-4}),
        (["--clip=null"], {"clip": None}),
        (["--metrics=[LMD,NIQE]"], {"metrics": ["LMD", "NIQE"]}),
        (["--batch-size=4"], {"batch_size": 4}),
        (["--loss.disc-wt=0.5"], {"loss.disc_wt": 0.5}),
        (["--data_root=a=b.mp4"], {"data_root": "a=b.mp4"}),
        (["--data_root", "my clips/#1: a"], {"data_root": "my clips/#1: a"}),
        (["--shuffle"], {"shuffle": True}),
        (["--no-shuffle"], {"shuffle": False}),
        (["--no_shuffle", "--epochs", "2"], {"shuffle": False, "epochs": 2}),
        (["-m", "A", "-d", "B"], {"model": "A", "dataset": "B"}),
        (["-m=A", "-d=B"], {"model": "A", "dataset": "B"}),
        (["--shuffle", "-m", "A"], {"shuffle": True, "model": "A"}),
        (["--offset", "-3"], {"offset": -3}),
        (["--model=010"], {"model": "010"}),
        (["--seed=3", "--seed=3"], {"seed": 3}),
        (["--x=__import__('os').getcwd()"], {"x": "__import__('os').getcwd()"}),
        (["--dataset=list"], {"dataset": "list"}),
    ],
)
def test_settings_are_read_in_every_usual_form(argv, config):
    assert parsed(*argv) == config


@pytest.mark.parametrize("argv", [["train"], ["-x", "3"], ["--"], ["-epochs=3"], ["--a=1", "b"]])
def test_a_word_that_belongs_to_no_option_is_named(argv):
    stray = next(word for word in argv if not word.startswith("--a"))
    with pytest.raises(ConfigError, match="is not an option") as caught:
        parse_arguments(argv)
    assert f"'{stray}'" in str(caught.value) and "--key=value" in str(caught.value)


def test_one_key_with_two_values_is_refused():
    with pytest.raises(ConfigError, match="--seed is given twice.*3.*4"):
        parsed("--seed=3", "--seed=4")


@pytest.mark.parametrize("option", ["--explain", "--model", "--preset", "--audio"])
def test_an_option_without_its_value_says_so(option):
    with pytest.raises(ConfigError, match=f"{option} needs a value"):
        parse_arguments([option])


@pytest.mark.parametrize(
    ("argv", "files"),
    [
        (["--config_files=a.yaml"], ["a.yaml"]),
        (["--config_files=a.yaml,b.yaml"], ["a.yaml", "b.yaml"]),
        (["--config_files", "a.yaml b.yaml"], ["a.yaml", "b.yaml"]),
        (["--config_files=a.yaml", "--config-files=b.yaml"], ["a.yaml", "b.yaml"]),
    ],
)
def test_config_files_may_be_separated_or_repeated(argv, files):
    assert parse_arguments(argv).config_files == files


def test_a_config_file_may_have_blanks_and_commas_in_its_name(tmp_path):
    names = [tmp_path / "my settings.yaml", tmp_path / "a, b.yaml"]
    for path in names:
        path.write_text("seed: 1\n")
        assert parse_arguments([f"--config_files={path}"]).config_files == [str(path)]
    both = parse_arguments([f"--config_files={names[0]},{tmp_path}/other.yaml"]).config_files
    assert both == [str(names[0]), f"{tmp_path}/other.yaml"]


# -- actions that need no torch --------------------------------------------------------------------

ACTIONS = {
    "list": ["--list"],
    "help": ["--help"],
    "version": ["--version"],
    "print_config": [*PAIR, "--preset=tiny", "--print_config"],
    "explain": ["--explain=learning_rate"],
    "a wrong key": [*PAIR, "--learning_rat=1"],
    "nothing": [],
}
HEAVY = ("torch", "numpy", "cv2", "mediapipe", "av", "lightning_fabric", "librosa", "scipy")


@pytest.mark.parametrize("argv", ACTIONS.values(), ids=ACTIONS)
def test_an_action_before_training_imports_no_heavy_package(argv, root):
    code = (
        "import sys\nfrom talkingface.cli import main\n"
        f"status = main({argv!r})\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print(status, loaded)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    expected = 2 if argv in (ACTIONS["a wrong key"], ACTIONS["nothing"]) else 0
    assert done.stdout.splitlines()[-1] == f"{expected} []", done.stderr


def test_list_shows_every_model_dataset_and_metric_with_a_line_each(capsys):
    from talkingface import list_datasets, list_metrics, list_models

    assert main(["--list"]) == 0
    text = capsys.readouterr().out
    for title in ("Models", "Datasets", "Supported pairs", "Metrics"):
        assert f"{title}\n" in text
    for name in (*list_models(), *list_datasets(), *list_metrics()):
        line = next(line for line in text.splitlines() if line.startswith(f"  {name} "))
        assert len(line.split(None, 1)[1]) > 10, f"{name} has no description"


def test_help_names_the_main_options_and_the_exit_statuses(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--model", "--dataset", "--preset", "list", "infer", "Exit status"):
        assert word in text


def test_version_is_the_version_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_print_config_shows_a_value_from_the_command_line(capsys):
    assert main([*PAIR, "--seed=7", "--print_config"]) == 0
    line = next(li for li in capsys.readouterr().out.splitlines() if li.startswith("seed "))
    assert line.split() == ["seed", "=", "7", "#", "command", "line"]


def test_explain_finds_the_keys_of_every_model(capsys):
    assert main(["--explain=spec_augment"]) == 0
    assert "# MODA\ndata.spec_augment" in capsys.readouterr().out


def test_explain_shows_meaning_and_type(capsys):
    assert main(["--explain=batch_size"]) == 0
    out = capsys.readouterr().out
    assert "Training items per step" in out and ">= 1" in out


# -- errors of the user ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "nearest"),
    [
        (["--model=HyperLipBase", "--dataset=Synthetic"], "HyperLipsBase"),
        (["--model=HyperLipsBase", "--dataset=Sintetic"], "Synthetic"),
        ([*PAIR, "--metrics=[LMDD]"], "LMD"),
        ([*PAIR, "--learning_rat=1"], "learning_rate"),
        ([*PAIR, "--preset=tinny"], "tiny"),
        ([*PAIR, "--stages=trian"], "train"),
        ([*PAIR, "--explain=sede"], "seed"),
    ],
)
def test_a_wrong_name_exits_2_with_the_nearest_right_one_and_no_traceback(argv, nearest, capsys):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and f"'{nearest}'" in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("argv", [[], ["--model=HyperLipsBase"], ["--dataset=Synthetic"]])
def test_a_missing_model_or_dataset_names_those_there_are_and_exits_2(argv, capsys):
    assert main(argv) == 2
    err = capsys.readouterr().err
    for name, example in (("model", "HyperLipsHR"), ("dataset", "GRID")):
        assert (f"--{name}: " in err and example in err) == (f"--{name}=" not in " ".join(argv))


def test_an_unknown_flag_is_named_before_a_missing_model(capsys):
    assert main(["--uii"]) == 2
    assert "--uii is neither an option nor a key" in capsys.readouterr().err
    assert main(["--learning_rat=1"]) == 2
    assert "'learning_rate'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["main", *COMMANDS])
def test_every_command_has_a_help_of_its_own(command, capsys):
    argv = ["--help"] if command == "main" else [command, "--help"]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 45 and max(map(len, text.splitlines())) < 125
    assert command == "main" or f" {command}" in text.splitlines()[0]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("train --model=A --dataset B", "--model=A --dataset B"),
        ("infer --audio=a.wav", "--infer --audio=a.wav"),
        ("explain seed --model=A", "--explain=seed --model=A"),
        ("evaluate --model=A", "--stages=evaluate --model=A"),
        ("evaluate --videos=a,b --reference=c", "--evaluate_videos=a,b --reference=c"),
        ("evaluate --videos a --reference c", "--evaluate_videos a --reference c"),
        ("recipe hyperlips --dataset=B", "--recipe=hyperlips --dataset=B"),
        ("--list", "--list"),
    ],
)
def test_commands_are_short_forms_of_options(words, options):
    assert spelled_out(words.split()) == options.split()


@pytest.mark.parametrize("words", [["trian"], ["explain"], ["fetch", "--debug"], ["infer x"]])
def test_a_wrong_command_exits_2_and_names_the_right_ones(words, capsys):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "train" in err or "--help" in err


def test_debug_shows_the_traceback_of_a_user_error(capsys):
    assert main([*PAIR, "--learning_rat=1", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--audio=a.wav", "--source=a.mp4", "--videos=a.mp4"])
def test_an_option_of_another_action_is_refused(option, capsys):
    assert main([*PAIR, option]) == 2
    err = capsys.readouterr().err
    assert option.split("=")[0] in err and "missing" in err


def test_evaluating_a_pair_that_was_never_trained_says_what_to_do(root, capsys):
    assert main([*PAIR, "--stages=evaluate"]) == 2
    err = capsys.readouterr().err
    assert "no trained run of HyperLipsBase on Synthetic" in err
    assert "--evaluate_model_file" in err


def test_a_config_file_that_does_not_exist_is_named(capsys):
    assert main([*PAIR, "--config_files=gone.yaml"]) == 2
    assert "gone.yaml" in capsys.readouterr().err


def test_a_checkpoint_that_does_not_exist_is_named_with_the_places(root, capsys):
    assert main([*PAIR, "--evaluate_model_file=gone.ckpt"]) == 2
    err = capsys.readouterr().err
    assert "gone.ckpt" in err and str(root) in err


def test_model_and_dataset_may_stand_in_a_config_file(tmp_path, capsys):
    path = tmp_path / "all.yaml"
    path.write_text("model: hyperlipsbase\ndataset: synthetic\nseed: 9\n")
    assert main([f"--config_files={path}", "--print_config"]) == 0
    assert "# HyperLipsBase @ Synthetic" in capsys.readouterr().out


def test_the_command_works_from_any_folder(run_cli, tmp_path):
    done = run_cli(["--list"], cwd=tmp_path)
    assert done.returncode == 0 and "HyperLipsBase" in done.stdout


def test_a_closed_pipe_is_no_error():
    words = f"{sys.executable} {SCRIPT} --list | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["Models", "0"]
    assert "Traceback" not in done.stderr


def test_names_of_files_print_on_a_terminal_that_cannot_show_them(run_cli, tmp_path):
    done = run_cli(
        [*PAIR, f"--config_files={tmp_path}/缺.yaml"],
        env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "does not exist" in done.stderr


def test_training_all_switched_off_is_no_error(root):
    assert main([*PAIR, "--preset=tiny", "--stages=preprocess", "--need_preprocess=false"]) == 0


def test_options_that_became_scripts_name_them(capsys):
    assert main(["--convert=x", "--dataset=y"]) == 2
    assert "tools/convert.py" in capsys.readouterr().err
