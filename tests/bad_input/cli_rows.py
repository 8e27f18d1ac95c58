"""Wrong command lines, one a row: exit code 2 is a mistake in how it is written, 1 is one in what it says."""

# A row a line reads as a table, however long it is.
# ruff: noqa: E501
# fmt: off

from tests.bad_input.cli_row import Row

_HELP = "--help`"
_SERVE = "serve --engine simulated --launcher local --grpc-port 0"

WRITTEN = [
    Row("an unknown command", "dance", "COMMAND", "'dance'", "choose from 'serve'", _HELP, code=2),
    Row("an unknown flag", "generate hi --max-tokns 3", "there is no flag", "--max-tokns", "did you mean --max-tokens?", _HELP, code=2),
    Row("an unknown flag of serve", "serve m --gpus 8", "there is no flag", "--gpus", "shardline serve", _HELP, code=2),
    Row("a prompt without quotes", "generate once upon a time", "'upon'", "one word too many", "quotes", _HELP, code=2),
    Row("a size that is none", "serve --tensor-parallel-size two", "--tensor-parallel-size", "'two'", "neither a whole number nor auto", _HELP, code=2),
    Row("a number that is none", "generate hi --max-tokens many", "--max-tokens", "'many'", "a whole number", _HELP, code=2),
    Row("temperature out of bounds", "generate hi --temperature -1", "--temperature", "-1", "from 0 to 10", _HELP, code=2),
    Row("temperature that is no number", "generate hi --temperature nan", "--temperature", "nan", "from 0 to 10", _HELP, code=2),
    Row("top-p above 1", "generate hi --top-p 1.5", "--top-p", "1.5", "from 0 to 1", _HELP, code=2),
    Row("n of 0", "generate hi --n 0", "--n", "0 is out of bounds", "1 or more", _HELP, code=2),
    Row("a bias without a value", "generate hi --logit-bias 42", "--logit-bias", "'42'", "a token id, = and a number", _HELP, code=2),
    Row("a huge bias", "generate hi --logit-bias 42=1000", "--logit-bias", "1000", "from -100 to 100", _HELP, code=2),
    Row("a priority out of bounds", "generate hi --priority 101", "--priority", "101", "from -100 to 100", _HELP, code=2),
    Row("a timeout of 0", "generate hi --timeout 0", "--timeout", "0 is out of bounds", "0.001 or more", _HELP, code=2),
    Row("a port out of bounds", "serve m --grpc-port 70000", "--grpc-port", "70000", "from 0 to 65535", _HELP, code=2),
    Row("a context of 0", "serve m --max-model-len 0", "--max-model-len", "0 is out of bounds", "from 1", _HELP, code=2),
    Row("kernels that are not", "serve m --kernels fast", "--kernels", "'fast'", "'native', 'reference'", _HELP, code=2),
    Row("a durability that is not", "serve m --durability forever", "--durability", "forever", "relaxed", _HELP, code=2),
    Row("a card that nobody makes", "plan qwen3-8b --gpus 8xTPU", "--gpus", "'TPU'", "one of T4", _HELP, code=2),
    Row("nodes that are none", "plan qwen3-8b --nodes 8x", "--nodes", "'8x'", "2x8xA100-80GB", _HELP, code=2),
    Row("a format that is none", "plan qwen3-8b --quantization q3", "--quantization", "'q3'", "one of bf16", _HELP, code=2),
    Row("a wrong variable", "generate hi", "SHARDLINE_MAX_TOKENS", "'many'", "--max-tokens", "--help", code=2, environment={"SHARDLINE_MAX_TOKENS": "many"}),
    Row("a variable that is no switch", "serve m", "SHARDLINE_ALLOW_UNAUTHENTICATED", "'perhaps'", "switch", "1 or 0", code=2, environment={"SHARDLINE_ALLOW_UNAUTHENTICATED": "perhaps"}),
    Row("a variable out of its choices", "serve m", "SHARDLINE_KERNELS", "'fast'", "native", "one of", code=2, environment={"SHARDLINE_KERNELS": "fast"}),
]

SAID = [
    Row("no model", "serve", "MODEL", "no MODEL was given", ".gguf file", "smollm2:135m"),
    Row("no such model", "serve {folder}/nothing --launcher local", "{folder}/nothing", "neither file nor folder", ".gguf file", "Check the spelling"),
    Row("a folder without weights", "serve {folder}/empty --launcher local", "{folder}/empty", "nothing in it", "config.json and model.safetensors", "Check the spelling"),
    Row("a quantised checkpoint", "serve {quantised} --launcher local --grpc-port 0", "quantization_config (AWQ)", "'awq'", "not quantised", "a GGUF file"),
    Row("a file that is no model", "serve {folder}/notes.txt --launcher local", "notes.txt", "'.txt'", ".gguf file", "Check the spelling"),
    Row("a path that loops", "serve {folder}/loop.gguf --launcher local", "loop.gguf", "neither file nor folder", ".gguf file", "Check the spelling"),
    Row("a path that is far too long", "serve {long} --launcher local", "no such model", "File name too long", ".gguf file", "Check the spelling"),
    Row("a tiny KV cache", "serve {tiny} --launcher local --kv-cache-tokens 10", "--kv-cache-tokens", "10", "at least a block of 32", "raise it"),
    Row("a cache below the model's context", "serve {tiny} --launcher local --kv-cache-tokens 100", "--kv-cache-tokens", "holds 96", "256", "--max-model-len 96"),
    Row("a context above the cache", _SERVE + " --max-model-len 100 --kv-cache-tokens 64", "--max-model-len is", "100", "--kv-cache-tokens is 64", "lower the first"),
    Row("a context above the model's", "serve {tiny} --launcher local --max-model-len 1000", "--max-model-len", "1000", "1 to 256", "longest context"),
    Row("a step below its sequences", _SERVE + " --max-num-seqs 8 --max-num-batched-tokens 4", "--max-num-batched-tokens", "is 4", "--max-num-seqs = 8", "raise the first"),
    Row("replay of nothing", _SERVE + " --simulated-tokens replay", "--simulated-tokens", "'replay'", "nothing to replay", "--simulated-replay-text"),
    Row("a flag of another engine", "serve {tiny} --launcher local --simulated-step-s 1", "--simulated-step-s", "1.0", "only the simulated engine", "leave it out"),
    Row("native kernels with a dtype", "serve {tiny} --launcher local --grpc-port 0 --kernels native --dtype float32", "--kernels native", "float32", "own format", "--kernels reference"),
    Row("a device that is none", _SERVE + " --device gpu", "--device", "'gpu'", "cpu, cuda, or cuda:N", "must be"),
    Row("too many replicas", _SERVE + " --replicas 5000", "--replicas", "5000", "0 to 1024", "must be"),
    Row("no router", _SERVE + " --routers 0", "--routers", "0", "1 to 64", "must be"),
    Row("Ray and no Ray", _SERVE + " --ray-address 127.0.0.1:1", "--ray-address", "--launcher local", "Ray cluster", "leave one of them out"),
    Row("a name that is no file's", _SERVE + " --name ../other", "--name", "'../other'", "1 to 64 letters", "begin with"),
    Row("everybody's address", _SERVE + " --host 0.0.0.0", "--host", "0.0.0.0", "other machines", "--allow-unauthenticated"),
    Row("somebody else's address", _SERVE + " --host 192.0.2.1 --allow-unauthenticated", "--host", "192.0.2.1", "this machine", "127.0.0.1"),
    Row("a port in use", "serve --engine simulated --launcher local --grpc-port {taken}", "--grpc-port", "{taken}", "taken by another program", "stop it"),
    Row("a wrong URL of Redis", _SERVE + " --redis-url http://127.0.0.1", "Redis", "'http'", "redis://HOST:PORT/DB", "must be"),
    Row("no chat template there", "serve {tiny} --launcher local --grpc-port 0 --chat-template {folder}/none.jinja", "--chat-template", "no such file", "Jinja template", "Check the path"),
    Row("a chat template that is none", "serve {tiny} --launcher local --grpc-port 0 --chat-template {folder}/broken.jinja", "chat template", "no valid Jinja", "line 1: Expected an expression", "--chat-template"),
    Row("nobody listens there", "generate hi --endpoint 127.0.0.1:{free}", "127.0.0.1:{free}", "refused", "no router answers", "is `shardline serve` running"),
    Row("no server of that name", "generate hi --name nobody", "'nobody'", "no server", "on this machine", "--endpoint"),
    Row("an endpoint that is none", "generate hi --endpoint nonsense:port", "endpoint", "'nonsense:port'", "host:port", "write"),
    Row("a plan for an unknown model", "plan gpt-7", "gpt-7", "no such model", "neither file nor folder", "Published shapes: "),
    Row("a plan above the model's context", "plan qwen3-8b --context 100000", "--context", "100000", "made for", "1 to 40960"),
    Row("ranks that do not fit", "plan qwen3-8b --gpus 2xL4 --tensor-parallel-size 4 --pipeline-parallel-size 1", "tp=4", "stays inside a node", "2 GPUs", "nearest plan that fits is tp=2"),
    Row("probabilities that nobody sees", "generate hi --logprobs 3", "--logprobs", "text alone", "does not show", "add --json"),
]

ASKED = [
    Row("top-p of 0", "generate hi --endpoint {router} --model tiny --top-p 0", "--top-p", "is 0", "more than 0", "which is off"),
    Row("an empty stop", "generate hi --endpoint {router} --model tiny --stop _", "--stop[0]", "0 characters", "1 … 1024", "leave it out"),
    Row("an unknown model", "generate hi --endpoint {router} --model gpt-7", "--model", "'gpt-7'", "deployed are:", "tiny"),
    Row("n past the replicas", "generate hi --endpoint {router} --model tiny --n 9", "--n is", "9", "run 8 sequences", "--max-num-seqs"),
    Row("more tokens than the context", "generate hi --endpoint {router} --model tiny --max-tokens 999", "--max-tokens is", "999", "context of 128", "ask for at most"),
    Row("a prompt past the context", "generate {book} --endpoint {router} --model tiny", "prompt", "300 tokens", "128", "shorten the prompt"),
    Row("an empty prompt", "generate _ --endpoint {router} --model tiny", "text", "is empty", "at least one", "send"),
    Row("a chat with a base model", "chat hi --endpoint {router} --model base", "chat", "base model", "no chat template", "shardline generate"),
]
