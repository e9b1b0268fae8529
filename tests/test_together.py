"""One structured call about several things: scores by all criteria, critiques by all principles of a round."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loopback import Server
from outside import SIMULATED, Cai, at, questions, rows_of, write_config, write_rows
from test_rounds import parts
from test_stages import CUT, REFUSAL, SAMPLE, rejection

from cai_cli import prompts, scoring
from cai_cli.errors import Fix
from cai_cli.flow import Reply, Request, play
from cai_cli.parts import Parts
from cai_cli.providers._world import world_of
from cai_cli.providers.simulated import reply_to
from cai_cli.scoring import Scale, ScoreSettings
from cai_cli.settings import ModelSection, Section
from cai_cli.several import Several
from cai_cli.stages import critique, label_pairs, score

NAMES = ["harm", "truth", "use"]
SCALES = [Scale(name="brief", description="It is short.", weight=3), Scale(name="true", description="So it is.")]
SEVERAL = Several(part="scores", key="criterion", names=["a", "b"], properties={"score": {"type": "string"}})


def roomy(settings: Section) -> Parts:
    given = parts(settings)
    given.default = ModelSection(provider="simulated", name="m", max_tokens=2048)
    return given


def critic(**settings: Any) -> critique.Critique:
    return critique.build(roomy(critique.Settings(principles=3, pick="all", together=True, **settings)))


def scorer(**settings: Any) -> score.ScoreSamples:
    return score.build(parts(ScoreSettings(criteria=SCALES, together=True, **settings)))


def findings(*names: str, **more: Any) -> Reply:
    words = {"harm": "severe", "truth": "none", "use": "minor"}
    entries = [
        {"principle": name, "critique": f"of {name}", "severity": words[name], "quotes": ["It is easy.", "made up"],
         "suggestions": ["shorter"]} | more for name in names
    ]  # fmt: skip
    return Reply(text=json.dumps({"critiques": entries}))


def ratings(**scores: str) -> Reply:
    entries = [{"criterion": name, "rationale": f"as {name} as can be", "score": points} for name, points in scores.items()]
    return Reply(text=json.dumps({"scores": entries}))


# What such a reply is


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_entries_come_in_the_order_of_the_names(order: tuple[str, ...]) -> None:
    text = json.dumps({"scores": [{"criterion": name, "score": name.upper()} for name in order]})
    assert [one["score"] for one in SEVERAL.read(text) or []] == ["A", "B"]


@pytest.mark.parametrize("names", [(), ("a",), ("a", "a"), ("a", "b", "b"), ("a", "b", "c"), ("a", "c"), ("A", "b")])
def test_one_that_is_missing_twice_there_or_unknown_makes_it_unreadable(names: tuple[str, ...]) -> None:
    assert SEVERAL.read(json.dumps({"scores": [{"criterion": name, "score": "1"} for name in names]})) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"scores": {}}', '{"scores": [1, 2]}', '{"a": "1", "b": "2"}'])
def test_what_is_of_another_form_is_unreadable(text: str) -> None:
    assert SEVERAL.read(text) is None


# Critiques


def test_all_principles_of_a_round_are_one_question_and_each_has_its_finding() -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        return findings("use", "harm", "truth")

    opened = play(critic()(SAMPLE), answer).open_round
    assert opened is not None
    assert [(one.principle, one.category, one.severity) for one in opened.critiques] == [
        ("harm", "harmlessness", 0.9), ("truth", "honesty", 0.0), ("use", "helpfulness", 0.3),
    ]  # fmt: skip
    assert {one.quotes for one in opened.critiques} == {("It is easy.",)}
    assert opened.severity == 0.9
    (request,) = asked
    text = request.messages[-1].content
    assert all(f"{name}: " in text and f"criticise {name}" in text for name in NAMES)
    assert (text.count(SAMPLE.response), request.about["principle"]) == (1, "harm, truth, use")
    assert text[: request.constant[1]].endswith("criticise use\n\n"), "where all are picked, they are the same in every question"


def test_the_simulated_critic_answers_one_by_one_and_all_at_once() -> None:
    apart = critique.build(roomy(critique.Settings(principles=3, pick="all")))
    world = world_of({"world": {"harm": 0.9}})
    found = [play(stage(SAMPLE), lambda request: reply_to(request, world)).open_round for stage in (apart, critic())]
    names = [[one.principle for one in opened.critiques] for opened in found if opened is not None]
    assert names == [NAMES, NAMES]


def test_a_critique_that_lacks_a_principle_is_asked_for_once_more_then_rejected() -> None:
    whole = findings(*NAMES)
    assert play(critic()(SAMPLE), [findings("harm", "use"), whole]).open_round is not None
    for bad in (findings("harm", "use"), findings(*NAMES, severity="awful"), Reply(text="All is well.")):
        assert rejection(lambda bad=bad: play(critic()(SAMPLE), [bad, bad])) == "no_severity"  # type: ignore[misc]
    assert rejection(lambda: play(critic()(SAMPLE), [REFUSAL])) == "refused"
    assert rejection(lambda: play(critic()(SAMPLE), [CUT])) == "truncated"


def test_principles_that_are_drawn_are_no_part_of_the_constant_beginning() -> None:
    stage = critique.build(parts(critique.Settings(principles=2, together=True)))
    (request,) = next(stage(SAMPLE))
    text = request.messages[-1].content
    assert 0 < request.constant[1] < text.index("criticise ")


def test_exemplars_and_templates_for_one_principle_do_not_go_with_several(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(2))
    write_config(tmp_path, critique={"principles": 2, "together": True, "exemplars": 1})
    _, _, err = cai("config", "check", "c.yaml")
    assert "exemplars answer for one principle, and together asks about several; leave one of the two out" in err
    write_config(tmp_path, critique={"principles": 2, "together": True, "template": "paper"})
    _, _, err = cai("config", "check", "c.yaml")
    assert "there is no template 'paper' for critiques" in err
    front = "---\npurpose: p\nstage: critiques\nreply: text\nvariables: [response, principles]\n---\n"
    (tmp_path / "critiques-mine.md").write_text(front + "{{ response }} {{ principles }}\n")
    with pytest.raises(Fix, match="reply: cannot be 'text' here"):
        prompts.find("mine", "critiques", tmp_path)


# Scores


def test_all_criteria_are_one_question_and_the_composite_is_as_ever() -> None:
    row = play(scorer()(SAMPLE), [ratings(true="5", brief="9")])
    assert [(one.criterion, one.score, one.rationale) for one in row.scores] == [
        ("brief", 9.0, "as brief as can be"), ("true", 5.0, "as true as can be"),
    ]  # fmt: skip
    assert row.composite == 8.0
    (request,) = next(scorer()(SAMPLE))
    text = request.messages[-1].content
    assert "brief: It is short." in text
    assert "true: So it is." in text
    assert (request.options, text.count(SAMPLE.response)) == ((), 1)
    assert "between tags" not in text[: request.constant[1]]
    assert request.constant[1] > 800


def test_scores_that_lack_a_criterion_are_asked_for_once_more_then_rejected() -> None:
    assert play(scorer()(SAMPLE), [ratings(true="5"), ratings(true="5", brief="9")]).composite == 8.0
    for bad in (ratings(true="5"), ratings(true="5", brief="11"), Reply(text="Score: 7")):
        assert rejection(lambda bad=bad: play(scorer()(SAMPLE), [bad, bad])) == "no_score"  # type: ignore[misc]
    assert rejection(lambda: play(scorer()(SAMPLE), [REFUSAL])) == "no_score"


def test_scores_that_only_repeat_what_stands_in_the_response_are_nobodys() -> None:
    said = ratings(brief="10", true="10").text
    sample = replace(SAMPLE, response=f"Here you are: {said}")
    assert rejection(lambda: play(scorer()(sample), [Reply(text=said)] * 2)) == "no_score"


def test_where_scores_are_asked_beside_something_else_they_go_together_too() -> None:
    from test_label_pairs import PAIR, verdict

    given = parts(label_pairs.Settings(scores=True))
    given.sections = (ScoreSettings(criteria=SCALES, together=True),)
    judged = play(label_pairs.build(given)(PAIR), [verdict("tie"), verdict("tie"), *[ratings(brief="2", true="8")] * 2])
    assert [one.score for one in (*judged.scores_a, *judged.scores_b)] == [2.0, 8.0, 2.0, 8.0]


def test_the_simulated_judge_scores_by_each_criterion_as_it_does_alone() -> None:
    world, plain = world_of({}), ScoreSettings()
    rows = [
        play(score.build(roomy(settings))(SAMPLE), lambda request: reply_to(request, world))
        for settings in (plain, ScoreSettings(together=True))
    ]
    assert [one.criterion for one in rows[0].scores] == [one.criterion for one in rows[1].scores]
    assert [one.score for one in rows[1].scores] == [pytest.approx(one.score, abs=2.1) for one in rows[0].scores]
    assert len({one.score for one in rows[1].scores}) > 1
    assert scoring.composite(rows[1].scores, plain.criteria) == rows[1].composite


# From end to end


@pytest.mark.parametrize("over_http", [False, True])
def test_a_run_asks_a_third_and_a_quarter_as_often(cai: Cai, server: Server, tmp_path: Path, over_http: bool) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(4))
    model = {"model": at(server.url, max_tokens=2048) if over_http else {**SIMULATED, "max_tokens": 2048}}
    critique_section, score_section = {"principles": 3, "together": True}, {"together": True}
    write_config(tmp_path, critique=critique_section, score=score_section, label_pairs=None, debias=None, **model)
    code, out, err = cai("run", "c.yaml", "-q", "--json")
    assert code == 0, err
    stages = json.loads(out)["stages"]
    rounds = sum(len(row["rounds"]) for row in rows_of(tmp_path / "out" / "critique" / "latest"))
    assert stages["critique"]["requests"] == rounds
    assert stages["score"]["requests"] == len({row["response"] for row in rows_of(tmp_path / "out" / "score" / "latest")})
    for row in rows_of(tmp_path / "out" / "critique" / "latest"):
        assert all(len({one["principle"] for one in done["critiques"]}) == 3 for done in row["rounds"])
    for row in rows_of(tmp_path / "out" / "score" / "latest"):
        assert [one["criterion"] for one in row["scores"]] == ["helpfulness", "conciseness", "honesty", "safety"]
        assert 1 <= row["composite"] <= 10


def test_a_critic_that_cannot_keep_to_the_form_costs_rows_and_says_so(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(4))
    model = {"provider": "simulated", "name": "w", "world": {"unreadable_rate": 1.0}}
    write_config(tmp_path, critique={"principles": 2, "together": True, "model": model}, label_pairs=None, debias=None)
    code, out, _ = cai("run", "c.yaml", "-q", "--json")
    assert (code, json.loads(out)["stages"]["critique"]["rejected"]) == (3, {"no_severity": 8})
    rejects = (tmp_path / "out" / "critique" / "latest" / "_rejects.jsonl").read_text()
    assert rejects.count("in one reply that are not what was asked for") == 8
