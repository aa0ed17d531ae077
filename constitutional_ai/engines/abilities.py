"""What a model server can do, learnt at the start from a handful of tiny requests.

A server that does not know a field may refuse it, or ignore it and answer 200, as transformers' own
server does with ``logprobs``. So a server is believed to do only what one of its replies has shown.

- log-probabilities: a reply is asked for its likeliest first tokens, and they must be there;
- ``continue_final_message``: the prompt's length tells whether the server left the assistant's
  message open, or closed it and began another;
- ``logprob_token_ids`` (vLLM): two ids are asked for, and both must come back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from constitutional_ai.engines.client import Client, Lost, Unusable
from constitutional_ai.errors import ModelError
from constitutional_ai.records import Conversation, assistant, user

Body = dict[str, Any]

QUESTION = [user("Which is the first letter of the alphabet? Reply with (A) or (B).")]
CONTINUE: Body = {"continue_final_message": True, "add_generation_prompt": False}
LIKELIEST = (20, 5)  # top_logprobs to ask for; some servers give no more than five


@dataclass(frozen=True)
class Abilities:
    """``likeliest``: how many first tokens come with their log-probability, 0 for none.

    ``continues``: an assistant's message that comes last is continued. ``chosen``: the
    log-probabilities of given token ids can be had. ``limit`` is the field that bounds an answer.
    """

    likeliest: int
    continues: bool
    chosen: bool
    limit: str = "max_tokens"


def find_model(client: Client, model: str) -> str:
    """The model's name on the server; without one, that of the only model it serves.

    Raises ModelError if nobody answers, or the server does not serve that model. A server that
    keeps no list is believed.
    """
    listed = client.get("models")
    entries = listed.get("data") if isinstance(listed, dict) else None
    served: list[str] = [
        e["id"] for e in entries or [] if isinstance(e, dict) and isinstance(e.get("id"), str)
    ]
    if model in served or (model and not served):
        return model
    if not model and len(served) == 1:
        return served[0]
    names = f"it serves {', '.join(served[:8])}" if served else "it lists none"
    problem = f"does not serve {model!r}" if model else "needs a model's name"
    raise ModelError(f"{client.url}: {problem}; {names}: write {client.url}#NAME")


def find_abilities(client: Client, body: Body) -> Abilities:
    """Ask with ``body``, which names the model. Raises ModelError if it cannot chat at all."""
    limit = _limit(client, body)
    short = {**body, limit: 1, "messages": QUESTION}
    likeliest = next((n for n in LIKELIEST if _gives_logprobs(client, short, n)), 0)
    return Abilities(
        likeliest=likeliest,
        continues=_continues(client, short),
        chosen=likeliest > 0 and _gives_chosen(client, short),
        limit=limit,
    )


def _limit(client: Client, body: Body) -> str:
    """``max_tokens``, or what newer hosted models have in its place."""
    problem = ""
    for limit in ("max_tokens", "max_completion_tokens"):
        reply = _ask(client, {**body, limit: 16, "messages": QUESTION})
        if not isinstance(reply, Lost):
            return limit
        problem = problem or reply.reason
        if "max_completion_tokens" not in reply.reason:
            break
    hint = "; serve it with a chat template" if "template" in problem else ""
    raise ModelError(f"{client.url}#{body['model']}: cannot chat ({problem}){hint}")


def _gives_logprobs(client: Client, body: Body, number: int) -> bool:
    reply = _ask(client, {**body, "logprobs": True, "top_logprobs": number})
    return not isinstance(reply, Lost) and len(first_tokens(reply)) > 1


def _continues(client: Client, body: Body) -> bool:
    """Whether "… assistant: (" gets no end and no new beginning behind it.

    An open message is a token or two longer than the question; a closed one has the marks of two
    turns as well. Servers that need no flag to leave it open give the same length without it.
    """
    talk = [*QUESTION, assistant("(")]
    asked = _prompt_tokens(client, body)
    flagged = _prompt_tokens(client, {**body, "messages": talk, **CONTINUE})
    plain = _prompt_tokens(client, {**body, "messages": talk})
    if not asked or not flagged:
        return False
    return flagged < plain if plain and plain != flagged else flagged == asked + 1


def _gives_chosen(client: Client, body: Body) -> bool:
    ids = token_ids(client, body["model"], [*QUESTION, assistant("A")])
    if len(ids) < 2:
        return False
    wanted = sorted(set(ids))[:2]
    reply = _ask(client, {**body, **chosen_fields(wanted)})
    return not isinstance(reply, Lost) and set(wanted) <= chosen_tokens(reply).keys()


def chosen_fields(ids: Sequence[int]) -> Body:
    return {"logprobs": True, "logprob_token_ids": list(ids), "return_tokens_as_token_ids": True}


def chosen_tokens(choice: Mapping[str, Any]) -> dict[int, float]:
    """Token id → log-probability at the first place of a reply."""
    named = ((token.partition(":"), value) for token, value in first_tokens(choice).items())
    return {
        int(number): value
        for (word, _, number), value in named
        if word == "token_id" and number.isdecimal()
    }


def first_tokens(choice: Mapping[str, Any]) -> dict[str, float]:
    """Token text → log-probability at the first place of a reply; empty if there are none."""
    steps = token_steps(choice)
    return steps[0][1] if steps else {}


def token_steps(choice: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """For each token of a reply: its text, and the likeliest texts in its place.

    Of two tokens with the same text, such as halves of a character, the likelier counts.
    """
    content = (choice.get("logprobs") or {}).get("content") or []
    steps = []
    try:
        for step in content:
            places: dict[str, float] = {}
            for one in [*(step.get("top_logprobs") or []), step]:
                value = float(one["logprob"])
                places[one["token"]] = max(value, places.get(one["token"], value))
            steps.append((str(step["token"]), places))
    except (TypeError, KeyError, ValueError, AttributeError):
        raise Unusable("log-probabilities in an unknown shape") from None
    return steps


def token_ids(client: Client, model: str, talk: Conversation) -> list[int]:
    """How the server spells a conversation up to where the assistant goes on.

    Empty if the server does not tell: /tokenize is vLLM's.
    """
    is_open = talk[-1]["role"] == "assistant"
    body = {"model": model, "messages": talk, **(CONTINUE if is_open else {})}
    return list(_tolerant(client, "/tokenize", body, _read_ids) or [])


def _read_ids(data: Any) -> list[int]:
    ids = data.get("tokens") if isinstance(data, dict) else None
    return ids if isinstance(ids, list) and all(isinstance(i, int) for i in ids) else []


def only_choice(data: Any) -> dict[str, Any]:
    """The one choice of a chat completion, with its message. Raises Unusable for anything else."""
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list):
        raise Unusable("a reply without choices")
    if len(choices) != 1:
        raise Unusable(f"a reply with {len(choices)} choices, asked for one")
    choice = choices[0]
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise Unusable("a choice without a message")
    return choice


def _ask(client: Client, body: Body) -> dict[str, Any] | Lost:
    return client.post_all("chat/completions", [body], only_choice)[0]


def _prompt_tokens(client: Client, body: Body) -> int:
    def read(data: Any) -> int:
        only_choice(data)
        return int((data.get("usage") or {}).get("prompt_tokens") or 0)

    return _tolerant(client, "chat/completions", body, read) or 0


def _tolerant(client: Client, path: str, body: Body, read: Any) -> Any:
    """What ``read`` makes of the reply; None if the server will not reply."""
    try:
        reply = client.post_all(path, [body], read)[0]
    except ModelError:
        return None
    return None if isinstance(reply, Lost) else reply
