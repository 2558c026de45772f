# Commands on a fresh machine: make quickstart, make test, make libero. Each does the whole set-up.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup setup-libero quickstart libero test test-slow lint wheel clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# hf-libero without what the simulator does not need: its whole list brings torchvision, whose build
# does not fit beside a CPU-only torch.
setup-libero: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps \
		hf-libero robosuite bddl
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		easydict future huggingface_hub numba opencv-python-headless scipy termcolor 'mujoco>=3.2.7,<3.4'
	@if ! $(BIN)/python -c 'import ctypes.util, sys; sys.exit(not ctypes.util.find_library("OSMesa"))'; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && apt-get install -qq -y libosmesa6; \
		else \
			echo "For pictures without a GPU: sudo apt-get install libosmesa6"; \
		fi; \
	fi

quickstart: setup
	$(BIN)/rrd fit --config quickstart

# Demonstrations by a script, a policy from their outcomes alone, its success rate, and a video.
libero: setup-libero
	$(RECORD) --policy benchmarks.experts.TurnOnTheStove --output $(LIBERO)/demonstrations/successes
	$(RECORD) --policy benchmarks.experts.FailAtTheStove --output $(LIBERO)/demonstrations/failures
	$(BIN)/rrd fit --config libero_policy --data.demonstrations $(LIBERO)/demonstrations \
		--trainer.default_root_dir $(LIBERO)
	$(BIN)/rrd test --ckpt_path best --trainer.default_root_dir $(LIBERO) \
		--evaluate.episodes 50 --evaluate.seed 1000 --evaluate.filmed_episodes 2
	@ls -t $(LIBERO)/*/version_*/videos/*.mp4 | head -2

LIBERO := runs/libero
RECORD := $(BIN)/rrd record --task libero_goal/turn_on_the_stove --observations state --max_episode_steps 120 --episodes 5

# A process per core, each with one thread.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: setup
	rm -rf dist build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w dist .

clean:
	rm -rf $(VENV) build dist *.egg-info
