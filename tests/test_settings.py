"""Settings: one list, checked at the door, with the later source winning."""

import json
from pathlib import Path

import pytest

from practise_deploy.errors import InputError
from practise_deploy.settings import MAX_DROP, Settings, read_settings


@pytest.mark.parametrize(
    ("written", "meant"), [("redcue", "reduce"), ("budget_s", "measure_budget_s"), ("for", "target_archs")]
)
def test_unknown_setting_is_an_error_that_suggests_the_nearest(written, meant):
    with pytest.raises(InputError) as error:
        read_settings({written: 20})
    assert error.value.message == f"unknown setting '{written}'; did you mean '{meant}'?"


def test_unknown_setting_far_from_all_has_no_suggestion():
    with pytest.raises(InputError) as error:
        read_settings({"zzzzzz": 1})
    assert error.value.message == "unknown setting 'zzzzzz'"


@pytest.mark.parametrize("written", [25, 25.0, "25", "25%", " 25 % ", "25.0%"])
def test_reduction_may_be_written_as_a_number_or_in_percent(written):
    assert read_settings({"reduce": written}).reduce == 25.0


@pytest.mark.parametrize("written", ["0%", "100%", -5, 150, "a fifth", "nan"])
def test_senseless_reduction_is_an_error_that_names_the_setting(written):
    with pytest.raises(InputError, match="--reduce "):
        read_settings({"reduce": written})


def test_only_one_target_may_be_given():
    with pytest.raises(InputError, match="give one target, not --reduce and --target-ms"):
        read_settings({"reduce": 20, "target_ms": 3.0})


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, (20.0, None, None)),
        ({"reduce": 30}, (30.0, None, None)),
        ({"target_ms": 3}, (None, 3.0, None)),
        ({"drop": 2}, (None, None, 2)),
        ({"min_speedup": 1.25}, (pytest.approx(20.0), None, None)),
        ({"min_speedup": 2.0}, (pytest.approx(50.0), None, None)),
        ({"min_speedup": 1.0}, (20.0, None, None)),
        ({"min_speedup": 0.9}, (20.0, None, None)),
        ({"min_speedup": 2.0, "reduce": 30}, (30.0, None, None)),
        ({"min_speedup": 2.0, "target_ms": 3}, (None, 3.0, None)),
        ({"min_speedup": 2.0, "drop": 2}, (None, None, 2)),
        ({"max_drop": 1.0}, (20.0, None, None)),
    ],
)
def test_budget_is_what_was_asked_else_what_the_gate_needs_else_twenty_percent(given, expected):
    budget = read_settings(given).budget
    assert (budget.reduce_percent, budget.target_ms, budget.drop) == expected


def test_toml_and_json_files_give_the_same_settings(tmp_path: Path):
    (tmp_path / "a.toml").write_text('network = "torchvision:resnet18"\ntarget-ms = 3.5\nmean = [0.1, 0.2, 0.3]\n')
    (tmp_path / "a.json").write_text('{"network": "torchvision:resnet18", "target_ms": 3.5, "mean": [0.1, 0.2, 0.3]}')
    toml, json = (read_settings({}, file=tmp_path / name) for name in ("a.toml", "a.json"))
    assert toml == json and toml.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("name, text", [("a.toml", "network ="), ("a.json", "{"), ("a.json", "[1]")])
def test_broken_settings_file_is_an_error_that_names_it(tmp_path: Path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name):
        read_settings({}, file=tmp_path / name)


def test_missing_settings_file_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.toml"):
        read_settings({}, file=tmp_path / "none.toml")


def test_command_line_wins_over_the_file_and_the_file_over_the_earlier_run(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_text("seed = 2\nthreads = 2\n")
    found = read_settings({"seed": 3}, file=file, base={"seed": 1, "threads": 1, "batch": 4})
    assert (found.seed, found.threads, found.batch) == (3, 2, 4)


def test_new_target_replaces_an_earlier_one_of_another_kind(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_text("drop = 2\n")
    assert read_settings({}, file=file, base={"reduce": 30}).budget.drop == 2
    assert read_settings({"target_ms": 4}, file=file, base={"reduce": 30}).budget.target_ms == 4.0


def test_two_targets_in_one_file_are_an_error(tmp_path: Path):
    file = tmp_path / "a.toml"
    file.write_text("drop = 2\nreduce = 20\n")
    with pytest.raises(InputError, match="one target"):
        read_settings({}, file=file)


def test_numbers_of_a_channel_may_be_a_list_or_be_written_with_commas():
    assert read_settings({"mean": "0.5, 0.25,0"}).mean == (0.5, 0.25, 0.0)
    with pytest.raises(InputError, match="--mean a,b"):
        read_settings({"mean": "a,b"})


def test_all_problems_are_told_at_once():
    with pytest.raises(InputError) as error:
        read_settings({"threads": 0, "sed": 1})
    assert "--threads 0: must be" in error.value.message and "'seed'" in error.value.message


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(Exception, match="frozen"):
        Settings().seed = 3


@pytest.mark.parametrize(
    "given",
    [
        {"min_speedup": 0},
        {"min_speedup": -1},
        {"sessions": 1},
        {"measure_budget_s": 0},
        *({"max_drop": each} for each in (-0.1, 100.1, "nan", "inf", "two", "", "2%", [1.0])),
    ],
)
def test_senseless_demand_is_an_error_that_names_the_setting(given):
    with pytest.raises(InputError, match=f"--{next(iter(given)).replace('_', '-')} "):
        read_settings(given)


def test_no_loss_of_accuracy_at_all_may_be_demanded():
    found = read_settings({"max_drop": 0})
    assert found.max_drop == found.most_points_lost == 0.0


@pytest.mark.parametrize("written", [1.5, "1.5", " 1.5 "])
def test_loss_may_be_written_as_a_number_or_as_text(written):
    assert read_settings({"max_drop": written}).max_drop == 1.5


def test_two_points_may_be_lost_where_nobody_says_otherwise():
    found = read_settings({})
    assert (found.max_drop, found.most_points_lost, MAX_DROP) == (None, 2.0, 2.0)


def test_demand_on_the_accuracy_can_be_waived():
    found = read_settings({"max_drop": "none"})
    assert (found.max_drop, found.most_points_lost) == ("none", None)


def test_senseless_demand_on_the_accuracy_says_what_it_may_be():
    with pytest.raises(InputError, match="--max-drop two: must be points from 0 to 100, or none"):
        read_settings({"max_drop": "two"})


@pytest.mark.parametrize("given", [{}, {"max_drop": 2}, {"max_drop": 0}])
def test_best_within_a_demand_takes_the_default_too(given):
    found = read_settings({**given, "best_within_drop": True})
    assert found.best_within_drop and found.most_points_lost is not None
    assert not read_settings(given).best_within_drop


def test_best_within_a_demand_that_is_waived_is_an_error():
    with pytest.raises(InputError, match="--best-within-drop needs a demand to stay within; give --max-drop as points"):
        read_settings({"best_within_drop": True, "max_drop": "none"})


def test_demand_on_the_accuracy_survives_a_file(tmp_path: Path):
    for written in ('"none"', "1", "0.5"):
        (tmp_path / "a.toml").write_text(f"max-drop = {written}\n")
        found = read_settings({}, file=tmp_path / "a.toml")
        assert found.max_drop == (written.strip('"') if "n" in written else float(written))
        assert read_settings({}, base={"max_drop": found.max_drop}).max_drop == found.max_drop


def test_gate_table_and_frontier_may_be_given_in_a_file(tmp_path: Path):
    (tmp_path / "a.toml").write_text(
        'min-speedup = 1.2\nmax-drop = 1\nlatency-table = "board.json"\nfrontier = false\nsessions = 6\n'
    )
    found = read_settings({}, file=tmp_path / "a.toml")
    assert (found.min_speedup, found.max_drop, found.frontier, found.sessions) == (1.2, 1.0, False, 6)
    assert found.latency_table == Path("board.json")


@pytest.mark.parametrize(
    ("batch", "threads", "cores", "points"),
    [(1, 1, 4, ([1, 8], [1, 4])), (4, 2, 4, ([1, 4, 8], [1, 2, 4])), (8, 1, 1, ([1, 8], [1]))],
)
def test_throughput_is_measured_at_the_deployments_own_point_and_larger_ones(
    monkeypatch, batch, threads, cores, points
):
    monkeypatch.setattr("practise_deploy.settings.cores", lambda: cores)
    assert Settings(batch=batch, threads=threads).throughput_points == points


@pytest.mark.parametrize(
    "network, folder",
    [
        ("digits", "runs/digits"),
        ("torchvision:resnet18", "runs/torchvision-resnet18"),
        ("./a/net.py:make", "runs/a-net.py-make"),
    ],
)
def test_run_folder_is_named_after_the_network(network, folder):
    assert Settings(network=network).run_folder == Path(folder)
    assert Settings(network=network, out=Path("x")).run_folder == Path("x")


def test_standard_deviation_of_zero_is_refused():
    with pytest.raises(InputError, match="every standard deviation must be above 0"):
        read_settings({"std": "0.2,0,0.2", "mean": "0,0,0"})


def test_settings_that_never_end_are_not_read_to_their_end(tmp_path: Path):
    (tmp_path / "s.json").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="longer than"):
        read_settings({}, file=tmp_path / "s.json")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"optimisation_level": 9}, "--optimisation-level: 9 is not between 0 and 5"),
        ({"workspace-mib": "much"}, "--workspace-mib: 'much' is not a whole number"),
        ({"tf32": "no"}, "--no-tf32: 'no' is neither true nor false"),
    ],
)
def test_options_of_a_backend_in_a_settings_file_have_the_bounds_of_their_flags(tmp_path: Path, given, said):
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"backend": "trt", **given}))
    with pytest.raises(InputError, match=said):
        read_settings({}, file=file)


def test_options_of_a_backend_are_written_and_read_back(tmp_path: Path):
    given = {"backend": "trt", "tf32": False, "workspace_mib": 64, "timing_cache": "a b"}
    settings = read_settings(given)
    assert settings.backend_options == {"tf32": False, "workspace_mib": 64, "timing_cache": Path("a b")}
    assert "--workspace-mib 64 --timing-cache 'a b' --no-tf32" in settings.command("build")
    assert read_settings({}, base=settings.model_dump(mode="json")) == settings
