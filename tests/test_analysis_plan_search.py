from __future__ import annotations

import json

import pytest
from conftest import draw_folder
from training_models import coloured, small_model, splits

from tl_keras.analysis.plan_search import Trial, choose_plan, score, share_of
from tl_keras.data.splits import Splits
from tl_keras.errors import DataError, PlanError, RunError
from tl_keras.runs.config import RunConfig
from tl_keras.training.plan import Plan, Stage
from tl_keras.workflows.fit import resume, train


def made(log):
    """Arms whose rates make a known order: the higher, the better in so short a time."""
    rates = {"still": 1e-9, "slow": 1e-5, "quick": 0.03, "other": 1e-8}

    def make(name):
        log.append(name)
        stage = Stage("all", ("all",), epochs=3, learning_rate=rates[name], batchnorm="train")
        return small_model(), Plan(name, (stage,), batch_size=8)

    return make, tuple(rates)


def test_the_better_half_goes_on_and_the_best_is_chosen_and_its_model_kept():
    log: list[str] = []
    make, arms = made(log)
    data = splits(96, 30)
    choice = choose_plan(make, data, arms=arms, minutes=600)
    assert choice.plan == "quick"
    assert len(log) == 6
    assert [trial.share for trial in choice.trials] == [0.25] * 4 + [0.5] * 2
    assert choice.best.plan == "quick"
    assert score(choice.model, data.val) == pytest.approx(
        (choice.best.accuracy, choice.best.loss)
    )
    assert all(trial.rank <= choice.best.rank for trial in choice.trials)
    assert choice.why.startswith("quick was best on the validation pictures")
    json.dumps(choice.facts())


def test_without_time_the_cheapest_is_taken_and_the_reader_is_told():
    make, arms = made([])
    choice = choose_plan(make, splits(), arms=arms, minutes=1e-9)
    assert choice.plan == "still"
    assert choice.model is None and choice.best is None
    assert "No plan ended a short run" in choice.why
    assert {trial.note for trial in choice.trials} == {"its share of the time was up"}


def test_a_plan_that_alone_was_judged_is_not_called_the_best():
    make, arms = made([])
    data = splits(96, 30)

    def dying(name):
        model, plan = make(name)
        if name != "still":
            model.set_weights([w * float("nan") for w in model.get_weights()])
        return model, plan

    choice = choose_plan(dying, data, arms=arms, minutes=600)
    assert choice.plan == "still"
    assert "still alone ended a short run" in choice.why
    assert choice.why.partition("Not judged: ")[2].startswith("slow, quick, other.")


def test_a_plan_that_the_base_does_not_allow_leaves_the_others_to_go_on():
    make, arms = made([])

    def picky(name):
        if name == "slow":
            raise PlanError("no branch takes so little")
        return make(name)

    choice = choose_plan(picky, splits(96, 30), arms=arms, minutes=600)
    assert choice.plan == "quick"
    assert [t.note for t in choice.trials if t.plan == "slow"] == ["no branch takes so little"]


def test_a_share_has_every_class_as_often_as_all_have_it():
    samples = coloured(90, 0)
    part = share_of(samples, 0.25, seed=3)
    assert max(part.counts().values()) - min(part.counts().values()) <= 1
    assert part.keys == share_of(samples, 0.25, seed=3).keys != share_of(samples, 0.25, 4).keys
    assert set(part.keys) <= set(samples.keys)
    assert len(share_of(coloured(9, 0), 0.25, 0)) == 8


def test_accuracy_comes_first_and_the_loss_decides_between_equals():
    rows = [(0.8, 0.1), (0.9, 0.5), (0.9, 0.4), (None, None)]
    trials = [Trial(str(i), 0.5, *row, 1.0) for i, row in enumerate(rows)]
    assert [t.plan for t in sorted(trials, key=lambda t: t.rank)[::-1]] == ["2", "1", "0", "3"]


def test_there_is_nothing_to_judge_by_without_validation_pictures():
    data = Splits(coloured(24, 0), coloured(3, 1).take([]), None)
    with pytest.raises(DataError, match="set --val"):
        choose_plan(made([])[0], data, arms=("still",))


def job_of(folder, **more):
    return RunConfig.of(str(folder), "small_resnet", 16, plan="auto", epochs=(1, 1), **more)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("auto")
    folder = draw_folder(place / "photos", count=10)
    return train(job_of(folder, minutes=600.0), place / "run")


@pytest.mark.slow
def test_a_run_records_what_was_tried_and_why_and_is_an_ordinary_one_then(run):
    auto = run.record["auto"]
    assert run.complete
    assert {t["plan"] for t in auto["trials"]} == {
        "probe", "lora", "top", "lp-ft", "full", "scratch",
    }  # fmt: skip
    assert auto["plan"] == run.record["config"]["plan"]["name"] == run.record["plan"]["name"]
    assert auto["why"] in (run.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_model_kept_is_at_least_as_good_as_any_that_was_tried(run):
    accuracy, loss = score(run.model(), run.samples("val"))
    final, best = run.record["auto"]["final"], run.record["auto"]["best"]
    assert (accuracy, -loss) >= (best["accuracy"], -best["loss"] - 1e-5)
    assert final["kept"] == "full run" or final["accuracy"] <= best["accuracy"]


@pytest.mark.slow
def test_stopped_while_choosing_it_chooses_anew_and_stopped_later_it_keeps_its_choice(
    folder, tmp_path, monkeypatch
):
    from tl_keras.workflows import fit as jobs

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "decide_plan", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(job_of(folder, minutes=600.0), tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr(jobs, "finish", stopped)
    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path / "run")
    monkeypatch.setattr(jobs, "decide_plan", None)
    monkeypatch.setattr(jobs, "finish", jobs_close)
    run = resume(tmp_path / "run")
    assert run.complete and run.record["config"]["plan"]["name"] == run.record["auto"]["plan"]
    with pytest.raises(RunError, match="nothing to resume"):
        resume(tmp_path / "run")


def jobs_close(*arguments, **options):
    from tl_keras.runs.lifecycle import finish

    finish(*arguments, **options)


def test_where_a_short_run_was_better_its_model_is_kept(tmp_path):
    from tl_keras.runs.directory import RunDirectory
    from tl_keras.workflows.auto_plan import keep_best

    data, (make, arms) = splits(96, 30), made([])
    names = list(data.train.class_names)
    run = RunDirectory.create(tmp_path / "run", {"state": "incomplete", "classes": names})
    choice = choose_plan(make, data, arms=arms[2:3], minutes=600)
    (run.state).mkdir()
    choice.model.save(run.state / "auto.keras")
    run.update(auto=choice.facts())
    worse = small_model()
    kept = keep_best(run, worse, data.val)
    assert score(kept, data.val) == pytest.approx((choice.best.accuracy, choice.best.loss))
    assert run.record["auto"]["final"]["kept"] == "short run of quick"
    assert keep_best(run, choice.model, data.val) is choice.model
    assert run.record["auto"]["final"]["kept"] == "full run"
