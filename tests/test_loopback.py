"""`cai simulate` when it is told to misbehave: what is counted, what is wrecked, which requests are hit."""

import functools
import json

import anthropic
import pytest


@functools.cache
def client(url):
    return anthropic.Anthropic(base_url=url, api_key="sk-test", max_retries=0, timeout=5)


def create(server, text="How do I bake bread?", **more):
    return client(server.url).messages.create(
        model="small", max_tokens=4096, messages=[{"role": "user", "content": text}], **more
    )


def test_over_http_the_world_and_sampling_are_options(server):
    server.reset(world={"refusal_rate": 1})
    refused = create(server)
    assert (refused.stop_reason, refused.content) == ("refusal", [])
    server.reset(world={}, sampling=True, ids="constant")
    one, two = create(server), create(server)
    assert one.content[0].text != two.content[0].text
    assert one.id == two.id


def test_stats_count_requests_bodies_and_replies_bought_twice(server):
    create(server)
    create(server)
    create(server, "Another question")
    stats = server.stats()
    assert (stats["total"], stats["distinct"], stats["repeated_ok"], stats["in_flight"]) == (3, 2, 1, 0)
    assert sorted(stats["bodies"].values()) == sorted(stats["completed"].values()) == [1, 2]
    assert stats["max_in_flight"] == 1
    assert len(stats["keys"]) == 1
    assert "sk-test" not in json.dumps(stats)


def test_an_error_has_the_apis_form_and_comes_on_the_request_it_was_ordered_for(server):
    server.reset(fail=["429:7@2", "spend@3"])
    assert create(server).content
    with pytest.raises(anthropic.RateLimitError) as caught:
        create(server)
    assert caught.value.body["error"]["type"] == "rate_limit_error"
    assert caught.value.response.headers["retry-after"] == "7"
    with pytest.raises(anthropic.BadRequestError) as caught:
        create(server)
    assert caught.value.error_code == "enforced_spend_limit_reached"
    assert "retry-after" not in caught.value.response.headers


@pytest.mark.parametrize("spec", ["cut^1", "reset^1", "json^1"])
def test_wrecked_replies_are_not_counted_as_sent(server, spec):
    server.reset(fail=[spec])
    with pytest.raises((anthropic.APIConnectionError, json.JSONDecodeError, OSError)):
        create(server)
    assert server.stats()["completed"] == {}
    create(server)
    assert list(server.stats()["completed"].values()) == [1]


def test_replies_that_are_not_what_they_should_be(server):
    server.reset(fail=["html@1", "body@2", "empty@3", "stop:pause_turn@4", "usage@5"])
    assert "<html>" in str(create(server))
    assert create(server).content is None
    assert create(server).content == []
    assert create(server).stop_reason == "pause_turn"
    assert create(server).usage is None


def test_a_hanging_reply_ends_with_its_client_and_drips_arrive(server):
    server.reset(fail=["hang@1", "drip:0.0001@2"])
    with pytest.raises(anthropic.APITimeoutError):
        create(server, timeout=0.2)
    assert create(server, "x", system="Be brief.").content
    assert server.stats()["in_flight"] == 0


def test_faults_by_rate_are_the_same_in_a_rerun_and_by_text_hit_only_that(server):
    def outcomes():
        server.reset(fail=["529%0.5", "413~needle"])
        return [ended(server, f"Question {k}") for k in range(20)]

    first = outcomes()
    assert first == outcomes()
    assert {None, 529} == set(first)
    server.reset(fail=["413~needle"])
    assert (ended(server, "hay"), ended(server, "a needle")) == (None, 413)


def ended(server, text):
    try:
        create(server, text)
    except anthropic.APIStatusError as error:
        return error.status_code
    return None


def test_above_the_rate_limit_requests_are_told_to_come_back(server):
    server.reset(rate=0.5, burst=2)
    assert create(server).content
    assert create(server).content
    with pytest.raises(anthropic.RateLimitError) as caught:
        create(server)
    assert caught.value.response.headers["retry-after"] == "2"
    assert caught.value.response.headers["anthropic-ratelimit-requests-limit"] == "30"
