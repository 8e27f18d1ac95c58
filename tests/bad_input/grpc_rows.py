"""Wrong requests, one a row: what is wrong, the call, and what its refusal names (field, value, bound, remedy)."""

# A row a line reads as a table, however long it is.
# ruff: noqa: E501
# fmt: off

import math

from google.protobuf.duration_pb2 import Duration

from shardline_protos import generation_pb2 as pb
from tests.bad_input.grpc_row import Row, ask, ask_of, chat, raw
from tests.bad_input.served_tiny_model import CONTEXT, MAX_NUM_SEQS
from tests.bad_input.tiny_model import VOCAB_SIZE

NAN, INF = math.nan, math.inf
KNOWN_ID = "tiny-1-" + "0" * 32
_UNKNOWN_FIELD = b"\xc2\x3e\x01x"  # number 1000, one byte


def _s(name: str) -> str:
    return f"sampling.{name}"


PROMPTS = [
    Row("no prompt", ask(text=None), "prompt", "is missing", "one of", "set one of text, token_ids and chat"),
    Row("empty text", ask(text=""), "text", "is empty", "at least one", "send"),
    Row("no ids", ask(token_ids=pb.TokenIds()), "token_ids.ids", "is empty", "at least one", "send"),
    Row("no messages", ask(chat=pb.Chat()), "chat.messages", "is empty", "at least one", "send"),
    Row("no role", ask(chat=chat(("", "hi"))), "chat.messages[0].role", "is empty", "`user`", "set it"),
    Row("many messages", ask(chat=chat(*[("user", "x")] * 4097)), "chat.messages", "4097", "4096", "fewer"),
    Row("prompt past the context", ask(text="z" * 300), "prompt", "300 tokens", str(CONTEXT), "shorten the prompt by 173"),
    Row("prompt of the whole context", ask(text="z" * CONTEXT), "prompt", f"{CONTEXT} tokens", str(CONTEXT), "by 1 token"),
    Row("megabytes of text", ask(text="z" * 10_000_000), "prompt", "10000000", str(CONTEXT), "shorten"),
    Row("id out of the vocabulary", ask(token_ids=pb.TokenIds(ids=[1, VOCAB_SIZE])), "token_ids.ids[1]", str(VOCAB_SIZE), "below", "vocabulary"),
    Row("the largest id", ask(token_ids=pb.TokenIds(ids=[2**32 - 1])), "token_ids.ids[0]", "4294967295", f"{VOCAB_SIZE}", "below"),
    Row("unknown model", ask(model="gpt-7"), "model", "'gpt-7'", "deployed are:", "tiny", code="NOT_FOUND"),
    Row("no model where there are several", ask(model=""), "model", "is empty", "only where one model is deployed", "tiny", code="NOT_FOUND"),
    Row("endless model name", ask(model="m" * 257), "model", "257 characters", "256", "at most"),
]

TEMPLATES = [
    Row("chat with a base model", ask(model="base", chat=chat(("user", "hi"))), "chat", "base model", "no chat template", "Send `text`"),
    Row("a template that loops", ask(model="looping", chat=chat(("user", "hi"))), "chat", "looping", "0.3 s", "look for its loops"),
    Row("a template that doubles", ask(model="growing", chat=chat(("user", "hi"))), "chat", "growing", "chat template", "--chat-template"),
    Row("a template that multiplies", ask(model="multiplying", chat=chat(("user", "hi"))), "chat", "multiplying", "1024 MiB of memory", "--chat-template"),
    Row("a template that reads classes", ask(model="reading-classes", chat=chat(("user", "hi"))), "chat", "__class__", "unsafe", "--chat-template"),
    Row("a template that reads globals", ask(model="reading-globals", chat=chat(("user", "hi"))), "chat", "__globals__", "unsafe", "--chat-template"),
    Row("a template that reads files", ask(model="importing", chat=chat(("user", "hi"))), "chat", "'/etc/passwd'", "stands alone", "--chat-template"),
    Row("a template that refuses", ask(model="raising", chat=chat(("user", "hi"))), "chat", "raising", "roles must alternate", "--chat-template"),
    Row("a template that divides by zero", ask(model="dividing", chat=chat(("user", "hi"))), "chat", "ZeroDivisionError", "failed", "--chat-template"),
]

NUMBERS = [
    Row("temperature not a number", ask({"temperature": NAN}), _s("temperature"), "nan", "0 … 10", "0 is greedy"),
    Row("infinite temperature", ask({"temperature": INF}), _s("temperature"), "inf", "0 … 10", "0 is greedy"),
    Row("negative temperature", ask({"temperature": -0.1}), _s("temperature"), "-0.1", "0 … 10", "0 is greedy"),
    Row("huge temperature", ask({"temperature": 1e9}), _s("temperature"), "1000000000", "0 … 10", "0 is greedy"),
    Row("top_p not a number", ask({"top_p": NAN}), _s("top_p"), "nan", "at most 1", "which is off"),
    Row("infinite top_p", ask({"top_p": INF}), _s("top_p"), "inf", "at most 1", "which is off"),
    Row("top_p above 1", ask({"top_p": 1.5}), _s("top_p"), "1.5", "more than 0 and at most 1", "which is off"),
    Row("top_p of 0", ask({"top_p": 0}), _s("top_p"), "is 0", "more than 0", "which is off"),
    Row("negative top_p", ask({"top_p": -1}), _s("top_p"), "-1", "more than 0", "which is off"),
    Row("min_p not a number", ask({"min_p": NAN}), _s("min_p"), "nan", "0 … 1", "0 is off"),
    Row("infinite min_p", ask({"min_p": -INF}), _s("min_p"), "-inf", "0 … 1", "0 is off"),
    Row("min_p above 1", ask({"min_p": 2}), _s("min_p"), "2", "0 … 1", "0 is off"),
    Row("negative min_p", ask({"min_p": -0.5}), _s("min_p"), "-0.5", "0 … 1", "0 is off"),
    Row("repetition penalty not a number", ask({"repetition_penalty": NAN}), _s("repetition_penalty"), "nan", "0.01 … 100", "1 is off"),
    Row("infinite repetition penalty", ask({"repetition_penalty": INF}), _s("repetition_penalty"), "inf", "0.01 … 100", "1 is off"),
    Row("repetition penalty of 0", ask({"repetition_penalty": 0}), _s("repetition_penalty"), "is 0", "0.01 … 100", "1 is off"),
    Row("negative repetition penalty", ask({"repetition_penalty": -1}), _s("repetition_penalty"), "-1", "0.01 … 100", "1 is off"),
    Row("presence penalty not a number", ask({"presence_penalty": NAN}), _s("presence_penalty"), "nan", "-2 … 2", "0 is off"),
    Row("presence penalty too low", ask({"presence_penalty": -3}), _s("presence_penalty"), "-3", "-2 … 2", "0 is off"),
    Row("infinite presence penalty", ask({"presence_penalty": INF}), _s("presence_penalty"), "inf", "-2 … 2", "0 is off"),
    Row("frequency penalty not a number", ask({"frequency_penalty": NAN}), _s("frequency_penalty"), "nan", "-2 … 2", "0 is off"),
    Row("frequency penalty too high", ask({"frequency_penalty": 2.5}), _s("frequency_penalty"), "2.5", "-2 … 2", "0 is off"),
    Row("infinite frequency penalty", ask({"frequency_penalty": -INF}), _s("frequency_penalty"), "-inf", "-2 … 2", "0 is off"),
    Row("n of 0", ask({"n": 0}), _s("n"), "is 0", "1 … 64", "several requests"),
    Row("n past the protocol", ask({"n": 65}), _s("n"), "65", "1 … 64", "several requests"),
    Row("n past the replicas", ask({"n": MAX_NUM_SEQS + 1}), _s("n"), str(MAX_NUM_SEQS + 1), f"run {MAX_NUM_SEQS} sequences", "--max-num-seqs"),
    Row("max_tokens of 0", ask({"max_tokens": 0}), _s("max_tokens"), "is 0", "at least 1", "absent for the rest"),
    Row("max_tokens past the context", ask({"max_tokens": 1000}), _s("max_tokens"), "1000", f"context of {CONTEXT}", "ask for at most"),
    Row("the largest max_tokens", ask({"max_tokens": 2**32 - 1}), _s("max_tokens"), "4294967295", f"context of {CONTEXT}", "ask for at most"),
    Row("min_tokens past max_tokens", ask({"min_tokens": 9, "max_tokens": 8}), _s("min_tokens"), "is 9", "ends at 8", "ask for at most 8"),
    Row("too many logprobs", ask({"logprobs": 21}), _s("logprobs"), "21", "0 … 20", "absent for none"),
    Row("too many prompt_logprobs", ask({"prompt_logprobs": 2**32 - 1}), _s("prompt_logprobs"), "4294967295", "0 … 20", "absent for none"),
    Row("prompt_logprobs beside a full n", ask({"prompt_logprobs": 0, "n": MAX_NUM_SEQS}), _s("prompt_logprobs"), str(MAX_NUM_SEQS + 1), f"run {MAX_NUM_SEQS}", "lower n"),
    Row("priority too high", ask(priority=101), "priority", "101", "-100 … 100", "lower goes first"),
    Row("priority too low", ask(priority=-(2**31)), "priority", "-2147483648", "-100 … 100", "lower goes first"),
]

LISTS = [
    Row("1,000 stop strings", ask({"stop": ["x"] * 1000}), _s("stop"), "1000", "64", "fewer"),
    Row("empty stop", ask({"stop": ["a", ""]}), _s("stop[1]"), "0 characters", "1 … 1024", "leave it out"),
    Row("huge stop", ask({"stop": ["x" * 1025]}), _s("stop[0]"), "1025 characters", "1 … 1024", "shorten it"),
    Row("many stop ids", ask({"stop_token_ids": [1] * 65}), _s("stop_token_ids"), "65", "64", "fewer"),
    Row("stop id out of the vocabulary", ask({"stop_token_ids": [VOCAB_SIZE]}), _s("stop_token_ids[0]"), str(VOCAB_SIZE), "below", "vocabulary"),
    Row("many bad words", ask({"bad_words": ["x"] * 129}), _s("bad_words"), "129", "128", "fewer"),
    Row("empty bad word", ask({"bad_words": [""]}), _s("bad_words[0]"), "0 characters", "1 … 1024", "leave it out"),
    Row("huge bad word", ask({"bad_words": ["x" * 2000]}), _s("bad_words[0]"), "2000 characters", "1 … 1024", "shorten it"),
    Row("many biases", ask({"logit_bias": dict.fromkeys(range(1025), 1.0)}), _s("logit_bias"), "1025", "1024", "fewer"),
    Row("huge bias", ask({"logit_bias": {5: 101}}), _s("logit_bias[5]"), "101", "-100 … 100", "forbids a token"),
    Row("bias not a number", ask({"logit_bias": {5: NAN}}), _s("logit_bias[5]"), "nan", "-100 … 100", "forbids a token"),
    Row("infinite bias", ask({"logit_bias": {5: -INF}}), _s("logit_bias[5]"), "-inf", "-100 … 100", "forbids a token"),
    Row("bias of no token", ask({"logit_bias": {2**32 - 1: 1}}), _s("logit_bias[4294967295]"), "no token", f"{VOCAB_SIZE}", "below"),
    Row("much metadata", ask(metadata={str(i): "" for i in range(17)}), "metadata", "17", "16", "fewer"),
    Row("metadata without a key", ask(metadata={"": "x"}), "metadata", "''", "1 … 64 bytes", "keys must"),
    Row("long metadata", ask(metadata={"a": "x" * 513}), "metadata['a']", "513 bytes", "512", "at most"),
    Row("long key", ask(idempotency_key="é" * 129), "idempotency_key", "258 bytes", "1 … 256", "shorten it"),
]

CONSTRAINTS = [
    Row("a JSON schema", ask({"constraint": pb.Constraint(json_schema="{}")}), _s("constraint"), "json_schema", "not supported yet", "leave it out"),
    Row("a regular expression", ask({"constraint": pb.Constraint(regex="a*")}), _s("constraint"), "regex", "not supported yet", "leave it out"),
    Row("a grammar", ask({"constraint": pb.Constraint(grammar="x")}), _s("constraint"), "grammar", "not supported yet", "leave it out"),
    Row("choices", ask({"constraint": pb.Constraint(choices=pb.TokenChoices(choices=["a"]))}), _s("constraint"), "choices", "not supported yet", "leave it out"),
    Row("any JSON", ask({"constraint": pb.Constraint(json_object=True)}), _s("constraint"), "json_object", "not supported yet", "leave it out"),
    Row("empty constraint", ask({"constraint": pb.Constraint()}), _s("constraint"), "empty", "not supported yet", "leave it out"),
]

TIMES = [
    Row("timeout of zero", ask(timeout=Duration()), "timeout", "0 s", "more than 0 s", "at most 2592000 s"),
    Row("negative timeout", ask(timeout=Duration(seconds=-5)), "timeout", "-5 s", "more than 0 s", "at most 2592000 s"),
    Row("endless timeout", ask(timeout=Duration(seconds=2**40)), "timeout", "1.09951e+12", "2592000 s", "30 days"),
    Row("negative queue time", ask(max_queue_time=Duration(nanos=-1)), "max_queue_time", "-1e-09", "more than 0 s", "at most"),
    Row("negative grace", ask(on_disconnect=pb.OnDisconnect(grace=Duration(seconds=-1))), "on_disconnect.grace", "-1 s", "at least 0 s", "at most"),
    Row("an action that is not", ask(on_disconnect=pb.OnDisconnect(cancel=False)), "on_disconnect.cancel", "false", "true", "another action"),
]

BYTES = [
    Row("invalid UTF-8", raw(b"\x12\x02\xff\xfe"), "the request", "malformed", "UTF-8", ".proto"),
    Row("a cut message", raw(b"\x12\x05hi"), "the request", "malformed", "UTF-8", ".proto"),
    Row("mere bytes", raw(b"\xff" * 40), "the request", "malformed", "UTF-8", ".proto"),
    Row("20 MB", raw(b"\x12\x80\xda\xc4\x09" + b"z" * 20_000_000), "the request", "20000005 bytes", "16777216", "shorten"),
    Row("an unknown field", ask_of("Generate", pb.GenerateRequest(text="hi"), then=_UNKNOWN_FIELD), "1000", "field number 1000", "does not know", "leave it out"),
    Row("an unknown sampling field", raw(b"\x12\x02hi\x2a\x04" + _UNKNOWN_FIELD), "sampling.1000", "field number 1000", "does not know", "leave it out"),
    Row("an unknown field of Resume", ask_of("Resume", pb.ResumeRequest(request_id=KNOWN_ID), then=_UNKNOWN_FIELD), "1000", "field number 1000", "does not know", "leave it out"),
    Row("an unknown field of Tokenize", ask_of("Tokenize", pb.TokenizeRequest(model="tiny", text="a"), then=_UNKNOWN_FIELD), "1000", "field number 1000", "does not know", "leave it out"),
    Row("an unknown field of Cancel", ask_of("Cancel", pb.CancelRequest(request_id=KNOWN_ID), then=_UNKNOWN_FIELD), "1000", "field number 1000", "does not know", "leave it out"),
]

REQUESTS = [
    Row("an id that is none", ask_of("Resume", pb.ResumeRequest(request_id="nonsense")), "request_id", "'nonsense'", "32 hexadecimal digits", "`accepted` event"),
    Row("an empty id", ask_of("Cancel", pb.CancelRequest()), "request_id", "''", "32 hexadecimal digits", "`accepted` event"),
    Row("an endless id", ask_of("GetRequest", pb.GetRequestRequest(request_id="x" * 100_000)), "request_id", "xxx", "32 hexadecimal digits", "`accepted` event"),
    Row("a request of nobody", ask_of("GetRequest", pb.GetRequestRequest(request_id=KNOWN_ID)), "request", KNOWN_ID, "retention", "", code="NOT_FOUND"),
    Row("a cancel of nobody's", ask_of("Cancel", pb.CancelRequest(request_id=KNOWN_ID)), "request", KNOWN_ID, "retention", "", code="NOT_FOUND"),
    Row("nothing to tokenise", ask_of("Tokenize", pb.TokenizeRequest(model="tiny")), "prompt", "is missing", "one of text and chat", "set"),
    Row("an id that cannot be spelled", ask_of("Detokenize", pb.DetokenizeRequest(model="tiny", token_ids=[VOCAB_SIZE])), "token_ids[0]", str(VOCAB_SIZE), "below", "vocabulary"),
    Row("ids that make a book", ask_of("Detokenize", pb.DetokenizeRequest(model="tiny", token_ids=[261] * 900_000)), "token_ids", "4500000 characters", "4000000", "in parts"),
    Row("ids for a library", ask_of("Detokenize", pb.DetokenizeRequest(model="tiny", token_ids=[0] * 1_000_001)), "token_ids", "1000001", "1000000", "fewer"),
]

ROWS = [*PROMPTS, *TEMPLATES, *NUMBERS, *LISTS, *CONSTRAINTS, *TIMES, *BYTES, *REQUESTS]
