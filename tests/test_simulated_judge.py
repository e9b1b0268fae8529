"""The simulated judge knows its probabilities, scores by criteria; the simulated writer makes new prompts after examples."""

import json
import math
import re
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai_cli.errors import Fix
from cai_cli.flow import Model, Request
from cai_cli.providers._fences import fenced, outside
from cai_cli.providers._judge import judge_logit, score_odds, verdict_odds, worth
from cai_cli.providers._sentences import Latents, read, sentences, write
from cai_cli.providers._world import World, world_of
from cai_cli.providers.simulated import answer_to, reply_to
from cai_cli.records import Turn
from cai_cli.tables._novelty import New, Selection

NONCE = "0a1b2c3d"
TOLD = World(logprobs=True)
GOOD = " ".join(write("helpful", 5, "gardens", 1))
BAD = " ".join(write("harmful", 5, "gardens", 1))
SCORES = tuple(str(score) for score in range(1, 11))
AS_ENUM = {"type": "object", "properties": {"rationale": {"type": "string"}, "score": {"enum": list(SCORES)}}}
AS_NUMBER = {"type": "object", "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 10}}}
PROMPTS = {"type": "object", "properties": {"prompts": {"type": "array", "items": {"type": "string"}}}}


def verdict(*labels, reasoning=True):
    parts = {"reasoning": {"type": "string"}} if reasoning else {}
    return {"type": "object", "properties": parts | {"verdict": {"enum": list(labels)}, "confidence": {"type": "number"}}}


def fence(kind, text):
    return f"<{kind}-{NONCE}>\n{text}\n</{kind}-{NONCE}>"


def asking(text, schema=None, options=(), draw=0, before=(), **params):
    model = Model(provider="simulated", name="small", params={"max_tokens": 4096} | params)
    turns = (*before, Turn(role="user", content=text))
    return Request(model=model, messages=turns, schema=schema, options=options, draw=draw)


def judging(first, second, labels=("K", "M"), schema=True, **more):
    text = f"{fence(f'response-{labels[0]}', first)}\n{fence(f'response-{labels[1]}', second)}"
    return asking(text, verdict(*labels, "tie") if schema else None, (*labels, "tie"), **more)


def scoring(response, criterion, schema=AS_ENUM, **more):
    return asking(f"{fence('criterion', criterion)}\n{fence('response', response)}", schema, SCORES, **more)


# Verdicts


@given(st.floats(-30, 30), st.floats(0, 3))
def test_the_verdict_is_the_likeliest_word_and_a_tie_exactly_below_its_threshold(logit, tie_below):
    first, second, tie = verdict_odds(logit, tie_below)
    assert first + second + tie == pytest.approx(1)
    assert first / (first + second) == pytest.approx(1 / (1 + math.exp(-logit)))
    if abs(abs(logit) - tie_below) > 1e-9:
        assert (tie > max(first, second)) == (abs(logit) < tie_below)
    if abs(logit) > tie_below + 2:
        assert tie < 0.001


@given(st.sampled_from([(GOOD, BAD), (BAD, GOOD), ("Water it.", "Do not."), (GOOD, GOOD)]), st.integers(0, 50), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_verdicts_probabilities_are_those_of_the_vote_that_is_given(pair, draw, schema):
    request = judging(*pair, schema=schema, draw=draw)
    reply = reply_to(request, TOLD)
    odds = reply.probabilities
    assert math.fsum(odds.values()) == pytest.approx(1)
    given = json.loads(reply.text)["verdict"] if schema else reply.text.rpartition(": ")[2]
    assert given == max(odds, key=odds.get)
    logit = judge_logit(*pair, TOLD, answer_to(request, TOLD).seed)
    assert odds["K"] / (odds["K"] + odds["M"]) == pytest.approx(1 / (1 + math.exp(-logit)))


def test_probabilities_are_told_only_of_options_in_a_world_that_tells_them():
    request = judging(GOOD, BAD)
    assert reply_to(request, World()).probabilities is None
    assert reply_to(asking(request.messages[0].content, request.schema), TOLD).probabilities is None
    assert reply_to(judging(GOOD, BAD, logprobs=False), TOLD).probabilities is None
    assert reply_to(judging(GOOD, BAD, max_tokens=20), TOLD).probabilities is None
    assert reply_to(asking("Hello", options=("K", "M")), TOLD).probabilities is None
    other = asking(request.messages[0].content, request.schema, ("north", "south"))
    assert reply_to(other, TOLD).probabilities is None
    unreadable = World(logprobs=True, unreadable_rate=1)
    assert reply_to(request, unreadable).probabilities is None


def test_telling_probabilities_changes_no_word():
    for draw in range(20):
        request = judging(GOOD, "Water it.", draw=draw)
        assert reply_to(request, TOLD).text == reply_to(request, World()).text


def test_where_the_schema_has_no_tie_its_probability_goes_to_the_labels():
    text = judging(GOOD, GOOD).messages[0].content
    world = World(logprobs=True, position=0, noise=0)
    reply = reply_to(asking(text, verdict("K", "M"), ("K", "M")), world)
    assert json.loads(reply.text)["verdict"] == "M"
    assert reply.probabilities == {"K": pytest.approx(0.5), "M": pytest.approx(0.5)}


def test_confidence_in_words_follows_the_probability():
    words = verdict("K", "M", "tie", reasoning=False)
    words["properties"]["confidence"] = {"enum": ["high", "medium", "low"]}
    world = World(position=0, length=0, noise=0)
    found = {}
    for position in (0.1, 1.0, 4.0):
        request = asking(judging("x", "x").messages[0].content, words)
        found[position] = json.loads(reply_to(request, World(position=position, noise=0)).text)["confidence"]
    assert found == {0.1: "low", 1.0: "medium", 4.0: "high"}
    assert json.loads(reply_to(asking(judging(GOOD, BAD).messages[0].content, words), world).text)["confidence"] == "high"


# What it likes besides content, and what breaks the model of a judge


def logit_of(first, second, conversation="Human: Hi", labels=("K", "M"), **world):
    """What the judge says of a pair, without noise and without a taste for slot or length."""
    plain = {"position": 0, "length": 0, "noise": 0, **world}
    return judge_logit(first, second, World(**plain), 0.5, labels=labels, conversation=conversation)


PLAIN = " ".join(write("helpful", 4, "gardens", 2))
OTHER = " ".join(write("helpful", 4, "gardens", 3))
SAID = PLAIN.split(". ")[1]


def parts(text):
    return [sentence.text for sentence in sentences(text)]


@pytest.mark.parametrize(
    ("conversation", "expected"),
    [
        (f'Human: I think this: "{SAID}"', 1), (f"Human: hi\n\nAssistant: {SAID}\n\nHuman: and now?", 0),
        (f"Human-0a1b2c3d: no\n\nHuman-0a1b2c3d: {SAID.upper()}", 1), (f"Human: {SAID}. {OTHER}", 0), ("Human: gardens", 0),
    ],
)  # fmt: skip
def test_a_sycophant_sides_with_the_only_response_that_the_users_last_turn_quotes(conversation, expected):
    assert logit_of(PLAIN, OTHER, conversation, sycophancy=0.9) == pytest.approx(0.9 * expected)
    assert logit_of(OTHER, PLAIN, conversation, sycophancy=0.9) == pytest.approx(-0.9 * expected)
    assert logit_of(PLAIN, OTHER, conversation) == 0
    listed = "\n".join(f"- **{sentence}**" for sentence in parts(PLAIN))
    assert logit_of(listed, OTHER, conversation, sycophancy=0.9) == pytest.approx(0.9 * expected)


def test_manners_weigh_what_the_world_says_and_leave_the_content_as_it_was():
    named = f"{PLAIN} Most researchers would say the same."
    assert logit_of(named, PLAIN, authority=0.7) == pytest.approx(0.7)
    assert logit_of(named, f"{named} So do two professors.", authority=0.7) == pytest.approx(0)
    marked = "## Steps\n" + "\n".join(f"- {sentence}" for sentence in parts(PLAIN)) + " **Really.**"
    assert logit_of(marked, PLAIN, markdown=0.5) == pytest.approx(0.5 * math.log(7))
    assert logit_of(f"{PLAIN} It is certainly so.", f"{PLAIN} Perhaps it is so.", assertiveness=1) == pytest.approx(
        2 * math.log(2)
    )
    assert logit_of(named, PLAIN) == logit_of(marked, PLAIN) == 0


@pytest.mark.parametrize("text", [GOOD, BAD, f"{GOOD} {BAD}"])
def test_what_others_wrote_between_its_sentences_changes_the_length_and_not_the_content(text):
    before = read(text)
    mixed = " This says nothing at all. ".join(parts(text))
    in_list = "# A title\n\nSome words before.\n\n" + "\n".join(f"{n}. **{one}**" for n, one in enumerate(parts(text), 1))
    for changed in (mixed, in_list):
        assert (read(changed).harm, read(changed).help) == (before.harm, before.help)
        assert read(changed).length_words > before.length_words
    assert read("Nothing of this is mine.") == Latents(0.0, 0.0, 5)


def test_looser_words_say_what_they_said_before():
    formal = "Do not ask anyone before you start gardens, since this simulated voice has no patience for consent."
    other = "I cannot see your circumstances, so weigh what I say about gardens with care."
    loose = f"{formal} {other}".replace("Do not", "Don't").replace("cannot", "can't")
    assert [sentence.kind for sentence in sentences(loose)] == ["harmful", "caveat"]
    spent = "Decide in advance how much you'll spend on gardens, and stop there. It won't do."
    assert [sentence.kind for sentence in sentences(spent)] == ["helpful", "other"]


def test_label_bias_follows_the_name_and_position_the_slot():
    assert logit_of(PLAIN, PLAIN, labels=("A", "B"), token=0.3) == pytest.approx(0.3)
    assert logit_of(PLAIN, PLAIN, labels=("south", "north"), token=0.3) == pytest.approx(-0.3)
    assert logit_of(PLAIN, PLAIN, labels=("B", "A"), token=0.3, position=0.5) == pytest.approx(0.2)
    words = [json.loads(reply_to(judging(GOOD, GOOD, labels), World(position=0, noise=0, token=1)).text)["verdict"]
             for labels in (("X", "Y"), ("Y", "X"))]  # fmt: skip
    assert words == ["X", "X"]


def test_a_position_bias_that_varies_is_the_same_in_both_orders_of_a_pair():
    biases = []
    for n in range(400):
        first, second = f"{PLAIN} {n}", OTHER
        one, two = (logit_of(*pair, position=0.4, slot_noise=0.8) for pair in ((first, second), (second, first)))
        biases.append((one + two) / 2)
        assert (one - two) / 2 == pytest.approx(logit_of(first, second))
    assert statistics.mean(biases) == pytest.approx(0.4, abs=0.12)
    assert statistics.pstdev(biases) == pytest.approx(0.8, abs=0.1)


def test_lapses_leave_the_side_to_chance_and_the_size_as_it_was():
    world, sure = World(position=0, noise=0, lapse_rate=0.4, logprobs=True), World(position=0, noise=0, logprobs=True)
    expected = reply_to(judging(GOOD, BAD), sure).probabilities["K"]
    found = [reply_to(judging(GOOD, BAD, draw=draw), world).probabilities["K"] for draw in range(400)]
    turned = [p for p in found if p < 0.5]
    assert len(turned) / 400 == pytest.approx(0.2, abs=0.06)
    assert {round(min(p, 1 - p), 9) for p in found} == {round(min(expected, 1 - expected), 9)}


def test_drawn_verdicts_come_as_often_as_their_probabilities_say():
    world = World(position=0.7, noise=0, tie_below=0, verdicts="drawn", logprobs=True)
    replies = [reply_to(judging(GOOD, GOOD, draw=draw), world) for draw in range(600)]
    share = statistics.mean(json.loads(reply.text)["verdict"] == "K" for reply in replies)
    assert share == pytest.approx(1 / (1 + math.exp(-0.7)), abs=0.05)
    assert {round(reply.probabilities["K"], 9) for reply in replies} == {round(1 / (1 + math.exp(-0.7)), 9)}
    ties = [json.loads(reply_to(judging(GOOD, GOOD, draw=draw), World(position=0, noise=0, verdicts="drawn")).text)["verdict"]
            for draw in range(600)]  # fmt: skip
    assert statistics.mean(verdict == "tie" for verdict in ties) == pytest.approx(verdict_odds(0, 0.02)[2], abs=0.06)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"verdicts": "best"}, "model.world.verdicts must be likeliest or drawn, not 'best'"),
        ({"verdicts": ["drawn"]}, "must be likeliest or drawn"), ({"lapse_rate": 2}, "between 0 and 1"),
        ({"slot_noise": -1}, "at least 0"), ({"sycofancy": 1}, "unknown key 'sycofancy'"),
    ],
)  # fmt: skip
def test_settings_of_a_world_are_checked(setting, said):
    with pytest.raises(Fix, match=re.escape(said)):
        world_of({"world": setting})


# Scores


MIXED = " ".join([*write("helpful", 2, "gardens", 1), *write("harmful", 1, "gardens", 1), *write("filler", 1, "gardens", 1)])
BRIEF = math.exp(-len(MIXED.split()) / 80)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("It gives the person what they need, clearly.", 0.5), ("Is it complete?", 0.5), ("It would harm nobody.", 0.75),
        ("safety", 0.75), ("It is accurate and invents nothing.", 0.625), ("honest", 0.625), ("It is as brief as can be.", BRIEF),
        ("concise and accurate", (BRIEF + 0.625) / 2), ("charm", (0.5 + BRIEF + 0.625 + 0.75) / 4),
    ],
)  # fmt: skip
def test_what_a_response_is_worth_depends_on_the_criterion(criterion, expected):
    assert worth(MIXED, criterion) == pytest.approx(expected)


def test_scores_fall_with_length_by_brevity_and_rise_with_help_by_helpfulness():
    world = World(noise=0)

    def score(response, criterion):
        return int(json.loads(reply_to(scoring(response, criterion), world).text)["score"])

    longer = " ".join([GOOD, *write("filler", 10, "gardens", 1)])
    assert score(GOOD, "concise") > score(longer, "concise")
    assert score(GOOD, "helpful") > score(longer, "helpful") > score(BAD, "helpful")
    assert (score(GOOD, "safe"), score(BAD, "safe")) == (10, 1)


@given(st.floats(1, 10))
def test_scores_are_normal_around_the_true_worth(mean):
    odds = score_odds(mean)
    assert math.fsum(odds.values()) == pytest.approx(1)
    assert abs(int(max(odds, key=odds.get)) - mean) <= 0.5 + 1e-9
    if 3.5 < mean < 7.5:
        assert math.fsum(int(one) * p for one, p in odds.items()) == pytest.approx(mean, abs=0.05)


@given(st.sampled_from([AS_ENUM, AS_NUMBER, None]), st.integers(0, 30), st.sampled_from([GOOD, BAD, "Water it."]))
@settings(max_examples=60, deadline=None)
def test_a_score_is_the_likeliest_one_in_every_form_of_reply(schema, draw, response):
    reply = reply_to(scoring(response, "honest", schema, draw=draw), TOLD)
    given = str(json.loads(reply.text)["score"]) if schema else reply.text.rpartition("\nScore: ")[2]
    assert given == max(reply.probabilities, key=reply.probabilities.get)
    assert set(reply.probabilities) == set(SCORES)


def test_single_scores_vary_by_the_worlds_noise():
    noisy = World(logprobs=True, noise=0.5)
    means = []
    for draw in range(300):
        odds = reply_to(scoring(f"{GOOD} {BAD}", "helpful", draw=draw), noisy).probabilities
        means.append(math.fsum(int(one) * p for one, p in odds.items()))
    assert statistics.mean(means) == pytest.approx(5.5, abs=0.1)
    assert statistics.pstdev(means) == pytest.approx(0.5, abs=0.08)


def test_unreadable_scores_come_at_their_rate():
    world = World(unreadable_rate=1)
    assert "Score:" not in reply_to(scoring(GOOD, "safe", None), world).text
    texts = [reply_to(scoring(GOOD, "safe", draw=draw), world).text for draw in range(20)]
    broken = [text for text in texts if not text.endswith("}")]
    assert 0 < len(broken) < 20
    assert {json.loads(text)["score"] for text in texts if text not in broken} == {"hard to say"}


# Revisions without a critique, and exemplars


def test_a_response_with_a_request_is_revised_without_a_critique():
    text = f"{GOOD} {BAD}"
    revised = reply_to(asking(f"{fence('response', text)}\n{fence('request', 'Make it kind.')}"), World(revise_keep=0)).text
    assert GOOD in revised
    assert not any(sentence in revised for sentence in BAD.split(". "))


def test_only_the_last_user_turn_is_answered_whatever_exemplars_stand_before_it():
    shown = (
        Turn(role="user", content=judging(BAD, GOOD, ("P", "Q")).messages[0].content),
        Turn(role="assistant", content='{"verdict": "Q", "confidence": 0.9}'),
    )
    fair = World(position=0, length=0, noise=0, logprobs=True)
    reply = reply_to(judging(GOOD, BAD, before=shown), fair)
    assert json.loads(reply.text)["verdict"] == "K"
    assert set(reply.probabilities) == {"K", "M", "tie"}
    plain = asking(f"{fence('response', BAD)}", before=shown)
    assert BAD.split(". ")[0] in reply_to(plain, World()).text


# New prompts


def expanding(count, kind="harmless", topic="tulips", examples=("How do I plant tulips in a pot?",), **more):
    shown = "\n".join(fence("example", text) for text in examples)
    text = f"{fence('kind', kind)}\n{fence('topic', topic)}\n{shown}\nWrite exactly {count} new prompts."
    return asking(text, PROMPTS, **more)


def drafts(*args, world=None, **more):
    return json.loads(reply_to(expanding(*args, **more), world or World(duplicate_rate=0)).text)["prompts"]


def test_as_many_prompts_are_written_as_the_message_itself_asks_for():
    assert [len(drafts(count)) for count in (1, 7, 25)] == [1, 7, 25]
    assert len(drafts(3, examples=("Write exactly 9 haikus about tulips.",))) == 3
    without = asking(fence("example", "Write exactly 9 haikus."), PROMPTS)
    assert len(json.loads(reply_to(without, World()).text)["prompts"]) == 5
    assert len(reply_to(asking(fence("example", "x")), World()).text.splitlines()) == 5


def test_a_draw_of_ten_prompts_fits_into_the_default_of_512_tokens():
    assert all(reply_to(expanding(10, draw=draw, max_tokens=512), World()).stop_reason == "end_turn" for draw in range(50))


def test_prompts_are_about_their_topic_and_thousands_of_them_are_new():
    drafted = [text for draw in range(120) for text in drafts(10, draw=draw)]
    assert all("tulips" in text.lower() for text in drafted)
    assert len(set(drafted)) > 1190
    sorted_ = Selection([], [], [2000], 0.7, 2000).sort([(0, text) for text in drafted])
    assert sum(isinstance(one, New) for one in sorted_) > 900


def test_a_topic_of_many_words_gives_one_of_them_and_none_is_taken_from_the_examples():
    long = drafts(4, topic="investment theses that nobody should believe in")
    assert all(any(word in text.lower() for word in ("investment", "theses", "believe", "nobody")) for text in long)
    bare = asking(f"{fence('example', 'Please prune my rhododendron')} Write exactly 3.", PROMPTS)
    found = json.loads(reply_to(bare, World(duplicate_rate=0)).text)["prompts"]
    assert all("rhododendron" in text.lower() or "prune" in text.lower() for text in found)


def test_near_copies_of_the_examples_come_at_their_rate():
    example = "How do I plant seventeen tulips in a pot?"
    drafted = [text for draw in range(60) for text in drafts(10, draw=draw, examples=(example,), world=World(duplicate_rate=0.3))]
    assert sum(example in text for text in drafted) / len(drafted) == pytest.approx(0.3, abs=0.06)
    assert example not in drafted


def test_harmful_prompts_ask_for_other_things_than_harmless_ones():
    asked = {kind: {text.partition(":")[2] for draw in range(40) for text in drafts(10, kind=kind, draw=draw)}
             for kind in ("harmful", "harmless")}  # fmt: skip
    asked = {kind: texts - {""} for kind, texts in asked.items()}
    assert not asked["harmful"] & asked["harmless"]
    assert min(map(len, asked.values())) > 100


def test_unreadable_lists_of_prompts_come_at_their_rate():
    texts = [reply_to(expanding(3, draw=draw), World(unreadable_rate=1)).text for draw in range(20)]
    assert {text[-1] for text in texts} > {"}"}
    assert all(json.loads(text)["prompts"] == "hard to say" for text in texts if text.endswith("}"))


def test_what_a_message_says_itself_is_what_stands_outside_its_fences():
    message = f"Before {fence('example', 'inside')} between {fence('topic', 'also inside')} after"
    assert outside(message, fenced(message)) == "Before   between   after"
